"""Azure's machines, as they are listed every so often: the provider `azure`."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from meshfed.catalog.model import Observation
from meshfed.catalog.orders import Attachment
from meshfed.catalog.records import Record
from meshfed.providers.azure.examine import examine
from meshfed.providers.azure.lists import Arm
from meshfed.providers.azure.options import Cloud
from meshfed.providers.azure.options import options as read
from meshfed.providers.azure.pace import Pace
from meshfed.providers.azure.subscription import Subscription
from meshfed.providers.provider import Examined

AT_ONCE = 8  # calls under way


class Line(Arm, Protocol):
    async def close(self) -> None: ...


def line(cloud: Cloud, auth: str) -> Line:
    """Here, because the SDK takes half a second and 50 MB: only who asks Azure pays for it."""
    from meshfed.providers.azure.access import Line

    return Line(cloud, auth)


class AzureProvider:
    """The machines of some subscriptions, by resource group and Uniform scale set."""

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, object],
        base: Path,
        pace: Pace | None = None,
        arm: Line | None = None,
    ) -> None:
        self.name = name
        self._options = read(name, options, base)
        self._arm = arm
        self._news: dict[str, Observation] = {}  # by scope: the newest is what counts
        self._wake = asyncio.Event()
        self._inventories: list[Mapping[str, Record] | None] = []
        self._inventory: Mapping[str, Record] = {}
        self._subscriptions = {
            each: Subscription(
                each, self._options.choice, pace or Pace(self._options.refresh), self._tell
            )
            for each in self._options.subscriptions
        }

    async def refresh(self, scope: str) -> None:
        name, _, rest = scope.partition("/")
        if name == self.name and (found := self._subscriptions.get(rest.partition("/")[0])):
            found.ask(scope)

    def attach(self, attached: Iterable[Attachment]) -> None:
        of: dict[str, tuple[Attachment, ...]] = {}
        for each in attached:
            of[each.resource] = (*of.get(each.resource, ()), each)
        for subscription in self._subscriptions.values():
            subscription.attach(of)

    def remaining(self) -> Mapping[tuple[str, str], int]:
        return {
            (subscription.name, name): bucket.left
            for subscription in self._subscriptions.values()
            for name, bucket in subscription.budget.buckets.items()
        }

    def inventory(self) -> Mapping[str, Record] | None:
        """Only of what was listed: of Uniform sets that are not in the mesh no instance is."""
        every = [each.inventory() for each in self._subscriptions.values()]
        if None in every:
            return None
        if every != self._inventories:
            self._inventories = every
            self._inventory = {one: rec for each in every if each for one, rec in each.items()}
        return self._inventory

    async def examine(self) -> AsyncGenerator[Examined, None]:
        arm = await self._line()
        try:
            async for found in examine(arm, self._options):
                yield found
        finally:
            await arm.close()

    async def _line(self) -> Line:
        if self._arm is not None:
            return self._arm
        return await asyncio.to_thread(line, self._options.cloud, self._options.auth)

    async def observe(self) -> AsyncGenerator[Observation, None]:
        arm = await self._line()
        turns = asyncio.Semaphore(AT_ONCE)
        tasks = [asyncio.create_task(s.run(arm, turns)) for s in self._subscriptions.values()]
        for task in tasks:
            task.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                self._wake.clear()
                while self._news:
                    yield self._news.pop(next(iter(self._news)))
                for task in tasks:
                    if task.done():  # what breaks in it breaks here
                        task.result()
                await self._wake.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await arm.close()

    def _tell(self, seen: Observation) -> None:
        self._news[seen.scope] = seen
        self._wake.set()
