"""A part of a report becomes an edge of the mesh, or is not counted."""

from dataclasses import replace

import pytest

from meshfed.catalog.model import (
    Backend,
    Endpoint,
    Locality,
    Mesh,
    ObjectName,
    Platform,
    Port,
    Protocol,
    Service,
    ServiceName,
    TrafficSplit,
)
from meshfed.catalog.preferences import Preference, Preferences
from meshfed.catalog.reach import Assignment
from meshfed.federation.edges import Edges
from meshfed.xds.endpoints import group
from meshfed.xds.loads import Calls

STORE, V1, LEDGER = (ServiceName(name, "shop") for name in ("store", "store-v1", "ledger"))


def endpoint(service: ServiceName, platform: Platform, zone: str, provider: str = "p") -> Endpoint:
    return Endpoint(service, 80, f"10.0.0.{len(zone)}", 80, "w", provider, "p/s", platform,
                    locality=Locality.parse(zone))  # fmt: skip


ENDPOINTS = {
    STORE: (endpoint(STORE, Platform.VM, "eu/1"), endpoint(STORE, Platform.KUBERNETES, "eu/1")),
    V1: (endpoint(V1, Platform.HOST, ""),),
    LEDGER: (endpoint(LEDGER, Platform.AZURE, "eu/22"),),
}
MESH = Mesh(
    "shop.example",
    services={
        STORE: Service(STORE, (Port(80),)),
        V1: Service(V1, (Port(80),)),
        LEDGER: Service(LEDGER, (Port(80, protocol=Protocol.TCP),)),
    },
    endpoints=ENDPOINTS,
    policies=(TrafficSplit(ObjectName("shop", "store"), STORE, (Backend(V1, 1),)),),
)


def part(cluster: str, *place: str, **counts: int) -> Calls:
    where = (*place, "", "", "")[:3]
    return Calls(cluster, *where, *(0, 0, 0, 0))._replace(**counts)


def counted(part: Calls, *meshes: Mesh) -> tuple[object, ...] | None:
    """As the last of these meshes has it, each of which was looked at."""
    now = [MESH]
    edges = Edges(lambda: now[0])
    for now[0] in (*meshes, *([] if meshes else [MESH])):
        found = edges.counted("buyer.shop", part)
    return found and (*found.edge[1:], *found.load)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        pytest.param(
            part("store.shop|80", "eu", "1", "vm", succeeded=3, failed=1, begun=9, in_flight=2),
            ("store.shop", "", "vm", "eu/1", 4, 1, 2),
            id="requests count when they end",
        ),
        pytest.param(
            part("ledger.shop|80", "eu", "22", "azure", begun=5, in_flight=2),
            ("ledger.shop", "", "azure", "eu/22", 5, 0, 2),
            id="TCP connections count when they begin",
        ),
        pytest.param(
            part("store.shop>store-v1.shop|80|0f", "", "", "host", succeeded=1),
            ("store.shop", "store-v1.shop", "host", "", 1, 0, 0),
            id="a split's backend is the version of what was asked for",
        ),
        pytest.param(part("thief.shop|80", "eu", "1", "vm", succeeded=1), None, id="no service"),
        pytest.param(part("xds", succeeded=1), None, id="no cluster of the mesh"),
        pytest.param(part("store.shop|80", "us", "1", "vm", succeeded=1), None, id="no place"),
        pytest.param(
            part("ledger.shop>store-v1.shop|80", "", "", "host", succeeded=1), None, id="no split"
        ),
    ],
)
def test_a_part_means(said: Calls, means: tuple[object, ...] | None) -> None:
    assert counted(said) == means


def weighed(**weights: int) -> Mesh:
    general = Preference(weights=tuple(sorted(weights.items())))
    return replace(MESH, preferences=Preferences(general))


def test_what_is_weighed_is_told_by_the_name_that_it_is_weighed_as() -> None:
    said = part("store.shop|80", "", "", "vm", succeeded=1)
    assert counted(said, weighed(vm=3)) == ("store.shop", "", "vm", "", 1, 0, 0)
    said = part("store.shop|80", "", "", "p", succeeded=1)  # a provider of two platforms
    assert counted(said, weighed(p=3)) == ("store.shop", "", "", "", 1, 0, 0)


def test_weights_that_come_later_are_heeded() -> None:
    said = part("ledger.shop|80", "", "", "p", begun=1)
    assert counted(said, MESH) is None
    assert counted(said, MESH, weighed(p=1)) == ("ledger.shop", "", "azure", "", 1, 0, 0)


@pytest.mark.parametrize("mesh", [MESH, weighed(vm=1), weighed(p=1)], ids=["", "vm", "provider"])
def test_every_locality_that_callers_are_told_of_is_known(mesh: Mesh) -> None:
    for service, endpoints in mesh.endpoints.items():
        told = Assignment(service, 80, preference=mesh.preferences.of(service))
        for each in endpoints:
            place = group(told, each)[1:4]
            assert counted(part(f"{service}|80", *place, succeeded=1), mesh)


def test_what_is_gone_is_reported_once_more() -> None:
    said = part("store.shop>store-v1.shop|80", "", "", "host", succeeded=1)
    empty = replace(MESH, services={}, endpoints={}, policies=())
    assert counted(said, empty) is None
    assert counted(said, MESH, empty) == ("store.shop", "store-v1.shop", "host", "", 1, 0, 0)
