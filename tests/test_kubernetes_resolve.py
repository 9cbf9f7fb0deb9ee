"""Which endpoints a Kubernetes service has: each rule, by what it claims."""

import pytest
from sliced import (
    ENDING,
    HTTP,
    LEAVING,
    READY,
    STARTING,
    at,
    only,
    places,
    pod,
    resolved,
    service,
    slices,
)

from meshfed.catalog.model import (
    Health,
    Identity,
    Port,
    Protocol,
    ServiceName,
)
from meshfed.providers.kubernetes.resolve import Resolved

# Readiness


@pytest.mark.parametrize(
    ("conditions", "verdict"),
    [
        pytest.param(None, Health.HEALTHY, id="nothing said is ready"),
        pytest.param({}, Health.HEALTHY, id="no condition said is ready"),
        pytest.param({"ready": None}, Health.HEALTHY, id="null is ready"),
        pytest.param(READY, Health.HEALTHY, id="ready is healthy"),
        pytest.param(STARTING, Health.UNHEALTHY, id="not ready is unhealthy"),
        pytest.param(
            {"ready": False}, Health.UNHEALTHY, id="terminating unsaid is not terminating"
        ),
        pytest.param(LEAVING, Health.DRAINING, id="terminating and serving drains"),
        pytest.param(
            {"ready": False, "terminating": True}, Health.DRAINING, id="serving unsaid is serving"
        ),
        pytest.param(ENDING, Health.UNHEALTHY, id="terminating and not serving is unhealthy"),
        pytest.param(
            {"ready": True, "terminating": True},
            Health.HEALTHY,
            id="publishNotReadyAddresses: what the slice calls ready is ready",
        ),
    ],
)
def test_health_is_what_the_slice_says(conditions: object, verdict: Health) -> None:
    answer = resolved(slices(at("10.0.0.1"), at("10.0.0.9", conditions=conditions)))
    found = {endpoint.address: endpoint for endpoint in answer.endpoints.values()}
    assert found["10.0.0.9"].health is verdict
    assert bool(found["10.0.0.9"].health_reason) is (verdict is not Health.HEALTHY)


def test_what_terminates_is_used_while_nothing_is_ready() -> None:
    endpoint = only(resolved(slices(at("10.0.0.9", conditions=LEAVING))))
    assert endpoint.health is Health.UNKNOWN  # which callers use like a healthy one
    assert endpoint.health_reason == "terminating, and used all the same: nothing else is ready"


def test_the_last_resort_is_decided_for_each_port() -> None:
    two = ({"name": "http", "port": 80}, {"name": "admin", "port": 81})
    admin = {"name": "admin", "port": 9000}
    leaving = at("10.0.0.9", conditions=LEAVING)
    answer = resolved(
        slices(at("10.0.0.1"), leaving),
        slices(leaving, name="web-2", ports=[admin]),
        of=service(*two),
    )
    found = {(e.port, e.address): e.health for e in answer.endpoints.values()}
    assert found[80, "10.0.0.9"] is Health.DRAINING
    assert found[81, "10.0.0.9"] is Health.UNKNOWN


# Slices


def test_all_slices_of_a_service_count() -> None:
    answer = resolved(slices(at("10.0.0.1")), slices(at("10.0.0.2"), name="web-2"))
    assert places(answer) == ["10.0.0.1:8080", "10.0.0.2:8080"]


@pytest.mark.parametrize("better_first", [True, False])
def test_of_an_endpoint_in_two_slices_the_better_one_stands(better_first: bool) -> None:
    names = ("web-1", "web-2") if better_first else ("web-2", "web-1")
    answer = resolved(
        slices(at("10.0.0.1", "web-a", READY), name=names[0]),
        slices(at("10.0.0.1", conditions=STARTING), name=names[1]),
        pods=[pod()],
    )
    assert only(answer).health is Health.HEALTHY
    assert only(answer).identity == Identity("default", "shop")


