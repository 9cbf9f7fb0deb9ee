"""The short way to what an endpoint's change makes due is the long way, only shorter."""

from unittest.mock import patch

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from keeping import MADE

from meshfed.xds.resource import Type, World
from meshfed.xds.stream import Response, Stream
from meshfed.xds.subscription import GATE, Subscription

NAMES = "abc"
contents = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["one", "two", "bad"]))
some = st.frozensets(st.sampled_from([*NAMES, "*"]))
happening = st.one_of(
    st.tuples(st.just("world"), st.sampled_from([Type.ENDPOINTS] * 4 + [Type.CLUSTER]), contents),
    st.tuples(st.just("ask"), some, some),
    st.tuples(st.just("answer"), st.sampled_from(["", "", "", "a", "no"])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, GATE])),
)


class Both:
    """Two streams to which the same happens; one of them knows no short way."""

    def __init__(self, delta: bool) -> None:
        self.delta, self.now = delta, 0.0
        self.short, self.long = Stream(delta), Stream(delta)
        self.names: frozenset[str] = frozenset()
        self.resources = {
            kind: {"a": MADE[kind, "a", "one"]} for kind in (Type.CLUSTER, Type.ENDPOINTS)
        }
        self.world(Type.ENDPOINTS, dict.fromkeys(NAMES, "one"))

    def world(self, kind: Type, contents: dict[str, str]) -> None:
        shown = {name: MADE[kind, name, content] for name, content in contents.items()}
        self.resources = {**self.resources, kind: shown}
        newest = World(1, self.resources)
        for stream in (self.short, self.long):
            stream.offer(newest)

    def ask(self, names: frozenset[str], drops: frozenset[str]) -> None:
        before, self.names = self.names, (self.names | names) - drops
        if self.delta:
            fields = {
                "resource_names_subscribe": names,
                "resource_names_unsubscribe": drops & before,
            }
            self.receive(DeltaDiscoveryRequest(type_url=Type.ENDPOINTS, **fields))
        else:
            self.receive(DiscoveryRequest(type_url=Type.ENDPOINTS, resource_names=self.names))

    def answer(self, words: str) -> None:
        """To the last of each type."""
        for kind, subscription in self.short._subscriptions.items():
            for nonce in list(subscription.unanswered)[-1:]:
                fields = {"type_url": kind, "response_nonce": nonce}
                request = (
                    DeltaDiscoveryRequest(**fields)
                    if self.delta
                    else DiscoveryRequest(**fields, resource_names=self.names)
                )
                if words:
                    request.error_detail.message = words
                self.receive(request)

    def receive(self, request: DeltaDiscoveryRequest | DiscoveryRequest) -> None:
        for stream in (self.short, self.long):
            stream.receive(request, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def compare(self) -> None:
        short: list[Response] = self.short.outgoing(self.now)
        with patch.object(Subscription, "step", lambda *_: None):
            long = self.long.outgoing(self.now)
        assert short == long
        assert self.short.settled is self.long.settled
        assert self.short.quiet == self.long.quiet


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "state of the world"])
@settings(max_examples=300, deadline=None)
@given(first=some, happened=st.lists(happening, max_size=30), clusters=st.booleans())
def test_the_short_way_is_the_long_one(delta, first, happened, clusters) -> None:
    both = Both(delta)
    kind = DeltaDiscoveryRequest if delta else DiscoveryRequest
    if clusters:
        both.receive(kind(type_url=Type.CLUSTER))
    both.ask(first | {"a"}, frozenset())
    both.compare()
    both.answer("")
    for what, *how in happened:
        getattr(both, what)(*how)
        both.compare()
