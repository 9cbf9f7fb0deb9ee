"""How fast Azure comes into the catalog: `python machines.py [MACHINES SETS EACH]`.

A Resource Manager in another process lists that many virtual machines, and Uniform scale sets of
so many instances. They are read by Azure's SDK over TLS, resolved, compared and stored; then again,
unchanged; then one machine is deallocated.
"""

import asyncio
import gc
import json
import os
import resource
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from prometheus_client import CollectorRegistry

from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admin.logs import configure
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence
from meshfed.providers.azure.pace import Pace
from meshfed.providers.azure.provider import AzureProvider

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
ENVIRONMENT = {
    "AZURE_TENANT_ID": "00000000-0000-0000-0000-00000000000a",
    "AZURE_CLIENT_ID": "00000000-0000-0000-0000-00000000000c",
    "AZURE_CLIENT_SECRET": "of-nobody",
}
PAGE = 200
TICK = 0.005  # seconds between two looks whether the loop goes on


class Looks:
    """A provider's rests: after each look two, which end when the next one is wanted."""

    def __init__(self) -> None:
        self._rests = 0
        self._permits = asyncio.Semaphore(0)

    async def rest(self, seconds: float) -> None:
        self._rests += 1
        await self._permits.acquire()

    @property
    def made(self) -> int:
        return (self._rests + 1) // 2

    def another(self) -> None:
        self._permits.release()
        self._permits.release()


class Blocked:
    """How long nobody else could run."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, time.perf_counter() - begun - TICK)


class Manager:
    """The process that lists."""

    def __init__(self, cloud: dict[str, str]) -> None:
        self.cloud = cloud
        self._tls = ssl.create_default_context(cafile=cloud["ca"])

    async def spent(self, before: float = float("inf")) -> dict[str, float]:
        return await self._ask(f"/-/spent?before={before}")

    async def power(self, of: int, to: str) -> None:
        await self._ask(f"/-/power?of={of}&to={to}")

    async def _ask(self, path: str) -> dict[str, float]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.cloud['endpoint']}{path}", ssl=self._tls) as answer,
        ):
            text = await answer.text()
            return json.loads(text) if text else {}


@asynccontextmanager
async def manager(folder: Path, *sizes: int) -> AsyncIterator[Manager]:
    script = Path(__file__).with_name("manager.py")
    arguments = [script, folder, *map(str, sizes)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    said = folder / "manager.json"
    try:
        while not said.exists():  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(TICK)
        yield Manager(json.loads(said.read_text()))
    finally:
        process.kill()
        await process.wait()


class Measured:
    """A provider and its feed, look by look."""

    def __init__(self, folder: Path, there: Manager) -> None:
        self.there = there
        self.url = f"sqlite:///{folder}/catalog.db"
        migrate(self.url)
        self.catalog = Catalog(self.url)
        self.looks = Looks()
        self.blocked = Blocked()
        options = {
            "subscriptions": [SUBSCRIPTION],
            "cloud": there.cloud,
            "auth": "client_secret",
        }
        self.provider = AzureProvider(
            name="bench", options=options, base=folder, pace=Pace(60.0, rest=self.looks.rest)
        )
        self.feed: Feed

    def revision(self) -> int:
        ((found,),) = query(self.url, "select coalesce(max(revision), 0) from mesh_changes").rows
        return int(str(found))

    async def lead(self) -> None:
        """As `serve` writes."""
        await self.catalog.configure("bench.example", permissive=False)
        term = await self.catalog.take("bench", at_once=True)
        assert term is not None
        presence = Presence(Metrics(CollectorRegistry()))
        led = self.catalog.led(term)
        self.feed = Feed(self.provider, "azure", led, presence, time.monotonic)

    async def until(self, endpoints: int, looks: int) -> None:
        while self.looks.made < looks or self.feed.standing.endpoints != endpoints:  # noqa: ASYNC110
            await asyncio.sleep(TICK)

    async def look(self, endpoints: int, number: int, *, first: bool = False) -> dict[str, object]:
        """One look, until the catalog has so many endpoints."""
        before, revision = await self.there.spent(), self.revision()
        self.blocked.worst = 0.0
        began, used = time.perf_counter(), time.process_time()
        if not first:
            self.looks.another()
        await self.until(endpoints, number)
        took, used, ended = time.perf_counter() - began, time.process_time() - used, time.time()
        after = await self.there.spent()
        return {
            "took_s": round(took, 2),
            "of_which_manager_s": round(after["spent"] - before["spent"], 2),
            "cpu_s": round(used, 2),
            "after_last_answer_s": round(ended - after["last"], 2),
            "blocked_ms": round(1000 * self.blocked.worst),
            "calls": int(after["calls"] - before["calls"]),
            "revisions": self.revision() - revision,
            "rss_mb": memory(),
        }


def calls(machines: int, sets: int, each: int) -> int:
    """The formula of docs/azure.md, for private addresses."""
    pages = -(-machines // PAGE)
    nics = -(-(machines + 1) // PAGE)  # one is of a private endpoint
    return 2 * pages + nics + -(-sets // PAGE) + 2 * sets * -(-each // PAGE)


def memory() -> int:
    """The most that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def measured(folder: Path, machines: int, sets: int, each: int) -> dict[str, object]:
    endpoints = machines + sets * each
    async with manager(folder, machines, sets, each) as there:
        made = Measured(folder, there)
        await made.lead()
        gc.disable()  # as `serve` does until it is ready
        blocked = asyncio.create_task(made.blocked.run())
        running = asyncio.create_task(made.feed.run())
        try:
            first = await made.look(endpoints, 1, first=True)
            gc.freeze()  # as it does then
            gc.enable()
            again = await made.look(endpoints, 2)
            await there.power(7, "deallocated")
            changed = await made.look(endpoints - 1, 3)
        finally:
            for task in (running, blocked):
                task.cancel()
            await asyncio.gather(running, blocked, return_exceptions=True)
            made.catalog.close()
    return {
        "endpoints": endpoints,
        "calls_by_the_formula": calls(machines, sets, each),
        "first": first,
        "unchanged": again,
        "one_deallocated": changed,
    }


def main() -> None:
    sizes = [int(each) for each in sys.argv[1:]] or [20_000, 40, 100]
    os.environ.update(ENVIRONMENT)
    configure()
    with TemporaryDirectory(prefix="meshfed-bench-") as name:
        print(json.dumps(asyncio.run(measured(Path(name), *sizes)), indent=2))


if __name__ == "__main__":
    main()
