"""Hosts that somebody keeps a list of: the provider `hosts`."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from meshfed.catalog.document import Unreadable
from meshfed.catalog.model import Endpoint, Observation
from meshfed.providers.hostfile import chosen, read, uncollected
from meshfed.providers.listing import NOTHING, Listing, listing, shortened
from meshfed.providers.names import Names
from meshfed.providers.observed import Answer, judged, observation, probed
from meshfed.providers.probing import Believed, Probing
from meshfed.providers.watch import Mark, follow, quiet

NOBODY = Believed()


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest look at the file."""

    mark: Mark | None = None
    listed: Listing = NOTHING
    whole: Listing = NOTHING  # the newest that nothing was wrong with as a file
    answers: Mapping[str, Answer] = field(default_factory=dict)
    believed: Believed = NOBODY
    observation: Observation | None = None
    news: bool = False  # it is another than the one before


class HostsProvider:
    """One file of hosts, as it stands, whenever it changes."""

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, object],
        base: Path,
        names: Names | None = None,
    ) -> None:
        self.name = name
        self._file, self._format = chosen(options)
        self._path = base / self._file
        self._scope = f"{name}/{self._path.name}"
        self._names = names or Names()
        self._wake = asyncio.Event()
        self._probing = Probing(self._wake)
        self._asked = False

    async def refresh(self, scope: str) -> None:
        self._asked = self._asked or scope == self._scope
        self._wake.set()

    def recall(self, failing: Iterable[Endpoint]) -> None:
        self._probing.recall({(e.address, e.target): e.health_reason for e in failing})

    async def observe(self) -> AsyncGenerator[Observation, None]:
        tasks = frozenset(
            {
                asyncio.create_task(follow(self._path, self._wake)),
                asyncio.create_task(self._names.follow(self._wake)),
                asyncio.create_task(self._probing.run()),
            }
        )
        try:
            seen = Seen()
            while True:
                self._wake.clear()
                asked, self._asked = self._asked, False
                seen = await self._look(seen, again=asked)
                if seen.observation and (asked or seen.news):
                    yield seen.observation
                await self._woken(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _woken(self, tasks: frozenset[asyncio.Task[None]]) -> None:
        """Until there may be something new. What breaks in a follower breaks here."""
        waking = asyncio.create_task(self._wake.wait())
        try:
            done, _ = await asyncio.wait({waking, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        for task in done & tasks:
            task.result()

    async def _look(self, before: Seen, *, again: bool) -> Seen:
        found = await quiet(self._path, before.mark)
        listed, whole = before.listed, before.whole
        if again or before.observation is None or found != before.mark:
            listed = await asyncio.to_thread(self._read, whole)
            whole = whole if listed.fault or listed.short else listed
        answers = await self._names.answers(listed.names)
        if not listed.fault:
            self._probing.watch(probed(listed, answers))
        if before.observation is None:
            # Who was not well when another control plane led is not called in between.
            await self._probing.looked()
        said = self._probing.believed
        if listed is before.listed and answers == before.answers and said is before.believed:
            return replace(before, mark=found, news=False)
        # Ten thousand hosts take a second: not here, where streams are served.
        seen, news = await asyncio.to_thread(
            self._observed, listed, answers, said, before.observation
        )
        return Seen(found, listed, whole, answers, said, seen, news)

    def _read(self, whole: Listing) -> Listing:
        try:
            text = read(self._path, self._file)
        except Unreadable as unreadable:
            return Listing(fault=str(unreadable.rejected))
        with uncollected():
            return shortened(whole, listing(text, self._file, self._format), text, self._file)

    def _observed(
        self,
        listed: Listing,
        answers: Mapping[str, Answer],
        said: Believed,
        before: Observation | None,
    ) -> tuple[Observation, bool]:
        with uncollected():
            seen = judged(observation(listed, self.name, self._scope, answers), said)
            return seen, seen != before
