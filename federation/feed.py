"""Carries what one provider observes into the catalog, past the guardrail."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, islice

import structlog
from msgspec import Struct

from meshfed.catalog.model import Evidence, Health, Known, Observation
from meshfed.catalog.orders import Orders
from meshfed.catalog.store import Away, Catalog
from meshfed.federation.admit import Admitted, Fleet, Trial, admit, vanished
from meshfed.federation.presence import Presence
from meshfed.providers.provider import Attachable, Judging, Metered, Provider

BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds between looks at a doubted scope
PASS = 10.0  # seconds; absences closer together than this belong to one pass of the provider
TOGETHER = 200  # scopes in a transaction, and
LARGE = 2000  # endpoints: the lock of revisions is held, and the loop, for some tens of ms
AHEAD = 2 * TOGETHER  # scopes that wait; what a provider would tell beyond them, it tells later
FEW = 10  # decisions that are told one by one
HEARTBEAT = 30.0  # seconds; orders are read at least this often

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Standing:
    """How one provider stands, for metrics and readiness."""

    endpoints: int = 0
    doubts: int = 0
    last_good: float | None = None  # seconds since the epoch; None: never
    reason: str = ""


@dataclass(slots=True)
class Pass:
    """What a provider's scopes hold, and what they lost lately."""

    sizes: dict[str, int] = field(default_factory=dict)
    endpoints: int = 0  # in all
    losses: list[tuple[float, str, int]] = field(default_factory=list)

    def others(self, scope: str, now: float) -> Fleet:
        """The rest of the provider as it stood when this pass began."""
        self.losses = [loss for loss in self.losses if now - loss[0] < PASS]
        gone = sum(lost for _, where, lost in self.losses if where != scope)
        return Fleet(self.endpoints - self.sizes.get(scope, 0) + gone, gone)

    def settle(self, scope: str, before: Known, after: Known, now: float) -> None:
        if lost := vanished(before.endpoints, after.endpoints):
            self.losses.append((now, scope, len(lost)))
        self.endpoints += len(after.endpoints) - self.sizes.get(scope, 0)
        self.sizes[scope] = len(after.endpoints)

    def copy(self) -> "Pass":
        return Pass(dict(self.sizes), self.endpoints, list(self.losses))


class Settled(Struct, frozen=True):
    """What one scope comes to."""

    seen: Observation
    before: Known
    admitted: Admitted
    cause: str


