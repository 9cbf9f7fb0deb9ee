"""Signs of life of the machines that joined, as they come in at one replica."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from meshfed.catalog.database import stamp
from meshfed.catalog.joins import Joins
from meshfed.catalog.leases import Beat, Leases, Word
from meshfed.catalog.model import Known, Workload
from meshfed.catalog.schema import GONE
from meshfed.catalog.store import Away
from meshfed.catalog.together import APART
from meshfed.federation.join.methods import ByCertificate, Caller, registration
from meshfed.federation.join.request import Refused, Report
from meshfed.federation.register import Register
from meshfed.providers.listing import Wrong
from meshfed.providers.registered import known

TOGETHER = 1.0  # seconds for which mere signs of life wait for others
MOST = 20_000  # machines that are known without asking the catalog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Machine:
    """Who comes with a certificate."""

    workload: Workload
    token: str
    gone: bool  # what it serves was taken away
    since: float  # when that was looked up


class Words:
    """The last word of each who comes; it is kept for a lease or two, and each comes thrice in one.

    Clearing all at once would make everyone's next word news.
    """

    def __init__(self, lease: float) -> None:
        """In seconds."""
        self._lease = lease
        self._newer: dict[str, Word] = {}
        self._older: dict[str, Word] = {}
        self._since = float("-inf")  # when the older became so

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def last(self, workload: str) -> Word | None:
        return self._newer.get(workload, self._older.get(workload))

    def add(self, words: Mapping[str, Word], now: float) -> None:
        if not self._since <= now < self._since + self._lease:
            self._older, self._newer, self._since = self._newer, {}, now
        self._newer |= words


def spoken(said: Report) -> Word:
    failing = tuple(sorted(said.untrusted_failing.items()))
    return Word(said.untrusted_draining, said.untrusted_lost, failing)


class Attendance:
    """Writes what agents say: news at once, that they live once a second for all of them."""

    def __init__(
        self,
        joins: Joins,
        leases: Leases,
        services: Register,
        holder: ByCertificate,
        lease: timedelta,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._joins = joins
        self._leases = leases
        self._services = services
        self._holder = holder
        self._clock = clock
        self.lease = lease
        self._beats: dict[str, Beat] = {}  # not written yet, by workload
        self._words = Words(lease.total_seconds())  # as they were written last from here
        self._machines: dict[str, Machine] = {}  # by the serials of their certificates
        self._news = asyncio.Event()
        self._round: asyncio.Future[None] | None = None  # done when those beats are written

    async def renew(self, said: Report, caller: Caller) -> None:
        """Written by then, where it is news. Raises Refused, Away."""
        machine = await self._machine(caller)
        workload, word = machine.workload, spoken(said)
        until = stamp(self._clock() + self.lease.total_seconds())
        if not machine.gone and self._words.last(workload.id) == word:
            there = self._beats.get(workload.id)
            newer = replace(there, until=until) if there else Beat(workload, until, word)
            self._beats[workload.id] = newer
            return
        back = await self._again(workload, machine.token) if machine.gone else None
        self._machines.pop(caller.serial, None)
        self._beats[workload.id] = Beat(workload, until, word, known=back)
        await self._written()

    async def _machine(self, caller: Caller) -> Machine:
        """Who it is. What is known of it holds for a lease: it comes three times in that.

        Raises Refused, Away.
        """
        now = self._clock()
        there = self._machines.get(caller.serial)
        if there and there.since <= now < there.since + self.lease.total_seconds():
            return there
        workload = await self._holder.holder(caller)
        joined = await self._leases.joined(workload.id)
        if joined is None:
            raise Refused(403, "lease: it did not join, so it has none", workload.name)
        if caller.serial not in joined.serials:
            why = f"not the last certificate that {workload.name} was given by joining"
            raise Refused(409, why, workload.name)
        if len(self._machines) >= MOST:
            self._machines.clear()
        made = Machine(workload, joined.token, joined.silence == GONE, now)
        self._machines[caller.serial] = made
        return made

    async def _again(self, workload: Workload, token: str) -> Known:
        """What it serves, as its token says. Raises Refused."""
        made = await self._joins.token(token)
        if made is None:
            raise Refused(403, "lease: its token is unknown: join again", workload.name)
        said = registration(made, workload.name, workload.addresses, workload.interception)
        try:
            services = await self._services.declared({each.service for each in said.service})
            return replace(known(said, services), workloads=frozenset({workload}))
        except Wrong as wrong:
            raise Refused(409, f"{wrong.field}: {wrong.why}", workload.name) from wrong

    async def _written(self) -> None:
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        self._news.set()
        await asyncio.shield(self._round)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(APART)
            with suppress(TimeoutError):
                async with asyncio.timeout(TOGETHER):
                    await self._news.wait()
            self._news.clear()
            beats, self._beats = self._beats, {}
            waiting, self._round = self._round, None
            if not beats:
                continue
            try:
                late = await self._leases.renew(tuple(beats.values()))
            except Away as away:
                log.warning("leases not renewed", leases=len(beats), reason=str(away))
                if waiting is not None:
                    waiting.set_exception(away)
                    waiting.exception()  # whoever waited may be gone
                continue
            heard = {key: beat.word for key, beat in beats.items() if key not in late}
            self._words.add(heard, self._clock())
            if late:  # as they come the next time, they are looked up
                self._machines.clear()
            if waiting is not None:
                waiting.set_result(None)
