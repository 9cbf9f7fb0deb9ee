"""When it is quiet, the client holds exactly its world: whatever it subscribed to, acknowledged,
rejected, overtook and kept back, and however often the stream was cut, by us or by its own end."""

from collections import deque

import pytest
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from keeping import BAD, BY_BYTES, FOREIGN, MADE, WHOLE, Model, shown

from meshfed.xds.resource import Resource, Type, World
from meshfed.xds.stream import Stream
from meshfed.xds.subscription import GATE, Memory

# A nonce, the words of a rejection, and what these certainly reject.
Answer = tuple[str, str, dict[tuple[Type, str], str]]

kinds = st.sampled_from(list(Type))
names = st.frozensets(st.sampled_from("abc"), min_size=1)
contents = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["one", "one", "two", "bad"]))


class Conversations(RuleBasedStateMachine):
    """Requests and responses travel one by one, and each may be overtaken by the other side's."""

    delta: bool

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.world = World(0, {})
        self.models = {kind: Model(kind) for kind in Type}
        self.memory: Memory = {}
        # Of these it is not known to this replica what the client has, or what it rejected.
        self.lost: set[Type] = set()
        # What was rejected, by name.
        self.refused: dict[tuple[Type, str], str] = {}
        self.connect()

    def connect(self) -> None:
        self.stream = Stream(self.delta, memory=self.memory)
        self.stream.offer(self.world)
        self.up: deque[DeltaDiscoveryRequest | DiscoveryRequest] = deque()
        self.down: deque[bytes] = deque()
        self.nonces: dict[Type, str] = {}
        self.kept: dict[Type, list[Answer]] = {kind: [] for kind in Type}
        # What is rejected, by nonce, while the word is on its way.
        self.rejections: dict[str, dict[tuple[Type, str], str]] = {}
        self.awaited: dict[str, dict[int, float]] = {}  # number and time of what was sent, by type

    @initialize(contents=st.fixed_dictionaries(dict.fromkeys(Type, contents)))
    def begin(self, contents: dict[Type, dict[str, str]]) -> None:
        self.world = shown(1, contents)
        self.stream.offer(self.world)
        for kind in WHOLE:
            self.models[kind].wildcard = self.models[kind].asked = True
            self.request(self.models[kind])

    @rule(kind=kinds, contents=contents)
    def publish(self, kind: Type, contents: dict[str, str]) -> None:
        resources = {name: MADE[kind, name, content] for name, content in contents.items()}
        self.world = World(self.world.revision + 1, {**self.world.resources, kind: resources})
        for (of, name), version in list(self.refused.items()):
            if of is kind and (name not in resources or resources[name].version != version):
                del self.refused[of, name]
        self.stream.offer(self.world)
        self.write()

    @rule(kind=kinds, names=names)
    def subscribe(self, kind: Type, names: frozenset[str]) -> None:
        model = self.models[kind]
        model.names |= names
        if not model.asked and not self.delta:
            model.wildcard = False
        model.named = model.asked = True
        self.request(model, names)

    @rule(kind=kinds, names=names)
    def unsubscribe(self, kind: Type, names: frozenset[str]) -> None:
        model = self.models[kind]
        if not self.delta and model.wildcard and not model.named:
            return  # without names it means everything, and there is nothing to take away
        names &= model.names
        model.names -= names
        if names:
            model.forget()
            self.request(model, drops=names)

    @rule(kind=kinds)
    def widen(self, kind: Type) -> None:
        model = self.models[kind]
        model.wildcard = model.named = model.asked = True
        self.request(model, {"*"})

    @rule(kind=kinds)
    def narrow(self, kind: Type) -> None:
        model = self.models[kind]
        if model.wildcard and (self.delta or model.named):
            model.wildcard = False
            model.forget()
            self.request(model, drops={"*"})

    @rule()
    def cut(self) -> None:
        """What the client has taken, and had not said yet, is not known afterwards."""
        self.lost |= {Type(answer.type_url) for answer in self.up if answer.response_nonce}
        self.lost |= {kind for kind, kept in self.kept.items() if kept}
        self.come_back()

    @rule()
    def come_to_another_replica(self) -> None:
        self.memory, self.refused, self.lost = {}, {}, set(Type)
        self.come_back()

    @rule()
    def start_anew(self) -> None:
        for model in self.models.values():
            model.held.clear()
        self.refused.clear()
        self.come_back()

    def come_back(self) -> None:
        self.connect()
        for of, name in list(self.refused):
            if not self.models[of].held:  # without a version it is taken for another client
                del self.refused[of, name]
        for model in self.models.values():
            model.asked = model.wildcard or bool(model.names)
            model.named &= model.asked
            if model.asked:
                self.introduce(model)

    @precondition(lambda self: self.up)
    @rule()
    def arrive(self) -> None:
        request = self.up.popleft()
        self.stream.receive(request, self.now)
        if request.HasField("error_detail"):
            self.refused |= self.rejections.pop(request.response_nonce)
        awaited = self.awaited.get(request.type_url, {})
        if request.response_nonce and int(request.response_nonce) in awaited:
            for number in [n for n in awaited if n <= int(request.response_nonce)]:
                del awaited[number]
        self.write()

    @rule(kind=kinds)
    def ask_again(self, kind: Type) -> None:
        """What a SotW client does for clusters that it warms; in delta, an old nonce."""
        if self.nonces.get(kind):
            old = DeltaDiscoveryRequest(type_url=kind, response_nonce=self.nonces[kind])
            self.up.append(old if self.delta else self.sotw(self.models[kind]))

    @rule(kind=kinds, names=names)
    def subscribe_with_the_next_answer(self, kind: Type, names: frozenset[str]) -> None:
        if self.delta:
            self.models[kind].next |= names

    @rule()
    def ask_for_an_unknown_type(self) -> None:
        request = DeltaDiscoveryRequest if self.delta else DiscoveryRequest
        self.up.append(request(type_url=FOREIGN))

    @precondition(lambda self: self.down)
    @rule()
    def answer(self) -> None:
        body = self.down.popleft()
        kind, resources, removed, nonce = self.read(body)
        model = self.models[kind]
        words = model.keep([r for r in resources if model.wants(r.name)])
        if kind in WHOLE and not self.delta:
            removed = list(model.held.keys() - {r.name for r in resources})
        for name in removed:
            model.held.pop(name, None)
        certain = kind in WHOLE or len(resources) == 1  # else the server may ask which it was
        bad = {(kind, r.name): r.version for r in resources if (kind, r.version) in BAD}
        self.kept[kind].append((nonce, words, bad if certain else {}))
        if not model.silent:
            self.speak(kind)

    def speak(self, kind: Type) -> None:
        """In SotW several answers that were kept back become the last, with the first words."""
        kept, self.kept[kind] = self.kept[kind], []
        if not self.delta and len(kept) > 1:
            words = next((words for _, words, _ in kept if words), "")
            kept = [(kept[-1][0], words, {})]
        for nonce, words, bad in kept:
            self.nonces[kind] = nonce
            request = (
                DeltaDiscoveryRequest(type_url=kind, response_nonce=nonce)
                if self.delta
                else self.sotw(self.models[kind])
            )
            if words:
                request.error_detail.message = words
                self.rejections[nonce] = bad
            model = self.models[kind]
            if model.next:
                request.resource_names_subscribe.extend(model.next)
                model.names |= model.next
                model.asked = model.named = True
                model.next = set()
            self.up.append(request)

    @rule(kind=kinds)
    def fall_silent(self, kind: Type) -> None:
        self.models[kind].silent = True

    @rule(kind=kinds)
    def speak_again(self, kind: Type) -> None:
        self.models[kind].silent = False
        self.speak(kind)

    @rule(seconds=st.sampled_from([1.0, GATE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.write()

    def write(self) -> None:
        closed = {
            kind
            for kind, sent in self.awaited.items()
            if any(self.now < at + GATE for at in sent.values())
        }
        for response in self.stream.outgoing(self.now):
            kind, resources, _, nonce = self.read(response.body)
            assert kind not in closed, "F1: one response of a type at a time"
            self.awaited.setdefault(kind, {})[int(nonce)] = self.now
            for r in resources:
                again = self.refused.get((kind, r.name)) == r.version
                assert not again or self.repeats(kind), "N2: sent again after rejection"
            self.down.append(response.body)

    def repeats(self, kind: Type) -> bool:
        """In SotW an absence would remove what the client has, and nobody here knows (N4)."""
        return kind in self.lost and not self.delta and kind in WHOLE

    def read(self, body: bytes) -> tuple[Type, list[Resource], list[str], str]:
        if self.delta:
            response = DeltaDiscoveryResponse.FromString(body)
            packed = [r.resource for r in response.resources]
            removed = list(response.removed_resources)
        else:
            response = DiscoveryResponse.FromString(body)
            packed, removed = list(response.resources), []
        resources = [BY_BYTES[one.SerializeToString()] for one in packed]
        said = [r.name for r in resources] + removed
        assert len(said) == len({*said}), "a name twice in one response"
        return Type(response.type_url), resources, removed, response.nonce

    def request(self, model: Model, names: set[str] | frozenset[str] = frozenset(), drops=()):
        if not self.delta:
            self.up.append(self.sotw(model))
            return
        request = DeltaDiscoveryRequest(
            type_url=model.kind,
            resource_names_subscribe=names,
            resource_names_unsubscribe=drops,
        )
        self.up.append(request)

    def introduce(self, model: Model) -> None:
        if not self.delta:
            self.up.append(self.sotw(model))
            return
        request = DeltaDiscoveryRequest(
            type_url=model.kind,
            resource_names_subscribe=model.names | ({"*"} if model.wildcard else set()),
            initial_resource_versions=model.held,
        )
        self.up.append(request)

    def sotw(self, model: Model) -> DiscoveryRequest:
        star = {"*"} if model.wildcard and model.named else set()
        return DiscoveryRequest(
            type_url=model.kind,
            version_info="some" if model.held else "",
            resource_names=model.names | star,
            response_nonce=self.nonces.get(model.kind, ""),
        )

    def settle(self) -> None:
        for _ in range(1000):
            if self.up:
                self.arrive()
            elif self.down:
                self.answer()
            else:
                return
        raise AssertionError("it never becomes quiet")

    def teardown(self) -> None:
        for kind in Type:
            self.speak_again(kind)
        self.settle()
        for _ in range(2):
            self.wait(GATE)
            self.settle()
        refused = False
        for model in self.models.values():
            wanted = {n: r for n, r in self.world.of(model.kind).items() if model.wants(n)}
            bad = {n for n, r in wanted.items() if (model.kind, r.version) in BAD}
            refused |= bool(bad)
            good = {n: r.version for n, r in wanted.items() if n not in bad}
            held = {n: v for n, v in model.held.items() if n not in bad and model.wants(n)}
            if self.keeps(model.kind):
                held = {n: v for n, v in held.items() if n in good}
            assert held == good, model.kind
            assert all((model.kind, version) not in BAD for version in model.held.values())
        if not refused and any(model.asked for model in self.models.values()):
            assert self.stream.settled is self.world

    def keeps(self, kind: Type) -> bool:
        """Whether what is gone may stay: SotW cannot remove; and a client whose listeners or
        routes are not those it should have may need what they name."""
        if not self.delta and kind not in WHOLE:
            return True
        return kind is not Type.LISTENER and any(
            (of, r.version) in BAD and self.models[of].wants(r.name)
            for of in (Type.LISTENER, Type.ROUTES)
            for r in self.world.of(of).values()
        )


class DeltaConversations(Conversations):
    delta = True


class SotwConversations(Conversations):
    delta = False


FEW = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestDelta = DeltaConversations.TestCase
TestDelta.settings = FEW
TestSotw = SotwConversations.TestCase
TestSotw.settings = FEW


@pytest.mark.soak
@pytest.mark.parametrize("conversations", [DeltaConversations, SotwConversations])
def test_whatever_happens_two_thousand_times(conversations: type[Conversations]) -> None:
    many = settings(FEW, derandomize=False, max_examples=2000)
    run_state_machine_as_test(conversations, settings=many)
