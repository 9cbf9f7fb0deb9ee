"""What gRPC without a sidecar is told, as values: what it asks for by name, and no more."""

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any
from transcripts import URL, Sotw, world

from meshfed.catalog.model import (
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Locality,
    Mesh,
    Port,
    Protocol,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.preferences import Preference
from meshfed.catalog.reach import Assignment, Transport
from meshfed.catalog.view import proxy_class, view
from meshfed.xds.endpoints import load_assignment
from meshfed.xds.grpc_client import unbounded
from meshfed.xds.resource import Resource, Type, World
from meshfed.xds.snapshot import snapshot

MOST = 4_194_304  # bytes of a message that gRPC clients take
BOOKS = ServiceName("books", "shop")
SELLER = Identity("books", "shop")
READER = Workload(
    "reader", "rack", "rack/hosts.yaml",
    identity=Identity("reader", "shop"), interception=Interception.GRPC,
)  # fmt: skip


def endpoint(number: int, service: ServiceName = BOOKS, **also: object) -> Endpoint:
    host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    given = {"provider": "rack", "identity": SELLER, "interception": Interception.GRPC} | also
    return Endpoint(service, 80, host, 50051, host, scope="rack/hosts.yaml", **given)


def told(endpoints: Iterable[Endpoint], **also: object) -> dict[tuple[int, str, str], object]:
    """Of each locality its priority, zone and part: weight, and last numbers of addresses."""
    at = Assignment(BOOKS, 80, only=Transport.MUTUAL, **also)
    found = ClusterLoadAssignment()
    assert Any.FromString(load_assignment(at, endpoints).any).Unpack(found)
    return {
        (group.priority, group.locality.zone, group.locality.sub_zone): (
            group.load_balancing_weight.value,
            [
                int(member.endpoint.address.socket_address.address.rpartition(".")[2])
                for member in group.lb_endpoints
            ],
        )
        for group in found.endpoints
    }


def test_endpoints_weigh_as_localities_of_their_likes():
    zone = {"locality": Locality("eu", "1")}
    heavy = [endpoint(n, weight=3, **zone) for n in (1, 2)]
    assert told([*heavy, endpoint(3, **zone), endpoint(4)]) == {
        (0, "1", "host/3"): (6, [1, 2]),
        (0, "1", "host/1"): (1, [3]),
        (0, "", "host/1"): (1, [4]),
    }


def test_who_gets_no_calls_is_not_counted_nor_a_priority_of_them():
    first = [endpoint(1, health=Health.UNHEALTHY), endpoint(2, health=Health.DRAINING)]
    later = [endpoint(3, provider="cloud"), endpoint(4, provider="cloud", health=Health.UNKNOWN)]
    found = told([*first, *later], preference=Preference(prefer=("rack",)))
    assert found == {(0, "", "host/1"): (2, [3, 4])}


def test_shares_of_platforms_hold_whatever_they_have_of_endpoints():
    there = [endpoint(1, provider="rack"), endpoint(2, provider="rack", weight=2)]
    there += [endpoint(n, provider="cloud") for n in range(3, 9)]
    weights = told(there, preference=Preference(weights=(("rack", 3), ("cloud", 1))))
    assert weights == {
        (0, "", "rack/1"): (1000, [1]),
        (0, "", "rack/2"): (2000, [2]),
        (0, "", "cloud/1"): (1000, [3, 4, 5, 6, 7, 8]),
    }


@pytest.mark.parametrize(
    ("requests", "all_of_them"),
    [
        pytest.param(None, True, id="nothing is asked"),
        pytest.param((), False, id="nothing is granted"),
        pytest.param((HttpMatch("all"),), True, id="every call"),
        pytest.param((HttpMatch("all", methods=frozenset({"POST"})),), True, id="gRPC's method"),
        pytest.param((HttpMatch("all", methods=frozenset({"GET"})),), False, id="another method"),
        pytest.param((HttpMatch("one", "/a.B/C"),), False, id="a path"),
        pytest.param((HttpMatch("one", headers=(("a", "b"),)),), False, id="a header"),
        pytest.param((HttpMatch("one", "/a"), HttpMatch("all")), True, id="one of them is all"),
    ],
)
def test_plaintext_is_for_whom_nothing_must_be_enforced(requests, all_of_them):
    assert unbounded(requests) is all_of_them


def test_naming_nothing_is_never_everything():
    client = Sotw(replace(world(1, LDS="a b", CDS="c d"), by_name=True))
    assert client.asks("LDS", "") == ["LDS"]
    assert client.accepts("LDS") == []
    assert client.asks("LDS", "a") == ["LDS a"]
    assert client.asks("CDS", "") == ["CDS"]


def test_large_assignments_come_one_by_one():
    there = {
        name: load_assignment(
            Assignment(ServiceName(name, "shop"), 80, only=Transport.MUTUAL),
            [endpoint(n, ServiceName(name, "shop")) for n in range(20_000)],
        )
        for name in "ab"
    }
    named = {each.name: each for each in there.values()}
    client = Sotw(World(1, {Type(URL["EDS"]): named}, by_name=True))
    assert sorted(client.asks("EDS", " ".join(named))) == [f"EDS {name}" for name in sorted(named)]


def test_a_mesh_of_any_size_is_told_in_messages_that_grpc_takes():
    names = [ServiceName(f"s{number}", "shop") for number in range(1000)]
    port = Port(80, protocol=Protocol.GRPC)
    big = tuple(endpoint(number, names[0]) for number in range(20_000))
    others = {name: (endpoint(n, name),) for n, name in enumerate(names[1:])}
    mesh = Mesh(
        "shop.example",
        permissive=True,
        services=MappingProxyType({name: Service(name, (port,)) for name in names}),
        endpoints=MappingProxyType({**others, names[0]: big}),
        workloads=MappingProxyType({READER.id: READER}),
    )
    shape = snapshot(view(mesh, proxy_class(mesh, READER)))
    assert not shape.left_out
    assert len(shape.listeners) == 2000
    assert sum(map(size, shape.listeners.values())) < MOST / 2  # of them all, if it dialled them
    assert sum(map(size, shape.clusters.values())) < MOST / 2
    (largest,) = (each for each in shape.assignments.values() if each.service == names[0])
    assert size(load_assignment(largest, big)) < MOST / 5  # five times as many fit as well


def size(resource: Resource) -> int:
    return len(resource.any)
