"""At no moment does a proxy have a route to a cluster that it has not, or that is not warm yet,
whatever overtakes what, and whenever the stream is cut (O1, O2, O3)."""

from collections import deque
from collections.abc import Iterable

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from meshfed.xds.resource import Resource, Type, World, resource
from meshfed.xds.stream import Stream
from meshfed.xds.subscription import GATE, Memory

NAMES = "xyz"
CLUSTERS = {
    (name, content): resource(name, Cluster(name=name, type="EDS", alt_stat_name=content))
    for name in NAMES
    for content in "12"
}
ENDPOINTS = {name: resource(name, ClusterLoadAssignment(cluster_name=name)) for name in NAMES}
LISTENER = resource("l", Listener(name="l"))


def leading(to: str) -> Resource:
    made = RouteConfiguration(name="r")
    made.virtual_hosts.add(name="all", domains=["*"]).routes.add().route.cluster = to
    return resource("r", made)


ROUTES = {name: leading(name) for name in NAMES}
BY_BYTES = {r.any: r for r in (*CLUSTERS.values(), *ENDPOINTS.values(), LISTENER, *ROUTES.values())}


def coherent(revision: int, to: str, others: frozenset[str], content: str) -> World:
    """Its route leads to a cluster that is there, and each cluster has its endpoints."""
    names = sorted({to} | others)
    return World(
        revision,
        {
            Type.CLUSTER: {name: CLUSTERS[name, content] for name in names},
            Type.ENDPOINTS: {name: ENDPOINTS[name] for name in names},
            Type.LISTENER: {"l": LISTENER},
            Type.ROUTES: {"r": ROUTES[to]},
        },
    )


