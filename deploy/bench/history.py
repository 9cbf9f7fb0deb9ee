"""What history costs: bytes for each change, and how long a writer may wait for pruning.

Alone, on a new catalog of your choice: `python deploy/bench/history.py postgresql+psycopg://…`.
"""

import asyncio
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import given
import psycopg
from figures import percentile
from sqlalchemy import Connection, text

from meshfed.catalog.database import Database, database_url
from meshfed.catalog.model import Known
from meshfed.catalog.store import Catalog, migrate
from meshfed.providers.hostfile import check

SCOPE = 100  # endpoints, of which one changes
CHANGES = 1_000

SIZES = {
    "sqlite": "select (select page_count from pragma_page_count())"
    " * (select page_size from pragma_page_size())",
    "postgresql": "select sum(pg_total_relation_size(oid)) from pg_class"
    " where relkind = 'r' and relnamespace = cast(current_schema() as regnamespace)",
}


@dataclass(frozen=True, slots=True)
class Growth:
    database: str
    bytes_per_change: float
    again: float  # for as many changes once more, after pruning
    step_ms: float
    step_p95_ms: float

    def __str__(self) -> str:
        return (
            f"history: {self.bytes_per_change:,.0f} bytes for each change on {self.database}"
            f" ({CHANGES:,} changes of one endpoint), {self.again:,.0f} more once it was pruned;"
            f" a step of that takes {self.step_ms:.1f} ms, p95 {self.step_p95_ms:.1f} ms"
        )


async def history(url: str) -> Growth:
    """On a catalog that is new."""
    await asyncio.to_thread(migrate, url)
    with closing(Catalog(url)) as catalog, closing(Database(url)) as database:
        await changed(catalog, 1)
        empty = database.read(size)
        await changed(catalog, CHANGES)
        full = database.read(size)
        steps = await pruned(catalog)
        vacuumed(url)
        await changed(catalog, CHANGES)
        again = database.read(size)
    return Growth(
        database.url.get_backend_name(),
        (full - empty) / CHANGES,
        (again - full) / CHANGES,
        median(steps),
        percentile(steps, 0.95),
    )


async def changed(catalog: Catalog, times: int) -> None:
    """The first endpoint weighs something else each time."""
    lists = [known(given.host_list(SCOPE, weight=weight)) for weight in (2, 3)]
    for turn in range(times):
        await catalog.believe(lists[turn % 2], kind="hosts", cause="hosts.yaml changed")


def known(text: str) -> Known:
    seen = check(text, "hosts.yaml", provider="rack", kind="meshfed")
    return Known("rack", seen.scope, seen.services, seen.workloads, seen.endpoints)


async def pruned(catalog: Catalog) -> list[float]:
    """Milliseconds of each step, until all that has ended is gone."""
    steps = []
    while True:
        began = time.perf_counter()
        gone = await catalog.prune(time.time())
        if not gone:
            return steps
        steps.append(1000 * (time.perf_counter() - began))


def vacuumed(url: str) -> None:
    """What autovacuum does by itself, a minute later."""
    if url.startswith("sqlite"):
        return
    address = database_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("vacuum")


def size(connection: Connection) -> int:
    return int(connection.execute(text(SIZES[connection.dialect.name])).scalar_one())


if __name__ == "__main__":
    with TemporaryDirectory(prefix="meshfed-bench-") as folder:
        for one in sys.argv[1:] or [f"sqlite:///{Path(folder) / 'history.db'}"]:
            print(asyncio.run(history(one)))
