"""Which endpoints a Kubernetes service has: each rule, by what it claims."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from meshfed.catalog.model import (
    Endpoint,
    Health,
    Identity,
    Interception,
    Locality,
    Platform,
    Port,
    Protocol,
    ServiceName,
)
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.pods import Place
from meshfed.providers.kubernetes.resolve import Resolved, idle, resolve

PLACE = Place("aks-weu", "aks-weu", "vnet-1")
HTTP = {"name": "http", "port": 80}
READY = {"ready": True, "serving": True, "terminating": False}
STARTING = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
ENDING = {"ready": False, "serving": False, "terminating": True}


def service(*ports: Mapping[str, object], name: str = "web", **spec: object) -> objects.Service:
    written = {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": list(ports or (HTTP,)), **spec},
    }
    return msgspec.convert(written, objects.Service)


def slices(*endpoints: Mapping[str, object], name: str = "web-1", **more: Any) -> objects.Slice:
    written = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
            **more.pop("metadata", {}),
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
        **more,
    }
    return msgspec.convert(written, objects.Slice)


def at(address: str, pod: str = "", conditions: object = None, **more: object) -> dict[str, object]:
    found: dict[str, object] = {"addresses": [address], **more}
    if conditions is not None:
        found["conditions"] = conditions
    if pod:
        found["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "shop", "uid": f"uid-{pod}"}
    return found


def pod(name: str = "web-a", *addresses: str, **spec: Any) -> objects.Pod:
    written = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            **spec.pop("metadata", {}),
        },
        "spec": spec,
        "status": {"podIPs": [{"ip": each} for each in addresses]},
    }
    return msgspec.convert(written, objects.Pod)


def node(name: str, region: str, zone: str) -> objects.Node:
    labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
    return msgspec.convert({"metadata": {"name": name, "labels": labels}}, objects.Node)


def resolved(
    *found: objects.Slice,
    of: objects.Service | None = None,
    pods: Iterable[objects.Pod] = (),
    nodes: Iterable[objects.Node] = (),
) -> Resolved:
    there = {each.metadata.uid: each for each in pods}
    where = {each.metadata.name: each for each in nodes}
    answer = resolve(PLACE, of or service(), found, there, where)
    again = resolve(PLACE, of or service(), found, there, where, answer.last)
    assert said(again) == said(answer)
    return answer


def said(answer: Resolved) -> tuple[object, ...]:
    return answer.services, answer.workloads, answer.endpoints, answer.rejected


def places(answer: Resolved) -> list[str]:
    return [f"{e.address}:{e.target}" for e in answer.endpoints.values()]


def only(answer: Resolved) -> Endpoint:
    (endpoint,) = answer.endpoints.values()
    return endpoint


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


# Who answers


def test_who_answers_is_the_pods_service_account_whose_name_may_hold_dots() -> None:
    answer = resolved(slices(at("10.0.0.1", "web-a")), pods=[pod(serviceAccountName="web.v1")])
    assert only(answer).identity == Identity("web.v1", "shop")
    assert str(only(answer).identity) == "web.v1.shop"


def test_a_pod_that_names_no_account_has_the_default_one() -> None:
    answer = resolved(slices(at("10.0.0.1", "web-a")), pods=[pod()])
    assert only(answer).identity == Identity("default", "shop")


def test_a_pod_is_known_by_its_uid_for_names_are_used_again() -> None:
    other = pod(metadata={"uid": "another"})
    assert not resolved(slices(at("10.0.0.1", "web-a")), pods=[other]).endpoints


def test_an_endpoint_waits_for_its_pod() -> None:
    early = slices(at("10.0.0.1", "web-a"), at("10.0.0.2", "web-b"))
    assert places(resolved(early, pods=[pod("web-b")])) == ["10.0.0.2:8080"]
    both = [pod("web-a"), pod("web-b")]
    assert places(resolved(early, pods=both)) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_of_a_slice_that_somebody_wrote_by_hand_nobody_knows_who_answers() -> None:
    answer = resolved(slices(at("192.0.2.7")))
    (workload,) = answer.workloads.values()
    assert only(answer).identity is None
    assert only(answer).interception is Interception.NONE
    assert (workload.name, workload.addresses) == ("192.0.2.7", ("192.0.2.7",))


def test_an_account_that_is_no_identity_leaves_its_pod_out_and_says_why() -> None:
    answer = resolved(
        slices(at("10.0.0.1", "web-a"), at("10.0.0.2", "web-b")),
        pods=[pod("web-a", "10.0.0.1", serviceAccountName="Not_A_Name"), pod("web-b")],
    )
    assert places(answer) == ["10.0.0.2:8080"]
    (why,) = answer.rejected
    assert (why.where, why.about) == ("pods/shop/web-a", ("web-a.shop", "10.0.0.1"))


# Sidecars


def test_a_pod_says_by_an_annotation_how_traffic_gets_into_its_sidecar() -> None:
    asked = {"meshfed.io/interception": "transparent"}
    answer = resolved(slices(at("10.0.0.1", "web-a")), pods=[pod(metadata={"annotations": asked})])
    assert only(answer).interception is Interception.TRANSPARENT


def test_a_pod_that_says_nothing_has_no_sidecar() -> None:
    answer = resolved(slices(at("10.0.0.1", "web-a")), pods=[pod()])
    assert only(answer).interception is Interception.NONE


def test_a_pod_in_its_nodes_network_has_none_whatever_it_says() -> None:
    asked = {"meshfed.io/interception": "transparent"}
    there = pod(hostNetwork=True, metadata={"annotations": asked})
    assert only(resolved(slices(at("10.0.0.1", "web-a")), pods=[there])).interception is (
        Interception.NONE
    )


def test_an_interception_that_is_none_is_told() -> None:
    there = pod(metadata={"annotations": {"meshfed.io/interception": "magic"}})
    answer = resolved(slices(at("10.0.0.1", "web-a")), pods=[there])
    assert only(answer).interception is Interception.NONE
    assert "'magic' is none of transparent, explicit, grpc, none" in str(answer.rejected[0])


def test_a_sidecar_of_addresses_of_IPv6_listens_there() -> None:  # noqa: N802
    there = pod("web-a", "fd00::1")
    answer = resolved(
        slices(at("fd00::1", "web-a"), addressType="IPv6"), of=service(ipFamilies=["IPv6"]),
        pods=[there],
    )  # fmt: skip
    (workload,) = answer.workloads.values()
    assert workload.bind == "::"


def test_a_sidecar_of_both_families_listens_in_both() -> None:
    there = pod("web-a", "10.0.0.1", "fd00::1")
    answer = resolved(slices(at("10.0.0.1", "web-a")), pods=[there])
    (workload,) = answer.workloads.values()
    assert (workload.addresses, workload.bind) == (("10.0.0.1", "fd00::1"), "::")


def test_two_pods_may_share_their_nodes_address_on_different_ports() -> None:
    answer = resolved(
        slices(at("10.1.0.1", "web-a")),
        slices(at("10.1.0.1", "web-b"), name="web-2", ports=[{"name": "http", "port": 8081}]),
        pods=[pod("web-a", hostNetwork=True), pod("web-b", hostNetwork=True)],
    )
    assert len({endpoint.workload for endpoint in answer.endpoints.values()}) == 2


# Where


def test_the_zone_is_the_endpoints_and_the_region_its_nodes() -> None:
    answer = resolved(
        slices(at("10.0.0.1", "web-a", zone="weu-2", nodeName="n1")),
        pods=[pod(nodeName="n1")],
        nodes=[node("n1", "weu", "weu-1")],
    )
    assert only(answer).locality == Locality("weu", "weu-2")


def test_the_zone_is_the_nodes_where_the_slice_names_none() -> None:
    answer = resolved(
        slices(at("10.0.0.1", "web-a")),
        pods=[pod(nodeName="n1")],
        nodes=[node("n1", "weu", "weu-1")],
    )
    assert only(answer).locality == Locality("weu", "weu-1")


def test_without_the_right_to_see_nodes_the_zone_is_known() -> None:
    answer = resolved(slices(at("10.0.0.1", "web-a", zone="weu-2")), pods=[pod()])
    assert only(answer).locality == Locality("", "weu-2")


def test_cluster_network_and_scope_are_those_of_the_configuration() -> None:
    endpoint = only(resolved(slices(at("10.0.0.1", "web-a")), pods=[pod()]))
    assert endpoint.scope == "aks-weu/shop/web"
    assert (endpoint.provider, endpoint.cluster, endpoint.network) == (
        "aks-weu",
        "aks-weu",
        "vnet-1",
    )
    assert endpoint.platform is Platform.KUBERNETES


def test_a_pod_that_answers_for_nothing_is_a_workload_of_its_namespace() -> None:
    answer = idle(PLACE, "shop", [pod("buyer", "10.0.0.5", serviceAccountName="buyer")], {})
    (workload,) = answer.workloads.values()
    assert (workload.name, workload.scope) == ("buyer.shop", "aks-weu/shop")
    assert workload.identity == Identity("buyer", "shop")


def test_a_pod_is_the_same_workload_in_each_of_its_services() -> None:
    one = resolved(slices(at("10.0.0.1", "web-a")), pods=[pod()])
    other = resolved(slices(at("10.0.0.1", "web-a")), of=service(name="all"), pods=[pod()])
    assert only(one).scope != only(other).scope
    assert only(one).workload == only(other).workload


def test_the_order_of_slices_does_not_matter() -> None:
    found = [slices(at(f"10.0.0.{n}"), name=f"web-{n}") for n in range(1, 6)]
    assert places(resolved(*found)) == places(resolved(*reversed(found)))


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "224.0.0.1", "10.0.1", "010.0.0.1", "fe80::1%eth0"]
)
def test_an_address_that_nobody_can_connect_to_is_left_out(address: str) -> None:
    assert not resolved(slices(at(address))).endpoints


# Of what was made before


ONE, TWO = pod("a", "10.0.0.1", nodeName="n"), pod("b", "10.0.0.2", nodeName="n")
BOTH = slices(at("10.0.0.1", "a"), at("10.0.0.2", "b"))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"found": slices(at("10.0.0.1", "a"))}, id="an endpoint is gone"),
        pytest.param(
            {"found": slices(at("10.0.0.1", "a", LEAVING), at("10.0.0.2", "b"))}, id="it leaves"
        ),
        pytest.param(
            {"found": slices(at("10.0.0.1", "a"), at("10.0.0.2", "b"), ports=[HTTP])},
            id="another target",
        ),
        pytest.param({"of": service({"name": "http", "port": 81})}, id="another port"),
        pytest.param({"of": service(clusterIP="10.1.1.1")}, id="another virtual address"),
        pytest.param({"pods": (ONE, pod("b", "10.0.0.2", serviceAccountName="x"))}, id="a pod"),
        pytest.param({"pods": (ONE,)}, id="a pod that is gone"),
        pytest.param({"nodes": (node("n", "weu", "2"),)}, id="a node"),
    ],
)
def test_nothing_is_left_of_what_was_before(changed: dict[str, Any]) -> None:
    before = {"of": service(), "pods": (ONE, TWO), "nodes": (node("n", "weu", "1"),), "found": BOTH}
    answers = []
    last = None
    for given in (before, before | changed):
        there = {each.metadata.uid: each for each in given["pods"]}
        where = {each.metadata.name: each for each in given["nodes"]}
        fresh = resolve(PLACE, given["of"], [given["found"]], there, where)
        answer = resolve(PLACE, given["of"], [given["found"]], there, where, last)
        assert said(answer) == said(fresh)
        answers.append(said(answer))
        last = answer.last
    assert answers[0] != answers[1]


def test_an_endpoint_that_is_as_it_was_is_the_same_object() -> None:
    there = {each.metadata.uid: each for each in (ONE, TWO)}
    first = resolve(PLACE, service(), [BOTH], there, {})
    moved = slices(at("10.0.0.1", "a", LEAVING), at("10.0.0.2", "b"))
    again = resolve(PLACE, service(), [moved], there, {}, first.last)
    kept = [e for e in again.endpoints.values() if any(e is f for f in first.endpoints.values())]
    assert [e.address for e in kept] == ["10.0.0.2"]