class Feed:
    """One provider's way into the catalog. A fault of either side is waited out, never raised."""

    def __init__(
        self,
        provider: Provider,
        kind: str,
        catalog: Catalog,
        presence: Presence,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._kind = kind
        self._catalog = catalog
        self._presence = presence
        self._clock = clock
        self._seen: dict[str, Observation] = {}  # the newest of each scope
        self._waiting: dict[str, None] = {}  # scopes whose newest is not settled, oldest first
        self._room = asyncio.Event()  # set whenever some of them were
        self._paused = False
        self._trials: dict[str, Trial] = {}
        self._due: dict[str, float] = {}  # when a doubted scope is looked at again
        self._doubts: dict[str, str] = {}
        self._pass = Pass()
        self._wake = asyncio.Event()
        self.standing = Standing()
        self.observed = asyncio.Event()  # something was read and believed

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def trouble(self) -> str:
        """Why what it says is not believed as it stands; empty when it is."""
        return self.standing.reason

    @property
    def remaining(self) -> Mapping[tuple[str, str], int]:
        """What its platform lets it ask, by part and what is counted; nothing, if it does not."""
        return self._provider.remaining() if isinstance(self._provider, Metered) else {}

    async def run(self) -> None:
        await self._begin()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._observe())
            tasks.create_task(self._heed())
            tasks.create_task(self._settle())

    async def _begin(self) -> None:
        """Before it looks, the provider hears what is attached and which scopes there were.

        Else machines that are attached would be missing at first, a scope that ended while nobody
        looked would be remembered for ever, and who was not well would be called in between.
        """
        while True:
            try:
                orders = await self._catalog.orders(self.name)
                scopes = sorted(await self._catalog.scopes(self.name))
                await self._recall(scopes)
                for scope in scopes:
                    await self._provider.refresh(scope)
            except Away as away:
                self._presence.lost(self.name, away)
                await asyncio.sleep(BACKOFF[0])
                continue
            self._presence.found(self.name)
            self._attach(orders)
            return

    async def _recall(self, scopes: Sequence[str]) -> None:
        """Raises Away."""
        if isinstance(self._provider, Judging):
            known = (await self._catalog.all_known(self.name, scopes)).values()
            every = (endpoint for each in known for endpoint in each.endpoints)
            self._provider.recall(each for each in every if each.health is Health.UNHEALTHY)

    def _attach(self, orders: Orders) -> None:
        if isinstance(self._provider, Attachable):
            self._provider.attach(orders.attached)

    async def _observe(self) -> None:
        async for observation in self._provider.observe():
            self._seen[observation.scope] = observation
            self._waiting[observation.scope] = None
            self._wake.set()
            if len(self._waiting) >= AHEAD and not self._paused:
                self._room.clear()
                await self._room.wait()

    async def _heed(self) -> None:
        """An operator's order moves the catalog's revision, like everything else."""
        async for _ in self._catalog.follow():
            self._wake.set()

    async def _settle(self) -> None:
        while True:
            try:
                await self._round()
            except Away as away:
                self._presence.lost(self.name, away)
                await asyncio.sleep(BACKOFF[0])
                continue
            self._presence.found(self.name)
            await self._woken()

    async def _round(self) -> None:
        """Settles what waits longest, unless paused; asks again for what is doubted."""
        scopes = self._next()
        orders = await self._catalog.orders(self.name, scopes)
        self._attach(orders)
        self._waiting |= dict.fromkeys(orders.accepted & self._seen.keys())
        self._paused = orders.paused
        if scopes and not orders.paused:
            await self._take(scopes, orders)
        if self._waiting and not orders.paused:
            self._wake.set()
        self._room.set()
        now = self._clock()
        for scope in [scope for scope, due in self._due.items() if due <= now]:
            del self._due[scope]
            await self._provider.refresh(scope)

    def _next(self) -> list[str]:
        """The scopes that are settled together: a first load has thousands, and some are large."""
        sizes = ((s, len(self._seen[s].endpoints)) for s in islice(self._waiting, TOGETHER))
        totals = accumulate(sizes, lambda before, one: (one[0], before[1] + one[1]))
        some = [scope for scope, endpoints in totals if endpoints <= LARGE]
        return some or [*islice(self._waiting, 1)]

    async def _take(self, scopes: Sequence[str], orders: Orders) -> None:
        """Some scopes together: what is believed of all of them is one transaction."""
        name, now, before = self.name, self._clock(), self._pass.copy()
        known = await self._catalog.all_known(name, scopes)
        settled = [
            self._admit(scope, known.get(scope) or Known(name, scope), now, orders)
            for scope in scopes
        ]
        try:
            revisions = await self._write(settled)
        except Away:
            self._pass = before
            raise
        for each in settled:
            scope = each.seen.scope
            del self._waiting[scope]
            if self._seen[scope] is not each.seen:  # something newer came: its turn is the last
                self._waiting[scope] = None
            self._examine(scope, each.admitted.trial, now)
            self._doubts[scope] = each.admitted.known.doubt
        if len(settled) > FEW:
            tell_many(settled)
        else:
            for each, revision in zip(settled, revisions, strict=True):
                tell(each.before, each.admitted.known, revision)
        self._stand(settled)

    def _admit(self, scope: str, before: Known, now: float, orders: Orders) -> Settled:
        seen = self._seen[scope]
        accepted = scope in orders.accepted or (scope, seen.fault) in orders.settled
        admitted = admit(
            before,
            seen,
            fleet=self._pass.others(scope, now),
            trial=self._trials.get(scope),
            now=now,
            accepted=accepted,
        )
        self._pass.settle(scope, before, admitted.known, now)
        cause = "accepted by an operator" if accepted else admitted.known.doubt
        return Settled(seen, before, admitted, cause)

    async def _write(self, settled: Sequence[Settled]) -> list[int | None]:
        """The revision that each is of."""
        revisions: dict[str, int | None] = {}
        for cause in dict.fromkeys(each.cause for each in settled):
            known = [each.admitted.known for each in settled if each.cause == cause]
            revision = await self._catalog.believe(*known, kind=self._kind, cause=cause)
            revisions |= {one.scope: revision for one in known}
        for fault in dict.fromkeys(each.seen.fault for each in settled):
            scopes = [each.seen.scope for each in settled if each.seen.fault == fault]
            await self._catalog.seen(self.name, self._kind, *scopes, fault=fault)
        return [revisions[each.seen.scope] for each in settled]

    def _examine(self, scope: str, trial: Trial | None, now: float) -> None:
        """Look again at what is in doubt, ever more slowly."""
        if trial is None:
            self._trials.pop(scope, None)
            self._due.pop(scope, None)
            return
        self._trials[scope] = trial
        self._due[scope] = now + BACKOFF[min(trial.answers, len(BACKOFF)) - 1]

    def _stand(self, settled: Sequence[Settled]) -> None:
        doubted = [doubt for doubt in self._doubts.values() if doubt]
        if any(each.seen.evidence is not Evidence.FAULT for each in settled):
            self.observed.set()
        good = any(not each.seen.fault for each in settled)
        self.standing = Standing(
            endpoints=self._pass.endpoints,
            doubts=len(doubted),
            reason=doubted[0] if doubted else "",
            last_good=time.time() if good else self.standing.last_good,
        )

    async def _woken(self) -> None:
        """Until something is seen or ordered, or a doubted scope is due."""
        now = self._clock()
        rest = min(self._due.values(), default=now + HEARTBEAT) - now
        with suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await self._wake.wait()
        self._wake.clear()


