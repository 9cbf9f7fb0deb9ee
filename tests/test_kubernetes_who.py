"""Who answers for a service of a cluster, with which sidecar, and where; what was made stays."""

from typing import Any

import pytest
from sliced import (
    HTTP,
    LEAVING,
    PLACE,
    at,
    node,
    only,
    places,
    pod,
    resolved,
    said,
    service,
    slices,
)

from meshfed.catalog.model import (
    Identity,
    Interception,
    Locality,
    Platform,
)
from meshfed.providers.kubernetes.resolve import idle, resolve

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
