"""How fast a cluster comes into the catalog: `python clusters.py [SLICES] [pods]`.

An API server in another process has that many EndpointSlices of ten endpoints, each of a service
of its own; with `pods` each endpoint has a pod. They are listed, and then one endpoint of one of
them is changed, 2,000 times a second. The clock runs from before the first connection until the
commit: what the API server takes to send is in it, on the same cores.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import aiohttp
import yaml
from apiserver import EACH, NAMESPACE
from figures import percentile
from prometheus_client import CollectorRegistry

from meshfed.catalog.model import Endpoint, Known, Observation
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation import garbage
from meshfed.federation.admin.logs import configure
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence
from meshfed.providers.kubernetes.provider import KubernetesProvider

RATE = 2000  # changes a second
SECONDS = 10.0
TICK = 0.005  # seconds between two looks whether the loop goes on


class Written(Catalog):
    """The catalog, with a note of how late it has what."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lags: list[float] = []  # seconds since a change was sent

    async def believe(self, *known: Known, kind: str, cause: str, who: str = "") -> int | None:
        revision = await super().believe(*known, kind=kind, cause=cause, who=who)
        now = time.time()
        self.lags += [now - sent for one in known if (sent := changed(one.endpoints))]
        return revision


class Watched:
    """The provider, with a note of what it tells when."""

    def __init__(self, provider: KubernetesProvider) -> None:
        self.name = provider.name
        self.told = 0
        self.lags: list[float] = []  # seconds since a change was sent
        self._provider = provider

    async def refresh(self, scope: str) -> None:
        await self._provider.refresh(scope)

    async def observe(self) -> AsyncGenerator[Observation, None]:
        async with aclosing(self._provider.observe()) as observations:
            async for seen in observations:
                self.told += 1
                if sent := changed(seen.endpoints):
                    self.lags.append(time.time() - sent)
                yield seen


def changed(endpoints: Iterable[Endpoint]) -> float:
    """When the API server sent a change of one of them: its zone says so. 0 if none was."""
    zones = {e.locality.zone for e in endpoints}
    return max((float(zone) for zone in zones if not zone.startswith("zone")), default=0.0)


class Blocked:
    """How long nobody else could run."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, time.perf_counter() - begun - TICK)


@asynccontextmanager
async def apiserver(count: int, *, pods: bool) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).with_name("apiserver.py"),
        str(count),
        "pods" if pods else "",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


def kubeconfig(folder: Path, host: str) -> Path:
    path = folder / "kubeconfig.yaml"
    written = {
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [{"name": "bench", "cluster": {"server": host}}],
        "users": [{"name": "bench", "user": {"token": "bench"}}],
    }
    path.write_text(yaml.safe_dump(written))
    return path


async def measured(folder: Path, count: int, *, pods: bool) -> dict[str, object]:
    url = f"sqlite:///{folder}/catalog.db"
    migrate(url)
    handle = Written(url)
    await handle.configure("bench.example", permissive=False)
    term = await handle.take("bench", at_once=True)
    assert term is not None
    catalog = handle.led(term)  # as `serve` writes
    async with apiserver(count, pods=pods) as host:
        before = memory()
        options = {"kubeconfig": str(kubeconfig(folder, host)), "namespaces": [NAMESPACE]}
        watched = Watched(KubernetesProvider(name="bench", options=options, base=folder))
        presence = Presence(Metrics(CollectorRegistry()))
        feed = Feed(watched, "kubernetes", catalog, presence, time.monotonic)
        blocked = Blocked()
        garbage.loading()  # as `serve` does
        began, used = time.perf_counter(), time.process_time()
        running = [asyncio.create_task(each) for each in (feed.run(), blocked.run())]
        while watched.told < count:  # noqa: ASYNC110  # whoever tells knows of nobody
            await asyncio.sleep(TICK)
        told = time.perf_counter() - began
        while feed.standing.endpoints < count * EACH:  # noqa: ASYNC110
            await asyncio.sleep(TICK)
        listed = {
            "slices": count,
            "endpoints": count * EACH,
            "pods": pods,
            "told_s": round(told, 2),
            "in_catalog_s": round(time.perf_counter() - began, 2),
            "cpu_s": round(time.process_time() - used, 2),
            "blocked_ms": round(1000 * blocked.worst),
            "rss_mb": memory(),
            "rss_before_mb": before,
        }
        blocked.worst = 0.0
        garbage.settled()  # as it does then
        moved = await change(host, catalog, watched)
        moved["blocked_ms"] = round(1000 * blocked.worst)
        moved["rss_mb"] = memory()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    handle.close()
    return {"listed": listed, "changed": moved}


async def change(host: str, catalog: Written, watched: Watched) -> dict[str, object]:
    """All that was sent until it is written; of several changes that wait, the last is."""
    catalog.lags.clear()
    watched.lags.clear()
    used = time.process_time()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{host}/change?rate={RATE}&seconds={SECONDS}") as answer,
    ):
        sent = await answer.json()
    used = time.process_time() - used
    said = {
        "per_second": round(sent["sent"] / sent["seconds"]),
        "cpu_us_per_change": round(1e6 * used / sent["sent"]),
        "apiserver_cpu_us_per_change": round(1e6 * sent["cpu"] / sent["sent"]),
    }
    return said | late("told", watched.lags) | late("written", catalog.lags)


def late(what: str, lags: list[float]) -> dict[str, object]:
    some = max(1, len(lags) // 10)
    return {
        what: len(lags),
        f"{what}_first_tenth_ms": round(1000 * median(lags[:some]), 1),
        f"{what}_last_tenth_ms": round(1000 * median(lags[-some:]), 1),
        f"{what}_p99_ms": round(1000 * percentile(lags, 0.99), 1),
    }


def memory() -> int:
    """The most that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    configure()
    with TemporaryDirectory(prefix="meshfed-bench-") as name:
        said = asyncio.run(measured(Path(name), count, pods="pods" in sys.argv))
    print(json.dumps(said, indent=2))


if __name__ == "__main__":
    main()
