"""The admin API over real HTTP, of a mesh that stands as it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from meshfed.catalog.reports import ProxyState
from meshfed.federation.admin.app import bound, serve
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.propagation import Propagation

COUNTED = Metrics(CollectorRegistry()).turned_away  # of ports whose metrics nobody looks at


@dataclass
class Running:
    """A mesh that stands as it is told to."""

    reasons: tuple[str, ...] = ()
    doing_without: tuple[str, ...] = ()
    newest: int = 7
    connected: tuple[ProxyState, ...] = ()
    reached: Propagation | None = None
    waited: float = -1.0

    def unready(self) -> tuple[str, ...]:
        return self.reasons

    def degraded(self) -> tuple[str, ...]:
        return self.doing_without

    def replica(self) -> str:
        return "here-1"

    def leader(self) -> str:
        return "there-2"

    def revision(self) -> int:
        return self.newest

    def proxies(self) -> tuple[ProxyState, ...]:
        return self.connected

    async def settled(self, revision: int, seconds: float) -> Propagation | None:
        self.waited = seconds
        return self.reached if self.reached and self.reached.revision == revision else None


@asynccontextmanager
async def answering(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    listener = bound("127.0.0.1:0")
    port = listener.getsockname()[1]
    serving = asyncio.create_task(serve(api, listener, refused=COUNTED))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
