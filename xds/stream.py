"""One Envoy's ADS conversation as a state machine, without a socket in sight."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from msgspec import Struct

from meshfed.xds import delta, sotw
from meshfed.xds.resource import (
    NOTHING,
    SHORT,
    Resource,
    Resources,
    Type,
    World,
    differences,
    once,
)
from meshfed.xds.subscription import GATE, PARTLY, Answer, Memory, Past, Push, Subscription

Request = discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest

KINDS: dict[str, str] = {str(kind): kind for kind in Type}  # one object for all streams


class Malformed(Exception):
    """A request that no client of this protocol sends; the message says what is missing."""


class Response(Struct, frozen=True):
    """What to write, and what it is, for those who count."""

    type: str  # CDS, EDS, SDS, LDS, RDS, or a type URL that is not served
    resources: int
    removed: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Holding:
    """What the client was sent of one type and still has, after something of it moved."""

    type: str  # CDS, EDS, SDS, LDS, RDS
    revision: int  # of the world it was sent from
    versions: Mapping[str, str]  # by name; empty where it rejected the last one


class Mark(Struct, frozen=True):
    """All of this world was sent once the response of this number was."""

    world: World
    number: int


@once
def assignment(cluster: Resource) -> str:
    """The EDS name that a cluster takes its endpoints from; parsed once for all streams."""
    packed = Any.FromString(cluster.any)
    message = cluster_pb2.Cluster.FromString(packed.value)
    if message.type != cluster_pb2.Cluster.EDS:
        return ""
    return message.eds_cluster_config.service_name or message.name


class Stream:
    """Feed it requests and worlds; after each, send what `outgoing` says.

    One push per type is under way at a time, and what is pushed next is the difference to the
    newest world: the latest wins. `now` is any clock that does not jump. `memory` is the client's,
    of its streams before this one.
    """

    def __init__(
        self, delta: bool, *, recording: bool = False, memory: Memory | None = None
    ) -> None:
        self.delta = delta
        self.holdings: list[Holding] = []  # when recording; whoever reads them empties the list
        self.overdue: list[str] = []  # CDS, …, once for each answer that is; emptied likewise
        self._recording = recording
        self._memory: Memory = {} if memory is None else memory
        self.settled: World | None = None  # the last of which the client acknowledged everything
        self.receipts: list[Answer] = []  # whoever reads them empties the list
        self._world: World | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._waiting: dict[str, Subscription] = {}  # those with a response that has no answer
        self._number = 0
        self._marks: list[Mark] = []
        self._marked: World | None = None  # the last that has one
        self._deadline: float | None = None
        self._resumed: float | None = None  # when a client came back with clusters of an old stream

    def offer(self, world: World) -> None:
        self._world = world

    @property
    def quiet(self) -> bool:
        """Whether `outgoing` has nothing to say: all that the client asked for was sent, or what
        moved since waits for the answer to what was sent of it before."""
        if self._marked is None or self._world is None or self._marked is self._world:
            return self.told
        moved = self._touched(self._world)
        for each in moved:
            if not each.unanswered:
                return False
        return bool(moved)

    @property
    def told(self) -> bool:
        """Whether the client was sent all of some world: what is due is what moved since."""
        return self._marked is not None

    def deadline(self) -> float | None:
        """When to ask for `outgoing` again, if nothing else happens before."""
        if self._marked is self._world:
            return self._deadline
        gates = (each.gate for each in self._waiting.values())
        return min((gate for gate in (*gates, self._deadline) if gate is not None), default=None)

    def receive(self, request: Request, now: float) -> None:
        """Raises Malformed."""
        kind = KINDS.get(request.type_url) or request.type_url
        if not kind:
            raise Malformed("type_url is empty: an aggregated stream needs it in each request")
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            named = self._world is not None and self._world.by_name
            self._subscriptions[kind] = subscription = Subscription(kind, named=named)
        first, held = not subscription.introduced, len(subscription.held)
        self._read(subscription, request, now)
        if first or len(subscription.held) != held:  # what it brought along, or let go of
            self._hold(subscription)
        if subscription.current is None:
            # All that was sent is not all that is asked for any more.
            self._marks, self._marked = [], None
        rejected = request.error_detail.message if request.HasField("error_detail") else None
        answer = subscription.answer(request.response_nonce, rejected, now)
        if not subscription.unanswered:
            self._waiting.pop(kind, None)
        if answer is None:
            return
        if answer.rejected:
            self._marks = [mark for mark in self._marks if mark.number < answer.oldest]
            self._marked = None
        if kind in SHORT:
            self.receipts.append(answer)
        self._settle()

    def _read(self, subscription: Subscription, request: Request, now: float) -> None:
        first = not subscription.introduced
        if first and subscription.kind in SHORT:
            subscription.past = self._past(request)
        if isinstance(request, discovery_pb2.DiscoveryRequest):
            sotw.read(subscription, request)
        else:
            delta.read(subscription, request, self._resources(subscription.kind))
        if first and subscription.kind == Type.CLUSTER and subscription.held:
            self._resumed = now

    def _past(self, request: Request) -> Past:
        """A client without any version is another one, and has everything before it."""
        if isinstance(request, discovery_pb2.DiscoveryRequest):
            again = bool(request.version_info)
        else:
            again = bool(request.initial_resource_versions)
        if not again:
            self._memory.pop(request.type_url, None)
        return self._memory.setdefault(request.type_url, Past())

    def _resources(self, kind: str) -> Resources:
        return self._world.resources.get(kind, NOTHING) if self._world else NOTHING

    def outgoing(self, now: float) -> list[Response]:
        """Make before break: what is new from the bottom up, then what is gone."""
        self._deadline = None
        if self._world is None:
            return []  # an empty answer would delete everything (T16)
        if self._waiting:
            late = [kind for kind, each in self._waiting.items() if each.late(now)]
            self.overdue += [SHORT[kind] for kind in late if kind in SHORT]
        responses: list[Response] = []
        moved = self._touched(self._world)
        if len(moved) == 1 and moved[0].kind is Type.ENDPOINTS:
            responses = self._step(moved[0], now)  # mostly: no question of order, then
        due = self._due(moved)
        if due:
            responses += self._make(now)
            moved = list(self._subscriptions.values())
            due = self._due(moved)
        if not due:
            self._mark(self._world, moved)
        return responses

    def _touched(self, world: World) -> list[Subscription]:
        """Those of which something may be due: of a stream that has all of a world, what moved
        since. Of a thousand streams, an object that is not looked at is time."""
        if self._marked is None:
            return list(self._subscriptions.values())
        there = self._subscriptions
        types = differences.types(self._marked.resources, world.resources)
        return [there[kind] for kind in types if kind in there]

    def _due(self, subscriptions: list[Subscription]) -> bool:
        """Whether something of these may have to be sent."""
        return any(each.current is not self._resources(each.kind) for each in subscriptions)

    def _make(self, now: float) -> Iterator[Response]:
        yield from self._push(Type.CLUSTER, now)
        yield from self._push(Type.SECRET, now)
        # Never after the answer to CDS: that answer waits for these (xds.md, finding 1). But not
        # before secrets that wait for theirs: new endpoints may have names only those accept.
        if not self._waits(Type.SECRET, now):
            yield from self._push(Type.ENDPOINTS, now)
        for kind in self._subscriptions.keys() - SHORT.keys():
            yield from self._push(kind, now)
        if self._answered(Type.CLUSTER, now):  # all clusters are warm: routes may name them
            yield from self._push(Type.LISTENER, now, breaking=True)
            yield from self._push(Type.ROUTES, now)
            if self._moved(now):
                yield from self._break(now)

    def _break(self, now: float) -> Iterator[Response]:
        yield from self._push(Type.CLUSTER, now, breaking=True)
        if self._answered(Type.CLUSTER, now):
            yield from self._push(Type.ROUTES, now, breaking=True)
            yield from self._push(Type.SECRET, now, breaking=True)
            if not self._waits(Type.SECRET, now):
                yield from self._push(Type.ENDPOINTS, now, breaking=True)

    def _moved(self, now: float) -> bool:
        """Whether listeners and routes let go of what is to be removed."""
        return all(
            self._answered(kind, now) and self._asked(kind, now) and not self._refused(kind)
            for kind in (Type.LISTENER, Type.ROUTES)
        )

    def _asked(self, kind: Type, now: float) -> bool:
        """A client that comes back asks for clusters first; its old routes still name them."""
        if kind in self._subscriptions or self._resumed is None or not self._resources(kind):
            return True
        return self._open(self._resumed + GATE, now)

    def _refused(self, kind: Type) -> bool:
        """Its last good listeners and routes may need what its rejected ones do not."""
        subscription = self._subscriptions.get(kind)
        return subscription is not None and subscription.standing(self._resources(kind))

    def _answered(self, kind: str, now: float) -> bool:
        subscription = self._subscriptions.get(kind)
        return subscription is None or self._open(subscription.gate, now)

    def _waits(self, kind: str, now: float) -> bool:
        subscription = self._subscriptions.get(kind)
        return (
            subscription is not None
            and subscription.current is not self._resources(kind)
            and not self._open(subscription.gate, now)
        )

    def _open(self, gate: float | None, now: float) -> bool:
        if gate is None or now >= gate:
            return True
        self._deadline = min(gate, self._deadline or gate)
        return False

    def _step(self, subscription: Subscription, now: float) -> list[Response]:
        """Of a type in which absence means nothing."""
        resources = self._resources(subscription.kind)
        push = None if subscription.unanswered else subscription.step(resources)
        if push is None:
            return self._push(subscription.kind, now)
        self._marked = None
        subscription.basis = subscription.within = subscription.current = resources
        dialect = delta if self.delta else sotw
        return [self._send(subscription, part, now) for part in dialect.parts(push, subscription)]

    def _push(self, kind: str, now: float, *, breaking: bool = False) -> list[Response]:
        subscription = self._subscriptions.get(kind)
        resources = self._resources(kind)
        if subscription is None or subscription.current is resources:
            return []
        if not self._open(subscription.gate, now):
            return []
        self._marked = None  # it is on its way to another world, and has all of none
        dialect = delta if self.delta else sotw
        gone = subscription.gone(resources)  # what is sent below is of these
        push = dialect.due(subscription, resources, breaking=breaking or kind not in SHORT)
        subscription.basis, subscription.within = resources, None if gone else resources
        responses = []
        if push is not None:
            parts = dialect.parts(push, subscription)
            responses = [self._send(subscription, part, now) for part in parts]
            if kind is Type.CLUSTER:
                self._warm(push.changed)
        if breaking or not (gone and subscription.gone(resources)):
            subscription.current = subscription.within = resources
        else:
            subscription.current = PARTLY
        return responses

    def _send(self, subscription: Subscription, push: Push, now: float) -> Response:
        self._number += 1
        kind, sent = subscription.kind, subscription.send(push, self._number, now)
        self._waiting[kind] = subscription
        self._hold(subscription)
        write = delta.body if self.delta else sotw.body
        body = write(kind, push, sent.version, str(sent.number))
        return Response(SHORT.get(kind, kind), len(push.resources), len(push.removed), body)

    def _hold(self, subscription: Subscription) -> None:
        if self._recording and self._world and subscription.kind in SHORT:
            kind, versions = SHORT[subscription.kind], dict(subscription.held)
            self.holdings.append(Holding(kind, self._world.revision, versions))

    def _warm(self, clusters: tuple[Resource, ...]) -> None:
        """A changed cluster warms until a new EDS response comes, and nobody asks for it in delta
        (xds.md, finding 2). Those of a new cluster are asked for."""
        endpoints = self._subscriptions.get(Type.ENDPOINTS)
        if endpoints and (names := {assignment(c) for c in clusters} & endpoints.names):
            endpoints.ask(names)

    def _mark(self, world: World, moved: list[Subscription]) -> None:
        if world is self._marked or not self._subscriptions:
            return
        for each in moved:
            if each.past.rejected and each.standing(self._resources(each.kind)):
                return
        # The oldest is the next to settle, and the newest is what matters after it.
        self._marks[1:] = [Mark(world, self._number)]
        self._marked = world
        if not self._waiting:
            self._settle()

    def _settle(self) -> None:
        oldest = self._number + 1
        if self._waiting:
            oldest = min(each.oldest for each in self._waiting.values())
        while self._marks and self._marks[0].number < oldest:
            self.settled = self._marks.pop(0).world
