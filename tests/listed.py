"""A host list on disk, and what its provider sees of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from meshfed.catalog.model import Observation
from meshfed.providers.hosts import HostsProvider
from meshfed.providers.names import Names


def host(name: str, address: str, more: str = "") -> str:
    said = f"name: {name}, address: {address}, service: store.shop, port: 80, identity: store.shop"
    return f"  - {{{said}{more}}}\n"


class File:
    """A host list on disk, and the ways in which people write it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def replace(self, text: str) -> None:
        beside = self.path.with_name("new")
        beside.write_text(text)
        beside.replace(self.path)

    def provider(self, names: Names | None = None) -> HostsProvider:
        options = {"path": self.path.name}
        return HostsProvider(name="rack", options=options, base=self.path.parent, names=names)


class Seeing:
    def __init__(self, observations: AsyncIterator[Observation]) -> None:
        self._observations = observations

    async def next(self) -> Observation:
        async with asyncio.timeout(10):
            return await anext(self._observations)

    async def until(self, addresses: set[str]) -> Observation:
        while True:
            seen = await self.next()
            if {endpoint.address for endpoint in seen.endpoints} == addresses:
                return seen


@asynccontextmanager
async def seeing(provider: HostsProvider) -> AsyncIterator[Seeing]:
    async with aclosing(provider.observe()) as observations:
        yield Seeing(observations)