class Proxy:
    """As Envoy: it keeps back the word on clusters until they are warm, and asks by name for
    endpoints and routes."""

    def __init__(self, *, delta: bool) -> None:
        self.delta = delta
        self.memory: Memory = {}
        self.held: dict[Type, dict[str, Resource]] = {kind: {} for kind in Type}
        self.cold: set[str] = set()  # clusters that changed, and had no endpoints since
        self.active: set[str] = set()  # clusters that were warm once
        self.world = World(0, {})
        self.now = 0.0
        self.connect()

    def connect(self) -> None:
        self.stream = Stream(self.delta, memory=self.memory)
        self.stream.offer(self.world)
        self.up: deque[DeltaDiscoveryRequest | DiscoveryRequest] = deque()
        self.down: deque[bytes] = deque()
        self.nonces: dict[Type, str] = {}
        self.kept: list[str] = []
        self.asked: dict[Type, set[str]] = {}
        self.ask(Type.CLUSTER, set())
        self.ask(Type.LISTENER, set())
        if self.held[Type.CLUSTER]:
            self.wants()

    def wants(self) -> None:
        clusters = set(self.held[Type.CLUSTER])
        if clusters != self.asked.get(Type.ENDPOINTS, set()):
            self.ask(Type.ENDPOINTS, clusters)
        if self.held[Type.LISTENER] and Type.ROUTES not in self.asked:
            self.ask(Type.ROUTES, {"r"})

    def ask(self, kind: Type, names: set[str]) -> None:
        before, self.asked[kind] = self.asked.get(kind), names
        if not self.delta:
            self.up.append(self.sotw(kind))
            return
        request = DeltaDiscoveryRequest(
            type_url=kind,
            resource_names_subscribe=names - (before or set()),
            resource_names_unsubscribe=(before or set()) - names,
        )
        if before is None:
            has = {name: r.version for name, r in self.held[kind].items()}
            request.initial_resource_versions.update(has)
        self.up.append(request)

    def sotw(self, kind: Type) -> DiscoveryRequest:
        return DiscoveryRequest(
            type_url=kind,
            resource_names=self.asked[kind],
            version_info="some" if self.held[kind] else "",
            response_nonce=self.nonces.get(kind, ""),
        )

    def accept(self, kind: Type, nonce: str) -> None:
        self.nonces[kind] = nonce
        request = DeltaDiscoveryRequest(type_url=kind, response_nonce=nonce)
        self.up.append(request if self.delta else self.sotw(kind))

    def take(self, body: bytes) -> None:
        message = DeltaDiscoveryResponse if self.delta else DiscoveryResponse
        response = message.FromString(body)
        kind = Type(response.type_url)
        told = [each.resource if self.delta else each for each in response.resources]
        new = {r.name: r for r in (BY_BYTES[each.SerializeToString()] for each in told)}
        held = self.held[kind]
        if kind is Type.CLUSTER:
            self.cold |= {name for name, r in new.items() if held.get(name) is not r}
        if kind is Type.ENDPOINTS:
            self.warm(new.keys() & self.held[Type.CLUSTER].keys())
        gone = list(response.removed_resources) if self.delta else []
        if kind is Type.ENDPOINTS:  # a name that does not exist ends its cluster's warming (D4)
            self.warm(self.cold & {*gone})
        if not self.delta and kind in (Type.CLUSTER, Type.LISTENER):
            gone = list(held.keys() - new.keys())
        for name in gone:
            held.pop(name, None)
            if kind is Type.CLUSTER:
                self.cold.discard(name)
                self.active.discard(name)
        held |= new
        self.answer(kind, response.nonce)
        self.wants()

    def warm(self, clusters: Iterable[str]) -> None:
        self.cold -= {*clusters}
        self.active |= {*clusters}

    def answer(self, kind: Type, nonce: str) -> None:
        if kind is Type.CLUSTER:
            self.kept.append(nonce)
        else:
            self.accept(kind, nonce)
        self.speak()

    def speak(self) -> None:
        if not self.cold:
            kept, self.kept = self.kept, []
            for each in kept if self.delta else kept[-1:]:
                self.accept(Type.CLUSTER, each)

    def check(self) -> None:
        for routes in self.held[Type.ROUTES].values():
            to = next(name for name, led in ROUTES.items() if led is routes)
            assert to in self.held[Type.CLUSTER], f"the route leads to {to}, which is not there"
            assert to in self.active, f"the route leads to {to}, which is not warm"

    def write(self) -> None:
        self.down.extend(response.body for response in self.stream.outgoing(self.now))

    def hear(self) -> None:
        self.stream.receive(self.up.popleft(), self.now)
        self.write()

    def settle(self) -> None:
        while self.up or self.down:
            if self.up:
                self.hear()
            else:
                self.take(self.down.popleft())
                self.check()

    def wait(self) -> None:
        """Envoy gives up on endpoints that do not come, a little before we do on Envoy."""
        self.now += GATE
        self.warm(self.cold)
        self.speak()
        self.write()


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(NAMES), st.frozensets(st.sampled_from(NAMES)), st.sampled_from("12")
        ),
        st.sampled_from(["up", "up", "down", "down", "settle", "cut"]),
    ),
    min_size=10,
    max_size=40,
)


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
@given(events=EVENTS)
@settings(max_examples=50, deadline=None)
def test_o3_a_route_never_leads_to_what_is_not_there(delta: bool, events: list[object]) -> None:
    proxy = Proxy(delta=delta)
    for revision, event in enumerate(events, start=1):
        match event:
            case "up":
                if proxy.up:
                    proxy.hear()
            case "down":
                if proxy.down:
                    proxy.take(proxy.down.popleft())
            case "settle":
                proxy.settle()
            case "cut":
                proxy.connect()
            case (str(to), others, str(content)):
                proxy.world = coherent(revision, to, others, content)
                proxy.stream.offer(proxy.world)
                proxy.write()
        proxy.check()
    proxy.settle()
    for _ in range(0 if delta else 3):
        # A cluster that was gone before its endpoints came: nothing tells it so (S12).
        proxy.wait()
        proxy.settle()
    wanted = {name: dict(proxy.world.of(name)) for name in (Type.CLUSTER, Type.ROUTES)}
    assert {kind: proxy.held[kind] for kind in wanted} == wanted
