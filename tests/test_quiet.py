"""Who asks a stream for what is due only when it is not quiet, or at its deadline, misses nothing:
that is what a conversation does, of a thousand streams."""

from math import inf
from unittest.mock import patch

from hypothesis.stateful import rule
from test_stream_properties import FEW, DeltaConversations, SotwConversations, contents

from meshfed.xds.resource import Type, World
from meshfed.xds.stream import Request, Response, Stream
from meshfed.xds.subscription import Memory, Past, Subscription, fold


class Both:
    """Two streams to which the same happens: one is asked all the time, and knows no short way."""

    def __init__(self, delta: bool, memory: Memory) -> None:
        copied = {
            kind: Past(dict(past.good), dict(past.rejected), past.words)
            for kind, past in memory.items()
        }
        self.always, self.mostly = Stream(delta, memory=copied), Stream(delta, memory=memory)
        self.again = inf
        self.due = False

    @property
    def settled(self) -> World | None:
        return self.mostly.settled

    def offer(self, world: World) -> None:
        for stream in (self.always, self.mostly):
            stream.offer(world)
        if self.mostly.quiet:
            self.heed()
        else:
            self.due = True

    def receive(self, request: Request, now: float) -> None:
        for stream in (self.always, self.mostly):
            stream.receive(request, now)
        assert self.mostly.receipts == self.always.receipts
        self.due = self.due or not self.mostly.quiet

    def heed(self) -> None:
        self.again = min(self.again, self.mostly.deadline() or inf)

    def outgoing(self, now: float) -> list[Response]:
        with patch.object(Subscription, "step", lambda *_: None):
            everything = self.always.outgoing(now)
        if now >= self.again:
            self.again = self.mostly.deadline() or inf
            self.due = self.due or now >= self.again
        said: list[Response] = []
        if self.due:
            said, self.due, self.again = self.mostly.outgoing(now), False, inf
            self.heed()
        assert said == everything
        assert self.mostly.settled is self.always.settled
        for each in self.mostly._subscriptions.values():
            digest = 0
            for name, version in each.held.items():
                digest ^= fold(name, version)
            assert each.digest == digest, "what is held is not what was hashed"
        return said


class Twofold:
    def connect(self) -> None:
        super().connect()
        self.stream = Both(self.delta, self.memory)
        self.stream.offer(self.world)

    @rule(contents=contents)
    def move_endpoints(self, contents: dict[str, str]) -> None:
        self.publish(Type.ENDPOINTS, contents)

    @rule()
    def become_calm(self) -> None:
        self.settle()


class Delta(Twofold, DeltaConversations):
    pass


class Sotw(Twofold, SotwConversations):
    pass


TestDelta = Delta.TestCase
TestDelta.settings = FEW
TestSotw = Sotw.TestCase
TestSotw.settings = FEW