def tell(before: Known, after: Known, revision: int | None) -> None:
    """One line per decision."""
    fields = {"provider": after.provider, "scope": after.scope}
    _tell_left_out(before, after)
    if after.doubt and after.doubt != before.doubt:
        log.warning("observation doubted", **fields, reason=after.doubt, kept=len(after.stale))
        return
    if before.doubt and not after.doubt:
        log.info("doubt settled", **fields, endpoints=len(after.endpoints))
    if revision is not None:
        log.info("believed", **fields, revision=revision, endpoints=len(after.endpoints))


def tell_many(settled: Sequence[Settled]) -> None:
    """Of many at once, as when a whole platform is seen first or lost: a line for all alike."""
    pairs = [(each.before, each.admitted.known) for each in settled]
    for pair in pairs:
        _tell_left_out(*pair)
    fields = {"provider": pairs[0][0].provider}
    moved = [after for before, after in pairs if after.doubt and after.doubt != before.doubt]
    for doubt in dict.fromkeys(after.doubt for after in moved):
        scopes = sum(after.doubt == doubt for after in moved)
        log.warning("observations doubted", **fields, scopes=scopes, reason=doubt)
    believed = [after for before, after in pairs if after != before and not after.doubt]
    if believed:
        endpoints = sum(len(after.endpoints) for after in believed)
        log.info("believed", **fields, scopes=len(believed), endpoints=endpoints)


def _tell_left_out(before: Known, after: Known) -> None:
    fields = {"provider": after.provider, "scope": after.scope}
    for rejected in after.rejected:
        if rejected not in before.rejected:
            log.warning("entry left out", **fields, reason=str(rejected))
