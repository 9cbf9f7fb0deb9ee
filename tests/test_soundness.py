"""What Envoy would refuse is left out alone, and what leads to it lets nothing through."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as http,
)
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from google.protobuf.json_format import MessageToDict

from meshfed.xds.endpoints import address
from meshfed.xds.listeners import (
    Filter,
    FilterChain,
    FilterChainMatch,
    dialling,
    outbound_http,
    tcp_proxy,
)
from meshfed.xds.resource import packed
from meshfed.xds.secrets import ads, downstream_tls, upstream_tls
from meshfed.xds.soundness import Checked, LeftOut, checked

ENVOY = Path(sys.executable).with_name("envoy")


def cluster(name: str, *, secret: str = "", **fields: object) -> Cluster:
    made = Cluster(name=name, **fields)
    made.connect_timeout.seconds = 1
    if secret:
        made.transport_socket.CopyFrom(upstream_tls(secret, "sni", tcp=True))
    return made


def eds(name: str, service_name: str = "") -> Cluster:
    config = Cluster.EdsClusterConfig(eds_config=ads(), service_name=service_name)
    return cluster(name, type=Cluster.EDS, eds_cluster_config=config)


def routes(name: str, *hosts: VirtualHost) -> RouteConfiguration:
    return RouteConfiguration(name=name, virtual_hosts=hosts)


def host(name: str, *domains: str, to: str = "", **weights: int) -> VirtualHost:
    made = VirtualHost(name=name, domains=domains or ("*",))
    route = made.routes.add()
    route.match.prefix = "/"
    for each, weight in weights.items():
        route.route.weighted_clusters.clusters.add(name=each).weight.value = weight
    if to:
        route.route.cluster = to
    if not (to or weights):
        route.direct_response.status = 200
    return made


def chain(name: str, *hosts: str, names: tuple[str, ...] = (), ends: Filter | None = None):
    match = dialling(hosts, 80) if hosts else FilterChainMatch(server_names=names)
    ends = ends or tcp_proxy(TcpProxy(cluster="nowhere"), name)
    return FilterChain(name=name, filter_chain_match=match, filters=[ends])


def listener(name: str, *chains: FilterChain, port: int = 0) -> Listener:
    return Listener(name=name, address=address("127.0.0.1", port), filter_chains=chains)


def check(*messages: object, assignments: tuple[str, ...] = (), secrets: tuple[str, ...] = ()):
    by_kind = {
        kind: [m for m in messages if isinstance(m, kind)]
        for kind in (Cluster, Listener, RouteConfiguration)
    }
    return checked(*by_kind.values(), assignments=assignments, secrets=secrets)


def reasons(found: Checked) -> list[str]:
    return [str(each) for each in found.left_out]


def closed(chain: FilterChain) -> bool:
    proxy = TcpProxy()
    return chain.filters[0].typed_config.Unpack(proxy) and proxy.cluster == "nowhere"


# Names


def test_what_is_sound_is_untouched():
    messages = (
        cluster("a", secret="who"),
        eds("b", "hosts"),
        routes("r", host("one", "one", to="a"), host("two", "two", a=1, b=2)),
        listener(
            "l",
            chain("x", names=("x",), ends=outbound_http("l", "r")),
            chain("y", names=("y",), ends=tcp_proxy(TcpProxy(cluster="a"), "y")),
        ),
    )
    before = [m.SerializeToString(deterministic=True) for m in messages]
    found = check(*messages, assignments=("hosts",), secrets=("who", "certificate"))
    assert found.left_out == ()
    after = [*found.clusters, *found.routes, *found.listeners]
    assert [m.SerializeToString(deterministic=True) for m in after] == before


def test_a_name_that_is_there_twice_is_told_once():
    found = check(cluster("a"), cluster("a"), cluster("b"))
    assert [each.name for each in found.clusters] == ["a", "b"]
    assert found.left_out == (LeftOut("Cluster", "a", "is there twice"),)


def test_what_is_left_out_names_the_users_object():
    assert LeftOut("Cluster", "bookstore.shop|8080|ab12", "").object == "bookstore.shop"
    assert LeftOut("FilterChain", "inbound|bookstore.shop|8080", "").object == "bookstore.shop"
    assert LeftOut("Listener", "outbound", "").object == "outbound"


# References


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        pytest.param(eds("a"), "there is no load assignment a", id="its endpoints"),
        pytest.param(eds("a", "x"), "there is no load assignment x", id="under another name"),
        pytest.param(cluster("a", secret="x"), "there is no secret x", id="whom it trusts"),
    ],
)
def test_a_cluster_that_would_warm_for_ever_is_left_out_alone(bad, why):
    found = check(bad, cluster("b"), secrets=("certificate",))
    assert [each.name for each in found.clusters] == ["b"]
    assert found.left_out == (LeftOut("Cluster", "a", why),)


def test_a_secret_of_a_socket_that_some_endpoints_use_counts_too():
    bad = cluster("a")
    bad.transport_socket_matches.add(name="m").transport_socket.CopyFrom(
        upstream_tls("x", "sni", tcp=False)
    )
    assert reasons(check(bad, secrets=("certificate",))) == ["Cluster a: there is no secret x"]


def test_a_route_to_a_cluster_that_is_not_there_answers_503_and_the_others_go_on():
    found = check(cluster("a"), routes("r", host("one", "one", to="gone"), host("two", to="a")))
    assert reasons(found) == ["Route one: there is no cluster gone"]
    one, two = (each.routes[0] for each in found.routes[0].virtual_hosts)
    assert one.direct_response.status == 503
    assert "there is no cluster gone" in one.direct_response.body.inline_string
    assert one.match.prefix == "/"
    assert two.route.cluster == "a"


def test_a_split_goes_on_without_the_cluster_that_is_not_there():
    found = check(cluster("a"), routes("r", host("one", a=1, gone=9)))
    (share,) = found.routes[0].virtual_hosts[0].routes[0].route.weighted_clusters.clusters
    assert share.name == "a"
    assert reasons(found) == ["Route one: there is no cluster gone"]


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        pytest.param({"a": 0, "gone": 9}, "there is no cluster gone", id="the rest weighs nothing"),
        pytest.param({"a": 0}, "its weights are all 0", id="nothing weighs"),
    ],
)
def test_a_split_of_nothing_answers_503(weights, why):
    found = check(cluster("a"), routes("r", host("one", **weights)))
    assert found.routes[0].virtual_hosts[0].routes[0].direct_response.status == 503
    assert reasons(found) == [f"Route one: {why}"]


TRUSTING = chain("x", names=("x",))
TRUSTING.transport_socket.CopyFrom(downstream_tls("who"))
SPLIT = TcpProxy.WeightedCluster(
    clusters=[
        TcpProxy.WeightedCluster.ClusterWeight(name="a", weight=1),
        TcpProxy.WeightedCluster.ClusterWeight(name="gone", weight=1),
    ]
)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        pytest.param(
            chain("x", names=("x",), ends=outbound_http("l", "r")),
            "there is no route configuration r",
            id="routes",
        ),
        pytest.param(
            chain("x", names=("x",), ends=tcp_proxy(TcpProxy(cluster="gone"), "x")),
            "there is no cluster gone",
            id="a cluster",
        ),
        pytest.param(
            chain("x", names=("x",), ends=tcp_proxy(TcpProxy(weighted_clusters=SPLIT), "x")),
            "there is no cluster gone",
            id="one of several clusters",
        ),
        pytest.param(TRUSTING, "there is no secret who", id="whom it trusts"),
    ],
)
def test_a_chain_that_leads_nowhere_closes_what_it_matches(bad, why):
    ends = tcp_proxy(TcpProxy(cluster="a"), "y")
    good = chain("y", names=("y",), ends=ends)
    found = check(cluster("a"), listener("l", bad, good), secrets=("certificate",))
    assert found.left_out == (LeftOut("FilterChain", "x", why),)
    one, two = found.listeners[0].filter_chains
    assert closed(one)
    assert one.filter_chain_match == bad.filter_chain_match
    assert not one.HasField("transport_socket")
    assert two == good


def test_the_default_chain_is_looked_at_too():
    made = listener("l")
    made.default_filter_chain.CopyFrom(
        chain("rest", ends=tcp_proxy(TcpProxy(cluster="gone"), "rest"))
    )
    found = check(made)
    assert reasons(found) == ["FilterChain rest: there is no cluster gone"]
    assert closed(found.listeners[0].default_filter_chain)


# Collisions


def test_two_listeners_on_one_address_are_the_first():
    ports = (("a", 1), ("b", 1), ("c", 2))
    found = check(*(listener(name, chain("x"), port=port) for name, port in ports))
    assert [each.name for each in found.listeners] == ["a", "c"]
    assert reasons(found) == ["Listener b: a has its address"]


def test_a_listener_without_chains_is_left_out():
    found = check(listener("a"), listener("b", chain("x"), port=1))
    assert [each.name for each in found.listeners] == ["b"]
    assert reasons(found) == ["Listener a: it has no filter chain"]


def test_what_a_grpc_client_dials_needs_none():
    found = check(
        Listener(name="store.shop", api_listener={}), Listener(name="a.b", api_listener={})
    )
    assert [each.name for each in found.listeners] == ["store.shop", "a.b"]


def matched(found: Checked) -> dict[str, list[str]]:
    return {
        each.name: [
            *(r.address_prefix for r in each.filter_chain_match.prefix_ranges),
            *each.filter_chain_match.server_names,
        ]
        for each in found.listeners[0].filter_chains
    }


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        pytest.param(chain("b", "10.0.0.1"), None, id="all of it"),
        pytest.param(chain("b", "10.0.0.3", "10.0.0.1"), ["10.0.0.3"], id="some of it"),
        pytest.param(chain("b", "10.0.0.3", "10.0.0.3"), ["10.0.0.3"], id="itself twice"),
        pytest.param(chain("b", "0:0::1"), None, id="another spelling of an IPv6 address"),
        pytest.param(chain("b", "10.0.0.9"), ["10.0.0.9"], id="nothing of it"),
    ],
)
def test_of_two_chains_that_match_one_address_the_second_keeps_the_rest(second, kept):
    found = check(listener("l", chain("a", "10.0.0.1", "10.0.0.2", "::1"), second))
    first = {"a": ["10.0.0.1", "10.0.0.2", "::1"]}
    assert matched(found) == first | ({"b": kept} if kept else {})


def test_of_two_chains_that_match_one_server_name_the_second_keeps_the_rest():
    found = check(listener("l", chain("a", names=("x", "y")), chain("b", names=("Y", "z"))))
    assert matched(found) == {"a": ["x", "y"], "b": ["z"]}
    assert reasons(found) == ["FilterChain b: a matches some or all of what it does"]


def test_an_address_at_another_port_is_another():
    other = chain("b", "10.0.0.1")
    other.filter_chain_match.destination_port.value = 81
    found = check(listener("l", chain("a", "10.0.0.1"), other))
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        pytest.param(host("b", "x"), None, id="all of it"),
        pytest.param(host("b", "X", "y"), ["y"], id="some of it, in another case"),
        pytest.param(host("b", "y", "y"), ["y"], id="itself twice"),
    ],
)
def test_of_two_hosts_with_one_domain_the_second_keeps_the_rest(second, kept):
    found = check(routes("r", host("a", "x"), second))
    told = {each.name: list(each.domains) for each in found.routes[0].virtual_hosts}
    assert told == {"a": ["x"]} | ({"b": kept} if kept else {})
    assert [each.name for each in found.left_out] == ["b"]


# Envoy's own word


def serving(name: str) -> Listener:
    return listener("l", chain("x", names=("x",), ends=outbound_http("l", name)))


REFUSED = {
    "a name twice": (cluster("a"), cluster("a")),
    "an address twice": tuple(listener(name, chain("x"), port=9) for name in "ab"),
    "no chain": (listener("a"), listener("b", chain("x"), port=9)),
    "a match twice": (listener("l", chain("a", "10.0.0.1"), chain("b", "10.0.0.1")),),
    "a match in part": (listener("l", chain("a", "::1"), chain("b", "::2", "0::1")),),
    "a match in itself": (listener("l", chain("a", "10.0.0.1", "10.0.0.1")),),
    "a name of a server twice": (
        listener("l", chain("a", names=("x",)), chain("b", names=("X",))),
    ),
    "a domain twice": (routes("r", host("a", "x"), host("b", "X")), serving("r")),
    "weights of nothing": (cluster("a"), routes("r", host("a", a=0)), serving("r")),
}


async def test_envoy_refuses_what_is_left_out_and_takes_what_is_left(tmp_path):
    turn = asyncio.Semaphore(2)

    async def verdict(name: str, *messages: object) -> bool:
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(static(*messages)))
        async with turn:
            envoy = await asyncio.create_subprocess_exec(
                *(ENVOY, "--mode", "validate", "--config-path", file, "--use-dynamic-base-id"),
                *("--concurrency", "1", "--log-level", "error"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            return await envoy.wait() == 0

    async def verdicts(name: str, messages: tuple[object, ...]) -> tuple[str, bool, bool]:
        before = await verdict(f"{name} before", *messages)
        found = check(*messages)
        assert found.left_out
        told = (*found.clusters, *found.routes, *found.listeners)
        return name, before, await verdict(f"{name} after", *told)

    found = await asyncio.gather(*(verdicts(*case) for case in REFUSED.items()))
    assert found == [(name, False, True) for name in REFUSED]


def static(*messages: object) -> dict[str, object]:
    """As a static configuration, with the routes in the listeners that name them."""
    by_name = {m.name: m for m in messages if isinstance(m, RouteConfiguration)}
    listeners = [inlined(m, by_name) for m in messages if isinstance(m, Listener)]
    clusters = [MessageToDict(m) for m in messages if isinstance(m, Cluster)]
    return {"static_resources": {"clusters": clusters, "listeners": listeners}}


def inlined(made: Listener, by_name: dict[str, RouteConfiguration]) -> dict[str, object]:
    answer = Listener()
    answer.CopyFrom(made)
    for each in answer.filter_chains:
        manager = http.HttpConnectionManager()
        if each.filters[0].typed_config.Unpack(manager):
            manager.route_config.CopyFrom(by_name[manager.rds.route_config_name])
            each.filters[0].typed_config.CopyFrom(packed(manager))
    return MessageToDict(answer)
