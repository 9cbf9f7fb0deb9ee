"""Carries what one provider observes into the catalog, past the guardrail."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from meshfed.catalog.model import Evidence, Known, Observation, Orders
from meshfed.catalog.store import Away, Catalog
from meshfed.federation.admit import Fleet, Trial, admit, vanished
from meshfed.federation.presence import Presence
from meshfed.providers.provider import Attachable, Metered, Provider

BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds between looks at a doubted scope
PASS = 10.0  # seconds; absences closer together than this belong to one pass of the provider
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
    losses: list[tuple[float, str, int]] = field(default_factory=list)

    def others(self, scope: str, now: float) -> Fleet:
        """The rest of the provider as it stood when this pass began."""
        self.losses = [loss for loss in self.losses if now - loss[0] < PASS]
        gone = sum(lost for _, where, lost in self.losses if where != scope)
        held = sum(size for where, size in self.sizes.items() if where != scope)
        return Fleet(held + gone, gone)

    def settle(self, scope: str, before: Known, after: Known, now: float) -> None:
        lost = len(vanished(before.endpoints, after.endpoints))
        if lost:
            self.losses.append((now, scope, lost))
        self.sizes[scope] = len(after.endpoints)


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
        self._waiting: set[str] = set()  # scopes whose newest is not settled yet
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

        Else machines that are attached would be missing at first, and a scope that ended while
        nobody looked would be remembered for ever.
        """
        while True:
            try:
                orders = await self._catalog.orders(self.name)
                for scope in sorted(await self._catalog.scopes(self.name)):
                    await self._provider.refresh(scope)
            except Away as away:
                self._presence.lost(self.name, away)
                await asyncio.sleep(BACKOFF[0])
                continue
            self._presence.found(self.name)
            self._attach(orders)
            return

    def _attach(self, orders: Orders) -> None:
        if isinstance(self._provider, Attachable):
            self._provider.attach(orders.attached)

    async def _observe(self) -> None:
        async for observation in self._provider.observe():
            self._seen[observation.scope] = observation
            self._waiting.add(observation.scope)
            self._wake.set()

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
        """Settles what is waiting, unless paused; asks again for what is doubted."""
        orders = await self._catalog.orders(self.name)
        self._attach(orders)
        self._waiting |= orders.accepted & self._seen.keys()
        if not orders.paused:
            while self._waiting:
                await self._take(min(self._waiting), orders.accepted)
        now = self._clock()
        for scope in [scope for scope, due in self._due.items() if due <= now]:
            del self._due[scope]
            await self._provider.refresh(scope)

    async def _take(self, scope: str, accepted: frozenset[str]) -> None:
        seen, name, now = self._seen[scope], self.name, self._clock()
        before = await self._catalog.known(name, scope) or Known(name, scope)
        admitted = admit(
            before,
            seen,
            fleet=self._pass.others(scope, now),
            trial=self._trials.get(scope),
            now=now,
            accepted=scope in accepted,
        )
        cause = "accepted by an operator" if scope in accepted else admitted.known.doubt
        revision = await self._catalog.believe(admitted.known, kind=self._kind, cause=cause)
        await self._catalog.seen(name, self._kind, scope, fault=seen.fault)
        if self._seen[scope] is seen:
            self._waiting.discard(scope)
        self._pass.settle(scope, before, admitted.known, now)
        self._examine(scope, admitted.trial, now)
        self._stand(admitted.known, seen)
        tell(before, admitted.known, revision)

    def _examine(self, scope: str, trial: Trial | None, now: float) -> None:
        """Look again at what is in doubt, ever more slowly."""
        if trial is None:
            self._trials.pop(scope, None)
            self._due.pop(scope, None)
            return
        self._trials[scope] = trial
        self._due[scope] = now + BACKOFF[min(trial.answers, len(BACKOFF)) - 1]

    def _stand(self, known: Known, seen: Observation) -> None:
        self._doubts[known.scope] = known.doubt
        doubted = [doubt for doubt in self._doubts.values() if doubt]
        if seen.evidence is not Evidence.FAULT:
            self.observed.set()
        self.standing = Standing(
            endpoints=sum(self._pass.sizes.values()),
            doubts=len(doubted),
            reason=doubted[0] if doubted else "",
            last_good=self.standing.last_good if seen.fault else time.time(),
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
    for rejected in after.rejected:
        if rejected not in before.rejected:
            log.warning("entry left out", **fields, reason=str(rejected))
    if after.doubt and after.doubt != before.doubt:
        log.warning("observation doubted", **fields, reason=after.doubt, kept=len(after.stale))
        return
    if before.doubt and not after.doubt:
        log.info("doubt settled", **fields, endpoints=len(after.endpoints))
    if revision is not None:
        log.info("believed", **fields, revision=revision, endpoints=len(after.endpoints))
