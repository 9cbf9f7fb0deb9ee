"""Signs of life of the machines that joined, as they come in at one replica."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from meshfed.catalog.database import stamp
from meshfed.catalog.joins import Joins
from meshfed.catalog.leases import Beat, Leases, Word
from meshfed.catalog.model import Known, Workload
from meshfed.catalog.schema import GONE
from meshfed.catalog.store import Away
from meshfed.federation.join.methods import Caller, registration
from meshfed.federation.join.request import Asked, Refused, Report
from meshfed.federation.register import Register
from meshfed.providers.listing import Wrong
from meshfed.providers.registered import known

TOGETHER = 1.0  # seconds for which mere signs of life wait for others

log = structlog.get_logger()


class Attendance:
    """Writes what agents say: news at once, that they live once a second for all of them."""

    def __init__(
        self,
        joins: Joins,
        leases: Leases,
        services: Register,
        lease: timedelta,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._joins = joins
        self._leases = leases
        self._services = services
        self._clock = clock
        self.lease = lease
        self._beats: dict[str, Beat] = {}  # not written yet, by workload
        self._words: dict[str, Word] = {}  # as they were written last
        self._news = asyncio.Event()
        self._round: asyncio.Future[None] | None = None  # done when those beats are written

    async def renew(self, workload: Workload, said: Report, caller: Caller) -> None:
        """Written by then, where it is news. Raises Refused, Away."""
        joined = await self._leases.joined(workload.id)
        if joined is None:
            raise Refused(403, "lease: it did not join, so it has none", workload.name)
        if caller.serial not in joined.serials:
            why = f"not the last certificate that {workload.name} was given by joining"
            raise Refused(409, why, workload.name)
        word = Word(
            said.untrusted_draining,
            said.untrusted_lost,
            tuple(sorted(said.untrusted_failing.items())),
        )
        until = stamp(self._clock() + self.lease.total_seconds())
        if not joined.silence and self._words.get(workload.id) == word:
            self._beats.setdefault(workload.id, Beat(workload, until))
            return
        back = await self._again(workload, joined.token) if joined.silence == GONE else None
        self._beats[workload.id] = Beat(workload, until, word, back)
        await self._written()

    async def _again(self, workload: Workload, token: str) -> Known:
        """What it serves, as its token says. Raises Refused."""
        made = await self._joins.token(token)
        if made is None:
            raise Refused(403, "lease: its token is unknown: join again", workload.name)
        addresses = list(workload.addresses)
        asked = Asked(csr="", token="", untrusted_name=workload.name, untrusted_addresses=addresses)
        said = registration(made, asked, Caller(""))
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
            with suppress(TimeoutError):
                async with asyncio.timeout(TOGETHER):
                    await self._news.wait()
            self._news.clear()
            beats, self._beats = self._beats, {}
            waiting, self._round = self._round, None
            if not beats:
                continue
            try:
                await self._leases.renew(tuple(beats.values()))
            except Away as away:
                log.warning("leases not renewed", leases=len(beats), reason=str(away))
                if waiting is not None:
                    waiting.set_exception(away)
                    waiting.exception()  # whoever waited may be gone
                continue
            self._words |= {key: beat.word for key, beat in beats.items() if beat.word}
            if waiting is not None:
                waiting.set_result(None)
