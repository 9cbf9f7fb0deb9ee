"""Carries what one source of the mesh specification says into the catalog."""

import asyncio
from collections.abc import Sequence

import structlog

from meshfed.catalog.model import Specified
from meshfed.catalog.store import Away, Catalog
from meshfed.federation.presence import Presence
from meshfed.federation.specification.specification import Specification

PAUSE = 1.0  # seconds before a catalog that is away is asked again

log = structlog.get_logger()


class Specifying:
    """One source's way into the catalog; the newest that it said is all that counts."""

    def __init__(
        self,
        specification: Specification,
        catalog: Catalog,
        presence: Presence,
        first: Sequence[str] = (),
    ) -> None:
        self.observed = asyncio.Event()  # something was read and taken
        self.trouble = ""  # why it could not be read
        self._specification = specification
        self._catalog = catalog
        self._presence = presence
        self._first = first  # sources that come before all others, in order
        self._newest: Specified | None = None
        self._wake = asyncio.Event()

    @property
    def name(self) -> str:
        return self._specification.source

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._take())

    async def _watch(self) -> None:
        async for specified in self._specification.watch():
            self._newest = specified
            self._wake.set()

    async def _take(self) -> None:
        before: Specified | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            if (newest := self._newest) is None:
                continue
            try:
                revision = await self._catalog.specify(newest, self._first)
            except Away as away:
                self._presence.lost(self.name, away)
                await asyncio.sleep(PAUSE)
                self._wake.set()
                continue
            self._presence.found(self.name)
            self.trouble = newest.fault or newest.doubt
            if not newest.fault:
                self.observed.set()
            tell(before, newest, revision)
            before = newest


def tell(before: Specified | None, after: Specified, revision: int | None) -> None:
    """One line per decision."""
    known = before.rejected if before else ()
    for rejection in after.rejected:
        if rejection not in known:
            log.warning("policy rejected", source=after.source, reason=str(rejection[2]))
    if after.fault and after.fault != (before.fault if before else ""):
        log.warning("policies unreadable", source=after.source, reason=after.fault)
    if after.doubt and after.doubt != (before.doubt if before else ""):
        log.warning("policies partly unreadable", source=after.source, reason=after.doubt)
    if revision is not None:
        log.info("specified", source=after.source, revision=revision, objects=len(after.policies))