def test_a_slice_that_is_being_deleted_says_nothing() -> None:
    going = slices(at("10.0.0.1"), metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert not resolved(going).endpoints


def test_only_the_first_address_means_anything() -> None:
    two = {"addresses": ["10.0.0.1", "10.0.0.2"]}
    assert places(resolved(slices(two))) == ["10.0.0.1:8080"]


@pytest.mark.parametrize("addresses", [None, []])
def test_an_endpoint_without_addresses_is_none(addresses: object) -> None:
    answer = resolved(slices({"addresses": addresses}, at("10.0.0.1")))
    assert places(answer) == ["10.0.0.1:8080"]


def test_an_address_that_is_none_is_left_out_by_name_and_the_others_stand() -> None:
    answer = resolved(slices(at("10.0.0.1"), at("store.example")))
    assert places(answer) == ["10.0.0.1:8080"]
    (why,) = answer.rejected
    assert str(why).startswith("endpointslices/shop/web-1: endpoints[1].addresses[0]: ")
    assert why.about == ("web.shop", "store.example")


@pytest.mark.parametrize("field", ["endpoints", "ports"])
def test_null_is_none(field: str) -> None:
    assert not resolved(slices(**{field: None})).endpoints


# Ports


def test_a_named_port_is_another_number_in_each_slice() -> None:
    answer = resolved(
        slices(at("10.0.0.1")),
        slices(at("10.0.0.2"), name="web-2", ports=[{"name": "http", "port": 9090}]),
    )
    assert places(answer) == ["10.0.0.1:8080", "10.0.0.2:9090"]
    assert {endpoint.port for endpoint in answer.endpoints.values()} == {80}


@pytest.mark.parametrize(
    ("port", "why"),
    [
        pytest.param({"name": "old", "port": 1}, "a name of before the service was edited"),
        pytest.param({"name": "http", "port": None}, "no number is all of them"),
        pytest.param({"name": "http", "port": 8080, "protocol": "UDP"}, "another protocol"),
        pytest.param({"name": None, "port": 8080}, "no name is a name too"),
    ],
)
def test_a_port_of_a_slice_that_is_none_of_the_service_is_left_out(port: object, why: str) -> None:
    assert not resolved(slices(at("10.0.0.1"), ports=[port])).endpoints, why


@pytest.mark.parametrize("name", ["", None])
def test_a_port_without_a_name_is_the_one_without_a_name(name: str | None) -> None:
    answer = resolved(
        slices(at("10.0.0.1"), ports=[{"name": name, "port": 8080}]), of=service({"port": 80})
    )
    assert places(answer) == ["10.0.0.1:8080"]


def test_one_pod_on_two_ports_is_two_endpoints_of_one_workload() -> None:
    both = [{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}]
    answer = resolved(
        slices(at("10.0.0.1", "web-a"), ports=both),
        of=service(HTTP, {"name": "admin", "port": 81}),
        pods=[pod()],
    )
    assert places(answer) == ["10.0.0.1:8080", "10.0.0.1:9000"]
    assert len({endpoint.workload for endpoint in answer.endpoints.values()}) == 1


@pytest.mark.parametrize(
    ("port", "spoken"),
    [
        pytest.param({"port": 80}, Protocol.HTTP, id="nothing said is http, as in host lists"),
        pytest.param({"port": 80, "name": "http-web"}, Protocol.HTTP, id="http-"),
        pytest.param({"port": 80, "name": "grpc"}, Protocol.GRPC, id="grpc"),
        pytest.param({"port": 80, "name": "tcp-x"}, Protocol.TCP, id="tcp-"),
        pytest.param(
            {"port": 80, "name": "tcp-server-first-x"}, Protocol.TCP_SERVER_FIRST, id="OSM's prefix"
        ),
        pytest.param({"port": 80, "name": "grpcish"}, Protocol.HTTP, id="a prefix ends in a dash"),
        pytest.param({"port": 80, "appProtocol": "kubernetes.io/h2c"}, Protocol.HTTP2, id="h2c"),
        pytest.param({"port": 80, "appProtocol": "kubernetes.io/ws"}, Protocol.HTTP, id="ws"),
        pytest.param({"port": 80, "appProtocol": "kubernetes.io/wss"}, Protocol.HTTPS, id="wss"),
        pytest.param({"port": 80, "appProtocol": "HTTPS"}, Protocol.HTTPS, id="case is nothing"),
        pytest.param({"port": 80, "appProtocol": "redis"}, Protocol.TCP, id="unknown is tcp"),
        pytest.param(
            {"port": 80, "name": "http", "appProtocol": "tcp"}, Protocol.TCP, id="before the name"
        ),
        pytest.param({"port": 3306}, Protocol.TCP_SERVER_FIRST, id="the server speaks first"),
        pytest.param({"port": 27017}, Protocol.TCP, id="a well-known port of something else"),
    ],
)
def test_what_is_spoken_on_a_port(port: dict[str, object], spoken: Protocol) -> None:
    (said,) = resolved(of=service(port)).services
    assert said.ports == (Port(port["port"], str(port.get("name") or ""), spoken),)


def test_ports_of_udp_are_not_the_meshs() -> None:
    (said,) = resolved(of=service(HTTP, {"port": 53, "name": "dns", "protocol": "UDP"})).services
    assert [port.number for port in said.ports] == [80]


# Services


def test_the_cluster_ip_is_the_virtual_ip() -> None:
    (said,) = resolved(of=service(clusterIP="10.96.0.7")).services
    assert (said.name, said.vip) == (ServiceName("web", "shop"), "10.96.0.7")


def test_a_headless_service_has_no_virtual_ip_and_its_pods_have_names() -> None:
    answer = resolved(
        slices(at("10.0.0.1", "web-0", hostname="web-0")),
        of=service(clusterIP="None"),
        pods=[pod("web-0")],
    )
    (said,) = answer.services
    (workload,) = answer.workloads.values()
    assert said.vip == ""
    assert workload.name == "web-0.shop"
    assert ("hostname", "web-0.web") in workload.labels


def test_an_external_name_is_no_service() -> None:
    answer = resolved(slices(at("10.0.0.1")), of=service(type="ExternalName", externalName="x"))
    assert answer == Resolved()


def test_a_service_without_endpoints_is_a_service() -> None:
    assert resolved().services
    assert not resolved().endpoints


# Families


DUAL = ("IPv4", "IPv6")


def dual(*families: str) -> Resolved:
    return resolved(
        slices(at("10.0.0.1", "web-a")),
        slices(at("fd00:0::1", "web-a"), name="web-2", addressType="IPv6"),
        of=service(ipFamilies=families),
        pods=[pod("web-a", "10.0.0.1", "fd00::1")],
    )


@pytest.mark.parametrize(
    ("families", "where"),
    [
        pytest.param(("IPv4", "IPv6"), "10.0.0.1:8080", id="IPv4 first"),
        pytest.param(("IPv6", "IPv4"), "fd00::1:8080", id="IPv6 first"),
        pytest.param(("IPv6",), "fd00::1:8080", id="one family alone"),
    ],
)
def test_a_pod_in_two_families_is_one_endpoint_in_the_services_first(
    families: tuple[str, ...], where: str
) -> None:
    answer = dual(*families)
    assert places(answer) == [where]
    (workload,) = answer.workloads.values()
    assert workload.addresses == ("10.0.0.1", "fd00::1")


def test_a_pod_in_the_second_family_only_is_an_endpoint() -> None:
    answer = resolved(
        slices(at("10.0.0.1", "web-a")),
        slices(at("fd00::2", "web-b"), name="web-2", addressType="IPv6"),
        of=service(ipFamilies=DUAL),
        pods=[pod("web-a"), pod("web-b")],
    )
    assert places(answer) == ["10.0.0.1:8080", "fd00::2:8080"]


def test_slices_of_names_are_ignored() -> None:
    assert not resolved(slices(at("store.example"), addressType="FQDN")).endpoints
