"""All that the provider `kubernetes` tells and asks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from kube.cluster import Cluster

from meshfed.catalog.model import Observation
from meshfed.demo.kube.http import Call
from meshfed.providers.kubernetes.provider import KubernetesProvider

PATIENCE = 10.0


def calls(cluster: Cluster) -> list[Call]:
    """What the provider asked: the tests themselves neither list nor watch."""
    return [call for call in cluster.server.api.calls if call.verb in ("list", "watch")]


class Told:
    """All that a provider told, the newest of each scope."""

    def __init__(self, provider: KubernetesProvider) -> None:
        self.provider = provider
        self.newest: dict[str, Observation] = {}
        self.all: list[Observation] = []
        self._moved = asyncio.Event()

    async def run(self) -> None:
        async for seen in self.provider.observe():
            self.newest[seen.scope] = seen
            self.all.append(seen)
            self._moved.set()

    def at(self, scope: str = "aks/shop/web") -> list[str]:
        seen = self.newest.get(scope)
        return sorted(each.address for each in seen.endpoints) if seen else []

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                self._moved.clear()
                await self._moved.wait()

    async def has(self, *addresses: str, scope: str = "aks/shop/web") -> Observation:
        await self.until(lambda: scope in self.newest and self.at(scope) == sorted(addresses))
        return self.newest[scope]


@asynccontextmanager
async def telling(provider: KubernetesProvider) -> AsyncIterator[Told]:
    told = Told(provider)
    running = asyncio.create_task(told.run())
    try:
        yield told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
