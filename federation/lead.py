"""One replica leads: it observes, specifies and prunes. The others wait for their turn."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from secrets import token_hex

import structlog

from meshfed.catalog.leadership import NOBODY, Deposed, Leader, Term
from meshfed.catalog.store import Away, Catalog
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.presence import Presence

BEAT = 1.0  # seconds between two renewals of the lease, which lasts for three
LOOK = 0.5  # seconds between two looks at somebody else's
SIGNS = 2.0  # seconds between two looks at the signs of life of replicas
GONE = 10.0  # seconds without one after which a replica and its proxies are forgotten

Duty = Coroutine[None, None, None]

log = structlog.get_logger()


def replica() -> str:
    """A name for this process alone: the one before it, on the same host, was another."""
    return f"{socket.gethostname()}-{token_hex(4)}"


def host(replica: str) -> str:
    return replica.rpartition("-")[0]


class Signs:
    """Who gives no sign of life any more. Clocks of hosts differ: only news of each counts."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, float]] = {}  # replica → its last sign, first seen when

    def gone(self, signs: Mapping[str, str], now: float) -> frozenset[str]:
        before = self._since
        self._since = {
            name: before[name] if name in before and before[name][0] == sign else (sign, now)
            for name, sign in signs.items()
        }
        return frozenset(name for name, (_, at) in self._since.items() if now - at > GONE)


class Lead:
    """This replica's part in it. `duties` are what a leader does, with the catalog of its term."""

    def __init__(
        self,
        name: str,
        catalog: Catalog,
        presence: Presence,
        metrics: Metrics,
        duties: Callable[[Catalog], Iterable[Duty]],
    ) -> None:
        self.leader = NOBODY  # as it was last heard
        self.name = name
        self._catalog = catalog
        self._presence = presence
        self._metrics = metrics
        self._duties = duties
        # On SQLite all are on one machine: who starts last is meant, and the one before is mostly
        # dead, whose lease it would have to wait for.
        self._at_once = catalog.is_sqlite

    async def run(self) -> None:
        while True:
            term = await self._elected()
            try:
                await self._serve(term)
            except* Deposed as ended:
                log.warning("deposed", epoch=term.epoch, reason=str(_first(ended)))

    async def _elected(self) -> Term:
        while True:
            try:
                term = await self._look()
            except Away as away:
                self._presence.lost("leadership", away)
            else:
                self._presence.found("leadership")
                if term is not None:
                    return term
            await asyncio.sleep(LOOK)

    async def _look(self) -> Term | None:
        """Take over where nobody leads."""
        seen = await self._catalog.leader()
        if seen.held and not self._at_once:
            if seen.term != self.leader.term:
                log.info("following", leader=seen.term.replica, epoch=seen.term.epoch)
            self.leader = seen
            return None
        term = await self._catalog.take(self.name, at_once=self._at_once)
        self._at_once = False
        if term is not None:
            self.leader = Leader(term, held=True)
            log.info("leading", epoch=term.epoch, after=seen.term.replica)
        return term

    async def _serve(self, term: Term) -> None:
        """Until another term begins. Raises Deposed, in a group."""
        led = self._catalog.led(term)
        self._metrics.leads(leads=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                for duty in (self._renew(term), self._bury(led), *self._duties(led)):
                    tasks.create_task(duty)
        finally:
            self._metrics.leads(leads=False)

    async def _renew(self, term: Term) -> None:
        while True:
            await asyncio.sleep(BEAT)
            try:
                await self._catalog.renew(term)
            except Away as away:
                self._presence.lost("leadership", away)
            else:
                self._presence.found("leadership")

    async def _bury(self, led: Catalog) -> None:
        signs = Signs()
        while True:
            await asyncio.sleep(SIGNS)
            try:
                gone = signs.gone(await led.signs(), time.monotonic()) - {self.name}
                if gone:
                    await led.forget(gone)
            except Away:  # which the lease's renewal says
                continue
            for name in sorted(gone):
                log.warning("replica gone", replica=name, silent=GONE)


def _first(group: BaseExceptionGroup[Deposed]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
