"""One subscription, looked at again and again: what is new of it, and how long it is left alone."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from meshfed.catalog.model import Evidence, Observation
from meshfed.catalog.orders import Attachment
from meshfed.catalog.records import Record
from meshfed.providers.azure.lists import (
    Arm,
    Inventory,
    Kept,
    Reader,
    Refused,
    Unread,
    look,
    machines,
)
from meshfed.providers.azure.machines import is_uniform, lowered, tagged
from meshfed.providers.azure.objects import ScaleSet
from meshfed.providers.azure.pace import Budget, Pace, breath, turn
from meshfed.providers.azure.records import records
from meshfed.providers.azure.resolve import (
    Choice,
    Expected,
    Resolved,
    Taken,
    expected,
    observation,
    resolve,
)
from meshfed.providers.hostfile import uncollected

GRACE = 2  # looks that may fail in passing before what is known is in doubt
PASSING = frozenset({429, 500, 502, 503, 504})
NOTHING = "lists nothing any more, neither machines nor network interfaces: was a right taken away?"

Attached = Mapping[str, tuple[Attachment, ...]]  # by the lower-cased id of what has them


class Subscription:
    def __init__(
        self, name: str, choice: Choice, pace: Pace, tell: Callable[[Observation], None]
    ) -> None:
        self.name = name
        self.budget = Budget()
        self.attached: Attached = {}
        self._choice = choice
        self._pace = pace
        self._tell = tell
        self._own = f"{choice.provider}/{name}"  # the scope that stands for it while it has none
        self._told: dict[str, Observation] = {}  # the newest of each scope
        self._expected: dict[str, dict[str, Expected]] = {}
        self._kept: Kept = {}
        self._known: dict[str, Taken] = {}  # what became of each machine
        self._found: Inventory | None = None  # as it was listed last
        self._records: tuple[Inventory, Mapping[str, Record]] | None = None  # what that comes to
        self._asked: set[str] = set()  # scopes to be told of again, changed or not
        self._hurry = asyncio.Event()
        self._failures = 0

    def ask(self, scope: str) -> None:
        self._asked.add(scope)
        self._hurry.set()

    def attach(self, attached: Attached) -> None:
        mine = f"/subscriptions/{self.name}/"
        ours = {resource: each for resource, each in attached.items() if resource.startswith(mine)}
        if ours != self.attached:
            self.attached = ours
            self._hurry.set()

    def inventory(self) -> Mapping[str, Record] | None:
        """All machines that were listed, for who asks; of 20,000 it takes a moment."""
        if (found := self._found) is None:
            return None
        if self._records is None or self._records[0] is not found:
            now = records(found, public=self._choice.public)
            same = self._records is not None and self._records[1] == now
            self._records = (found, self._records[1] if self._records and same else now)
        return self._records[1]

    async def run(self, arm: Arm, turns: asyncio.Semaphore) -> None:
        """For ever."""
        while True:
            self._hurry.clear()
            paused = await self._look(Reader(arm, turns, self._heard, self._kept))
            found = turn(self._pace, self.budget, self._failures, paused)
            await self._pace.rest(found.least)
            await self._hurried(found.after - found.least)

    async def _hurried(self, seconds: float) -> None:
        """Until so much later, or somebody asks."""
        waiting = (
            asyncio.create_task(self._hurry.wait()),
            asyncio.ensure_future(self._pace.rest(seconds)),
        )
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _heard(self, headers: Mapping[str, str]) -> None:
        self.budget = self.budget.heard(headers)
        if rest := breath(self.budget.share):
            await self._pace.rest(rest)

    async def _look(self, reader: Reader) -> float:
        """One look; for how many seconds Azure then wants to be left alone."""
        try:
            found = await look(reader, self.name, self._taken, public=self._choice.public)
            if found.empty and (self._expected or self._asked):
                raise Unread(NOTHING)
        except Unread as trouble:
            self._failures += 1
            if not self._passing(trouble):
                self._failed(str(trouble))
            return trouble.after
        self._failures = 0
        self._found = found
        asked, self._asked = self._asked, set()
        # 20,000 machines take a second: not here, where streams are served.
        for seen in await asyncio.to_thread(self._read, found, asked):
            self._tell(seen)
        return max((each.after for each in found.instances.values()), default=0.0)

    def _passing(self, trouble: Unread) -> bool:
        """Whether it may be over soon: all that is known would be in doubt, and then no more."""
        lasting = isinstance(trouble, Refused) and trouble.status not in PASSING
        long = trouble.after > GRACE * self._pace.refresh
        return bool(self._told) and not lasting and not long and self._failures < GRACE

    def _taken(self, found: ScaleSet) -> bool:
        """Whether a Uniform set is in the mesh: its instances are what its own tags say."""
        own, tags = lowered(found.id), tagged(found.id, found.tags)
        if not self._choice.takes(own, tags):
            return False
        said = any(self._choice.names & each.keys() for _, each in tags)
        return said or any(each == own or each.startswith(f"{own}/") for each in self.attached)

    def _read(self, found: Inventory, asked: set[str]) -> list[Observation]:
        """What is new, or was asked for."""
        with uncollected():
            return list(self._news(found, self._resolved(found), asked))

    def _resolved(self, found: Inventory) -> dict[str, Resolved]:
        scopes = resolve(self._choice, machines(found), self.attached, self._known)
        for each in found.sets:
            if is_uniform(each) and not self._taken(each):
                # It is there, and says that its instances are not in the mesh.
                scope = self._choice.scope(lowered(each.id))
                scopes[scope] = Resolved(listed=set(self._expected.get(scope, ())))
        if found.odd:
            for resolved in scopes.values():
                resolved.fault = resolved.fault or found.odd
        return scopes

    def _news(
        self, found: Inventory, scopes: dict[str, Resolved], asked: set[str]
    ) -> Iterator[Observation]:
        failed = {self._choice.scope(of): each.fault for of, each in found.instances.items()}
        known = self._told.keys() | asked
        there = {scope for scope, resolved in scopes.items() if resolved.is_something}
        there |= {scope for scope, fault in failed.items() if fault}
        for scope in sorted((known | there) - {self._own}):
            if why := failed.get(scope):
                yield from self._told_now(faulty(scope, why), asked)
            else:
                now = scopes.get(scope) or Resolved(fault=found.odd)
                yield from self._observed(scope, now, asked)
        if self._own in known or not known | there:
            yield from self._told_now(Observation(self._own), asked)

    def _observed(self, scope: str, now: Resolved, asked: set[str]) -> Iterator[Observation]:
        before = self._expected.pop(scope, {})
        seen = observation(scope, now, before)
        yield from self._told_now(seen, asked)
        stated = seen.evidence is Evidence.STATED
        left = expected(before, now, self._pace.clock(), stated=stated)
        if left:
            self._expected[scope] = left
        elif not now.is_something:
            self._told.pop(scope)

    def _failed(self, why: str) -> None:
        asked, self._asked = self._asked, set()
        for scope in sorted(self._told.keys() | asked or {self._own}):
            for seen in self._told_now(faulty(scope, why), asked):
                self._tell(seen)

    def _told_now(self, seen: Observation, asked: set[str]) -> Iterator[Observation]:
        """It, if it is new or asked for; that less is known of what is gone is not new."""
        before = self._told.get(seen.scope)
        if before and before.evidence is Evidence.STATED:
            before = replace(before, evidence=seen.evidence)
        if seen.scope in asked or before != seen:
            self._told[seen.scope] = seen
            yield seen


def faulty(scope: str, why: str) -> Observation:
    return Observation(scope, evidence=Evidence.FAULT, fault=why)
