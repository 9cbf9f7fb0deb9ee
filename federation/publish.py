"""Tells every connected proxy what changed for it, in three lanes."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import count

import structlog

from meshfed.catalog.model import Changed, Mesh, ServiceName, Workload
from meshfed.catalog.reports import ProxyState, Pushed
from meshfed.catalog.store import Away, Catalog
from meshfed.catalog.view import Anonymous, ProxyClass
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics, Reason
from meshfed.federation.callers import Callers
from meshfed.federation.care import Care
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.classes import Classes
from meshfed.federation.presence import Presence
from meshfed.federation.subscriber import (
    Inadmissible,
    Subscriber,
    admitted,
    refused,
    speakers,
)
from meshfed.federation.wanted import Wanted
from meshfed.federation.worlds import Worlds
from meshfed.xds.feed import Unready
from meshfed.xds.peer import Peer
from meshfed.xds.resource import World
from meshfed.xds.soundness import LeftOut
from meshfed.xds.subscription import Memory

BETWEEN_SHAPES = 0.1  # seconds at most, while changes go on: as long as one took
BEHIND = 0.001  # seconds that shapes let the endpoint lane go first: streams write what they have
FLUSH = 0.2  # seconds between two writes of receipts, at least;
SHARE = 9  # times as long as one took, while many proxies answer all the time,
LONGEST = 2.0  # up to so many seconds
ALIVE = 2.0  # seconds between two signs of life, when nothing else is written
MOST = 1000  # revisions at once whose propagation is measured
GLANCE = 1.0  # seconds between two looks at how proxies fare
PAUSE = 1.0  # seconds before a catalog that is away is asked again

log = structlog.get_logger()


def redialled(before: Mesh, after: Mesh, services: Iterable[ServiceName]) -> bool:
    """Whether transparent callers dial other addresses now: those stand in their listeners."""
    return any(addresses(before, name) != addresses(after, name) for name in services)


def addresses(mesh: Mesh, name: ServiceName) -> frozenset[str]:
    service = mesh.services.get(name)
    if service is not None and service.vip:
        return frozenset({service.vip})
    own = service.virtual if service is not None else ()
    return frozenset((*own, *(endpoint.address for endpoint in mesh.endpoints.get(name, ()))))


class Publisher:
    """The xDS server's Source: one for this replica."""

    def __init__(
        self,
        mesh: Mesh,
        catalog: Catalog,
        custody: Custody,
        account: Account,
        metrics: Metrics,
        presence: Presence,
        replica: str,
    ) -> None:
        self.ready = asyncio.Event()  # before that, an answer could lack half of the mesh
        self.callers = Callers()
        self._mesh = mesh
        self._catalog = catalog
        self._custody = custody
        self._account = account
        self._metrics = metrics
        self._presence = presence
        self._replica = replica
        self._care = Care(metrics)
        self._turn = asyncio.Lock()
        self._numbers = count(1)  # of worlds that are offered
        self._worlds = Worlds(mesh, custody, metrics.viewed)
        self._classes = Classes()
        self._subscribers: list[Subscriber] = []
        self._memories: dict[str, Memory] = {}  # by workload, whether or not it is connected
        self._members: defaultdict[ProxyClass, dict[Subscriber, None]] = defaultdict(dict)
        self._rules: object = None  # by which everyone has a class
        self._reshape = asyncio.Event()
        self._wanted = Wanted()
        self._moved = set(mesh.workloads)  # ids, since that was asked last
        self._wrong: frozenset[str] = frozenset()
        self._left: frozenset[LeftOut] = frozenset()
        self._committed: dict[int, float] = {}  # revisions that wait for the shape lane,
        self._offered: set[Subscriber] = set()  # and whom the endpoint lane told of them
        self._spoke: dict[str, Subscriber] = {}  # for its proxy, when that was last written
        self._pushed: list[Pushed] = []  # what the catalog lacks of what was sent
        self._told = -1  # the revision that the catalog knows to be evaluated here,
        self._alive = 0.0  # and when it was told

    async def open(self, peer: Peer) -> Subscriber:
        if not self.ready.is_set():
            self._metrics.refused(Reason.UNREADY)
            raise Unready("not every source of the mesh has been observed yet")
        try:
            workload, kind = self._admitted(peer)
        except Inadmissible as error:
            self._metrics.refused(error.reason)
            await refused(self._catalog, peer, error)
            raise
        self._custody.claim(kind.identity)
        classes, world = len(self._worlds), self._world(kind)
        if len(self._worlds) > classes:
            self._lack()
        memory = self._memories.setdefault(workload.id, {})
        subscriber = Subscriber(peer, workload, kind, world, self._account, memory)
        self._subscribers.append(subscriber)
        self.callers.call(subscriber.id, self._worlds.called(subscriber.kind))
        self._members[kind][subscriber] = None
        log.info("proxy connected", workload=workload.name, identity=str(kind.identity))
        return subscriber

    def _admitted(self, peer: Peer) -> tuple[Workload, ProxyClass]:
        """Raises Inadmissible."""
        workload = admitted(self._mesh, peer)
        try:
            return workload, self._worlds.kind(workload)
        except Anonymous as error:
            raise Inadmissible(Reason.IDENTITY, str(error)) from error

    def proxies(self) -> tuple[ProxyState, ...]:
        return tuple(s.state() for s in self._subscribers if not s.closed)

    # What those ask who take in reports of load

    @property
    def mesh(self) -> Mesh:
        return self._mesh

    @property
    def complete(self) -> bool:
        return self.ready.is_set()

    def admit(self, peer: Peer) -> Workload:
        """Whose reports these are. Raises Refusal, Unready.

        Who was known before is heard at once: what a sidecar reports in vain is lost.
        """
        try:
            return admitted(self._mesh, peer)
        except Inadmissible as error:
            if not self.ready.is_set():
                raise Unready(f"not every source has been observed yet: {error}") from error
            raise

    async def begin(self) -> None:
        """Every source has been observed: take in all of it, and let proxies come."""
        await self._advance()
        self.ready.set()
        self._shape()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._shapes())
            tasks.create_task(self._certificates())
            tasks.create_task(self._record())
            tasks.create_task(self._tend())

    async def _follow(self) -> None:
        async for _ in self._catalog.follow():
            await self._advance()

    async def _advance(self) -> None:
        async with self._turn:  # a mesh that was read first must not replace one read later
            mesh, changed = await self._newest()
            self._take(mesh, changed)

    async def _newest(self) -> tuple[Mesh, Changed]:
        while True:
            try:
                newest = await self._catalog.advance(self._mesh)
            except Away as away:
                self._presence.lost("publish", away)
                await asyncio.sleep(PAUSE)
            else:
                self._presence.found("publish")
                return newest

    def _take(self, mesh: Mesh, changed: Changed) -> None:
        """The endpoint lane goes at once; what else moved is left to the shape lane."""
        now = time.time()
        for revision in range(
            max(self._mesh.revision, mesh.revision - MOST) + 1, mesh.revision + 1
        ):
            self._committed[revision] = self._catalog.committed_at(revision) or now
        before, self._mesh = self._mesh, mesh
        if mesh.trust_domain != before.trust_domain:  # also where it is back before anyone looked
            self._rules = None
        self._moved |= changed.workloads
        moved = self._worlds.endpoints_changed(mesh, changed.endpoints)
        if changed.shape or redialled(before, mesh, changed.endpoints):
            self._reshape.set()
        self._offered |= self._offer(moved)
        if not self._reshape.is_set():
            self._evaluated()

    async def _shapes(self) -> None:
        """The first change at once, then one at a time; as long a pause between, 0.1 s at most."""
        while True:
            await self._reshape.wait()
            await asyncio.sleep(BEHIND)
            began = time.monotonic()
            self._shape()
            await asyncio.sleep(min(BETWEEN_SHAPES, time.monotonic() - began))

    def _shape(self) -> None:
        self._reshape.clear()
        self._custody.keep(self._wanted.of(self._mesh, self._moved))
        moved, self._moved = self._moved, set()
        changed = self._worlds.shape_changed(self._mesh)
        self._offered |= self._reclassify(moved | self._worlds.moved) | self._offer(changed)
        self._evaluated()
        self._worlds.keep(self._members)
        for who in moved & self._memories.keys():
            if who not in self._mesh.workloads:
                del self._memories[who]
        if self.ready.is_set():  # what lacks its other half so far is no mistake yet
            self._complain()

    async def _certificates(self) -> None:
        while True:
            moved = await self._custody.changed()
            self._offer(self._worlds.certificates_changed(moved))

    def _offer(self, changed: set[ProxyClass]) -> set[Subscriber]:
        """Give the proxies of these classes their new world; nobody else is looked at."""
        offered: set[Subscriber] = set()
        for kind in changed & self._members.keys():
            world, called = self._world(kind), self._worlds.called(kind)
            for subscriber in self._members[kind]:
                if not (subscriber.closed or subscriber.ended):
                    subscriber.offer(world)
                    self.callers.call(subscriber.id, called)
                    offered.add(subscriber)
        return offered

    def _reclassify(self, moved: set[str]) -> set[Subscriber]:
        """Dismiss who is no longer of the mesh; give those of another class now its world.

        `moved`: the workloads of which that may be, while the rules are the same.
        """
        offered = set()
        rules = self._mesh.trust_domain, self._mesh.preferences.relations
        ruled, self._rules = rules == self._rules, rules
        for subscriber in self._live():
            if ruled and subscriber.id not in moved:
                continue
            try:
                subscriber.workload, kind = self._admitted(subscriber.peer)
            except Inadmissible as error:
                self._metrics.refused(error.reason)
                log.info("proxy dismissed", workload=subscriber.workload.name, reason=str(error))
                subscriber.end(str(error))
                continue
            before, subscriber.kind = subscriber.kind, kind
            if kind == before:
                continue
            self._part(subscriber, before)
            self._members[kind][subscriber] = None
            subscriber.offer(self._world(kind))
            self.callers.call(subscriber.id, self._worlds.called(subscriber.kind))
            offered.add(subscriber)
        return offered

    def _part(self, subscriber: Subscriber, kind: ProxyClass) -> None:
        """It is no longer of this class."""
        members = self._members[kind]
        members.pop(subscriber, None)
        if not members:
            del self._members[kind]

    def _live(self) -> list[Subscriber]:
        return [s for s in self._subscribers if not (s.closed or s.ended)]

    def _complain(self) -> None:
        """What is written and has no effect, once."""
        wrong = self._worlds.without_effect()
        for problem in sorted(wrong - self._wrong):
            log.warning("without effect", reason=problem)
        self._wrong = wrong
        self._lack()

    def _lack(self) -> None:
        """What proxies are not told, said once, and counted."""
        left = self._worlds.left_out()
        for each in sorted(left - self._left):
            log.warning(
                "left out", type=each.kind, name=each.name, object=each.object, reason=each.why
            )
        self._left = left
        self._metrics.left_out(Counter((each.kind, each.object) for each in left))

    def _world(self, kind: ProxyClass) -> World:
        world = self._worlds.of(kind)
        number = next(self._numbers)
        return World(self._mesh.revision, world.resources, world.by_name, number)

    def _evaluated(self) -> None:
        committed, self._committed = self._committed, {}
        offered, self._offered = self._offered, set()
        self._account.evaluate(committed, len(offered), time.time())
        self._metrics.reached(self._account.evaluated)

    async def _tend(self) -> None:
        while True:
            self._care.look(self._live())
            await asyncio.sleep(GLANCE)

    async def _record(self) -> None:
        """Keep the catalog's account of proxies and certificates; late, while it is away."""
        while True:
            # What is being pushed goes first: for a thousand proxies this is half a core for 0.1 s.
            await self._account.rested()
            began = time.monotonic()
            try:
                await self._keep()
                await self._write()
                await self._certify()
            except Away as away:
                self._presence.lost("record", away)
                await asyncio.sleep(PAUSE)
            else:
                self._presence.found("record")
            took = time.monotonic() - began
            await asyncio.sleep(min(max(FLUSH, SHARE * took), LONGEST))

    async def _write(self) -> None:
        closed = {s for s in self._subscribers if s.closed}
        there = speakers(self._live())
        for each in there.values():
            if self._spoke.get(each.id) is not each:  # what is recorded is another stream's word
                each.lost()
        self._spoke = there
        moved = any(s.unwritten for s in there.values())
        fresh = [s for s in there.values() if s.unwritten or not s.recorded]
        receipts = self._account.unwritten()
        told = (self._account.evaluated, len(closed), moved, len(receipts))
        if told == (self._told, 0, False, 0) and time.monotonic() - self._alive < ALIVE:
            return
        classes = self._classes.written(self._worlds.reaches())
        again = [one for s in fresh if not s.recorded for one in s.answers]
        states = [new for s in fresh if (new := s.written(self._classes.number(s.kind)))]
        left = {s.id for s in closed} - there.keys()
        evaluated = self._account.evaluated
        news = states, left, (*again, *receipts), classes
        try:
            stands = await self._catalog.record(self._replica, evaluated, *news)
        except Away:
            self._classes.lost()
            for subscriber in fresh:
                subscriber.lost()
            raise
        forgotten = not stands.known and self._told >= 0
        for proxy in there.keys() - stands.own:  # another replica has it, or had it until now
            there[proxy].forgotten()
        self._account.written(receipts)
        self._pushed += [one for s in closed for one in s.unrecorded()]
        self._subscribers = [s for s in self._subscribers if s not in closed]
        for workload in left - {s.id for s in self._live()}:  # it may be back by now
            self.callers.forget(workload)
        for subscriber in closed:
            self._part(subscriber, subscriber.kind)
        self._told, self._alive = self._account.evaluated, time.monotonic()
        self._metrics.connected(len(there))
        if forgotten:  # it was silent for so long that its proxies were taken for gone
            self._classes.lost()
            for subscriber in self._live():
                subscriber.lost()

    async def _keep(self) -> None:
        """What proxies were sent, where that is recorded; also of those that are gone since."""
        self._pushed += [one for s in self._subscribers for one in s.unrecorded()]
        if pushed := tuple(self._pushed):
            await self._catalog.pushed(pushed)
            del self._pushed[: len(pushed)]

    async def _certify(self) -> None:
        if states := self._custody.unrecorded():
            await self._catalog.certify(states)
            self._custody.recorded(states)
