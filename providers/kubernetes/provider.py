"""A Kubernetes cluster: the provider `kubernetes`."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from meshfed.catalog.model import Observation
from meshfed.providers.kubernetes.access import line
from meshfed.providers.kubernetes.cluster import Cluster
from meshfed.providers.kubernetes.options import options as read
from meshfed.providers.kubernetes.reflect import PACE, Pace
from meshfed.providers.kubernetes.review import Reviewer


class KubernetesProvider:
    """The services of a cluster's monitored namespaces, each a scope, as they change."""

    def __init__(
        self, *, name: str, options: Mapping[str, object], base: Path, pace: Pace = PACE
    ) -> None:
        self.name = name
        self._options = read(name, options, base)
        self._pace = pace
        self._wake = asyncio.Event()
        self._asked: list[str] = []

    async def refresh(self, scope: str) -> None:
        self._asked.append(scope)
        self._wake.set()

    def attestor(self) -> Reviewer:
        return Reviewer(self.name, line(self._options.where, self._pace))

    async def observe(self) -> AsyncGenerator[Observation, None]:
        api = line(self._options.where, self._pace)
        cluster = Cluster(self._options, api, self._pace, self._wake.set)
        cluster.begin()
        try:
            while True:
                self._wake.clear()
                while self._asked:
                    cluster.ask(self._asked.pop())
                async for seen in cluster.news():
                    yield seen
                fail(cluster.tasks.values())
                rest = cluster.due - self._pace.clock()
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest if rest < float("inf") else None):
                        await self._wake.wait()
        finally:
            await cluster.end()
            await api.close()


def fail(tasks: Iterable[asyncio.Task[None]]) -> None:
    """What breaks in a reflector breaks here."""
    for task in tasks:
        if task.done():
            task.result()
