"""What `path` says where no loopback Envoy can show it: transparent callers, networks, mistakes."""

from dataclasses import replace

import pytest
from msgspec import structs

from meshfed.catalog.model import (
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Mesh,
    ObjectName,
    Policy,
    Port,
    Protocol,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    TcpRoute,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.resolved import resolve
from meshfed.federation.explain.callers import Unknown, callers
from meshfed.federation.explain.judge import Asked, Known, Path, Verdict
from meshfed.federation.explain.matching import Request
from meshfed.federation.explain.path import path
from meshfed.federation.explain.step import failures

BUYER, STORE = Identity("buyer", "shop"), Identity("store", "shop")
NAME = ServiceName("store", "shop")
BUYING = Workload("buyer-1", "rack", "rack/hosts.yaml", identity=BUYER)
SELLING = Workload("store-1", "rack", "rack/hosts.yaml", identity=STORE, addresses=("10.0.0.1",))
HTTP, TCP = Port(80), Port(3306, protocol=Protocol.TCP, local=13306)
GROUP = RouteGroup(ObjectName("shop", "all"), (HttpMatch("all"),))
TARGET = TrafficTarget(
    ObjectName("shop", "buyers"), STORE, frozenset({BUYER}), (Rule("HTTPRouteGroup", "all"),)
)


def endpoint(port: int = 80, **also: object) -> Endpoint:
    told = {"identity": STORE, **also}
    return Endpoint(NAME, port, "10.0.0.1", port, SELLING.id, "rack", SELLING.scope, **told)  # type: ignore[arg-type]


def mesh(
    *policies: Policy, caller: Workload = BUYING, permissive: bool = False, **also: object
) -> Mesh:
    return Mesh(
        "shop.example",
        permissive,
        services={NAME: Service(NAME, (HTTP, TCP), vip=str(also.pop("vip", "")))},
        endpoints={NAME: (endpoint(**also), endpoint(3306, **also))},
        workloads={each.id: each for each in (caller, SELLING)},
        policies=policies or (GROUP, TARGET),
    )


def told(known: Mesh, source: str = "buyer-1", port: int | None = 80, **also: object) -> Path:
    resolved = resolve(known)
    (who,) = callers(known, source, resolved)
    return path(known, who, Asked(NAME, port, **also), Known(), resolved)  # type: ignore[arg-type]


def whys(found: Path) -> str:
    return "; ".join(map(str, failures(found.steps)))


TRANSPARENT = structs.replace(BUYING, interception=Interception.TRANSPARENT)


def test_a_transparent_caller_dials_the_virtual_ip_or_the_members() -> None:
    by_vip = told(mesh(caller=TRANSPARENT, vip="10.96.0.1"))
    by_member = told(mesh(caller=TRANSPARENT))
    dials = [next(s.what for s in each.steps if s.step == "dial") for each in (by_vip, by_member)]
    assert dials == ["dial 10.96.0.1 port 80", "dial 10.0.0.1 port 80"]
    assert by_vip.verdict is by_member.verdict is Verdict.ALLOWED


def test_a_transparent_caller_that_is_refused_sees_no_status() -> None:
    found = told(mesh(GROUP, caller=TRANSPARENT))
    assert (found.verdict, found.statuses) == (Verdict.REFUSED, frozenset())
    assert "there is none to it at all" in whys(found)


def test_a_grpc_client_dials_a_name_and_only_what_speaks_grpc() -> None:
    itself = mesh(caller=structs.replace(BUYING, interception=Interception.GRPC))
    spoken = Service(NAME, (Port(80, protocol=Protocol.GRPC), TCP))
    found = told(replace(itself, services={NAME: spoken}))
    dial = next(step.what for step in found.steps if step.step == "dial")
    assert dial == "dial xds:///store.shop:80"
    assert (found.verdict, len(found.hops)) == (Verdict.ALLOWED, 1)
    other = told(itself)
    assert (other.verdict, other.statuses) == (Verdict.REFUSED, frozenset())
    assert "it speaks http: gRPC without a sidecar calls only grpc and http2" in whys(other)


def test_permissive_mode_is_named_as_what_lets_it_through() -> None:
    found = told(mesh(GROUP, permissive=True), request=Request("DELETE", "/all"))
    assert (found.verdict, found.statuses) == (Verdict.ALLOWED, {200})
    assert any(step.object == "mesh.permissive" for step in found.steps)


@pytest.mark.parametrize(
    ("also", "why"),
    [
        pytest.param({"health": Health.UNHEALTHY}, "none of its endpoints is healthy", id="sick"),
        pytest.param(
            {"health": Health.DRAINING}, "none of its endpoints is healthy", id="draining"
        ),
        pytest.param({"weight": 0}, "all its endpoints have weight 0", id="without weight"),
    ],
)
def test_nobody_answers(also: dict[str, object], why: str) -> None:
    found = told(mesh(**also))
    assert (found.verdict, found.statuses) == (Verdict.NOWHERE, {503})
    assert why in whys(found)


@pytest.mark.parametrize(
    ("trouble", "found"),
    [
        pytest.param("is not connected", True, id="its sidecar is not there"),
        pytest.param("is silent: its replica a writes nothing", False, id="nobody can say"),
        pytest.param("is rejecting: LDS: no such filter", False, id="it goes on with what it had"),
    ],
)
def test_nobody_answers_where_no_sidecar_is(trouble: str, found: bool) -> None:
    known = mesh()
    (who,) = callers(known, "buyer-1", resolve(known))
    beside = Known(trouble={SELLING.id: trouble})
    failed = whys(path(known, who, Asked(NAME, 80), beside, resolve(known)))
    assert ("of none of its endpoints the proxy is connected" in failed) == found
    assert bool(failed) == found


def test_networks_that_do_not_meet() -> None:
    found = told(mesh(caller=structs.replace(BUYING, network="azure"), network="onprem"))
    assert found.verdict is Verdict.NOWHERE
    assert "its endpoints are in network onprem, the caller in azure" in whys(found)


@pytest.mark.parametrize(
    ("policies", "port", "why"),
    [
        pytest.param((GROUP, TARGET), 3306, "grants HTTP alone: port 3306 speaks tcp", id="kind"),
        pytest.param(
            (TcpRoute(ObjectName("shop", "all"), frozenset({25})),
             replace(TARGET, rules=(Rule("TCPRoute", "all"),))),
            3306, "on port 25 alone, not on 3306", id="port",
        ),
        pytest.param(
            (GROUP, replace(TARGET, name=ObjectName("other", "buyers"))),
            80, "it stands in namespace other", id="namespace",
        ),
        pytest.param((TARGET,), 80, "shop/buyers names buyer.shop, but grants no HTTP", id="route"),
        pytest.param(
            (GROUP, replace(TARGET, sources=frozenset({STORE}))),
            80, "shop/buyers let others in", id="source",
        ),
    ],
)  # fmt: skip
def test_what_a_policy_lacks(policies: tuple[Policy, ...], port: int, why: str) -> None:
    found = told(mesh(*policies), port=port)
    assert found.verdict is Verdict.REFUSED
    assert why in whys(found)


def test_a_port_may_be_left_out_only_where_one_is_meant() -> None:
    assert told(mesh(), port=None).verdict is Verdict.ALLOWED  # the only one it may call
    refused = told(mesh(GROUP), port=None)
    assert "it has the ports 80 (http), 3306 (tcp)" in whys(refused)


def test_an_identity_that_no_workload_runs_as_is_told_so() -> None:
    known = replace(mesh(), workloads={SELLING.id: SELLING})
    found = told(known, "buyer.shop")
    assert found.verdict is Verdict.ALLOWED
    assert any("no workload runs as it yet" in step.what for step in found.steps)


def test_without_a_sidecar_calls_do_not_go_through_the_mesh() -> None:
    found = told(mesh(caller=structs.replace(BUYING, interception=Interception.NONE)))
    assert found.verdict is Verdict.REFUSED
    assert "its calls do not go through the mesh" in whys(found)


def test_callers_in_two_networks_are_two_answers() -> None:
    known = mesh()
    other = Workload("buyer-2", "rack", "rack/hosts.yaml", identity=BUYER, network="azure")
    known = replace(known, workloads={**known.workloads, other.id: other})
    assert len(callers(known, "buyer.shop", resolve(known))) == 2


def test_a_misspelt_caller_is_asked_about() -> None:
    known = mesh()
    with pytest.raises(Unknown, match=r"did you mean buyer-1\?"):
        callers(known, "buyr-1", resolve(known))
