"""How late leases are written: `python deploy/bench/leases.py [MACHINES [SECONDS [postgres]]]`.

The machines join first (joins.py). Then the control plane is started again, and an agent of each
comes back, keeps its connection, and says that it lives every third of its lease. What is measured
is from the moment when a word is due until the catalog has it.
"""

import asyncio
import json
import random
import ssl
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from figures import Figure, Json, told
from ground import PROCESSES, Ground, grounded
from joins import LEASE as UNHEARD
from joins import Joins, joins, named
from scale import on_postgres, on_sqlite

from meshfed.catalog.byhand import PROVIDER, scope
from meshfed.catalog.database import Database
from meshfed.catalog.model import workload_id
from meshfed.catalog.plain import Plain
from meshfed.catalog.reader import query
from meshfed.catalog.times import seconds as moment
from meshfed.catalog.times import stamp

LEASE = 30.0  # seconds, as it is without another word
COMING = 25.0  # seconds in which agents come back
SETTLING = 20.0  # seconds until what that left behind is over
GLANCE = 0.05  # seconds between two looks into the catalog
CLOCKS = 0.002  # seconds: times in the catalog are whole milliseconds

COUNTS = ("agents", "seconds", "rate", "cpu", "resident", "connections", "missed", "silent")

WRITTEN = Plain("select workload, lease_until from joined where lease_until >= :since")


@dataclass(frozen=True, slots=True)
class Word:
    """A sign of life. Seconds since the epoch."""

    workload: str
    due: float
    answered: float  # or refused, or lost


@dataclass(slots=True)
class Said:
    """By the agents of one process."""

    words: list[Word] = field(default_factory=list)
    connections: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Leases:
    """What was measured, from when all agents had come back. Milliseconds are of each word."""

    agents: int
    seconds: float
    rate: float  # words a second
    cpu: float  # milliseconds of a core that the control plane had for each
    resident: float  # megabytes of the control plane
    connections: int  # made in that time
    failed: tuple[str, ...]
    missed: int  # words that were never written
    silent: int  # machines that were taken for silent
    lag: tuple[float, ...]  # from due to written
    health: tuple[float, ...]

    def __str__(self) -> str:
        words = f"{self.agents:,} leases renewed for {self.seconds:.0f} s, {self.rate:.0f} words/s"
        lost = (
            f"{self.missed} not written, {self.silent} taken for silent, {len(self.failed)} failed"
        )
        cost = f"{self.cpu:.2f} ms of a core of the control plane for each, {self.resident:.0f} MB"
        return f"{words}: {lost}; {self.connections} new connections; {cost}"

    def told(self) -> Json:
        found = {name: getattr(self, name) for name in COUNTS}
        return {**found, "figures": [told(each) for each in self.figures()]}

    def figures(self) -> list[Figure]:
        return [
            Figure("a lease: due → written", self.lag, f"a word each {LEASE / 3:.0f} s"),
            Figure("/healthz while leases are renewed", self.health, "from another process"),
        ]


async def leases(ground: Ground, machines: int, seconds: float) -> Leases:
    loop = asyncio.get_running_loop()
    begin = time.time() + 5  # when each process has read its papers
    all_there = begin + COMING + SETTLING
    end = all_there + seconds
    with ProcessPoolExecutor(PROCESSES) as pool, written(ground) as seen:
        jobs = (
            partial(live, ground.port, ground.machines, range(n, machines, PROCESSES), begin, end)
            for n in range(PROCESSES)
        )
        running = [loop.run_in_executor(pool, job) for job in jobs]
        await asyncio.sleep(all_there - time.time())
        spent, came = ground.spent(), stamp(time.time())
        with ground.healthy() as health:
            await asyncio.sleep(end - time.time())
        cpu = ground.spent() - spent
        resident = ground.resident()
        said = await asyncio.gather(*running)
        await asyncio.sleep(3)
    words = [each for some in said for each in some.words if all_there <= each.due < end - 2]
    lags = [lag(each, seen[each.workload]) for each in words]
    heard = [each for each in lags if each is not None]
    silent = f"select count(*) from mesh_changes where change like 'silent:%' and at > '{came}'"
    return Leases(
        machines,
        seconds,
        len(words) / (seconds - 2),
        1000 * cpu / (len(words) * seconds / (seconds - 2)),
        resident,
        sum(each.connections for each in said) - machines,
        tuple(why for each in said for why in each.failed),
        len(lags) - len(heard),
        int(str(query(ground.settings.catalog, silent).rows[0][0])),
        tuple(1000 * each for each in heard),
        tuple(health),
    )


def lag(word: Word, written: Sequence[tuple[float, float]]) -> float | None:
    """Seconds until it was seen in the catalog; None where it never was."""
    at = bisect_left(written, (word.due - CLOCKS, 0.0))
    if at == len(written) or written[at][0] > word.answered + CLOCKS:
        return None
    return written[at][1] - word.due


@contextmanager
def written(ground: Ground) -> Iterator[dict[str, list[tuple[float, float]]]]:
    """By workload, when each of its words was heard, and when that was seen in the catalog."""
    seen: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    over = Event()

    def look() -> None:
        since, last = "", {}
        with closing(Database(ground.settings.catalog)) as database:
            while not over.wait(GLANCE):
                now = time.time()
                for workload, until in database.read(partial(WRITTEN.rows, since=since)):
                    if last.get(workload) != until:
                        last[workload] = until
                        seen[workload].append((moment(until) - LEASE, now))
                    since = max(since, until)

    thread = Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


# The agents, in processes of their own


def live(port: int, folder: Path, numbers: range, begin: float, end: float) -> Said:
    return asyncio.run(_live(port, folder, numbers, begin, end))


async def _live(port: int, folder: Path, numbers: range, begin: float, end: float) -> Said:
    said, chance = Said(), random.Random(numbers.start)
    async with asyncio.TaskGroup() as tasks:
        for n in numbers:
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
            made.load_cert_chain(folder / named(n))
            agent = Agent(port, made, workload_id(PROVIDER, scope(named(n)), named(n)), said)
            tasks.create_task(agent.run(begin + COMING * chance.random(), end))
            await asyncio.sleep(0)
    return said


class Agent:
    """Says that its machine lives, as federation/agent/reporting.py does, without a machine."""

    def __init__(self, port: int, tls: ssl.SSLContext, workload: str, said: Said) -> None:
        self._port = port
        self._tls = tls
        self._workload = workload
        self._said = said
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, due: float, end: float) -> None:
        while due < end:
            await asyncio.sleep(due - time.time())
            began = time.time()
            try:
                every = await self._tell() / 3
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                self._said.failed.append(str(error) or type(error).__name__)
                self._line, every = None, 1.0
            self._said.words.append(Word(self._workload, due, time.time()))
            due = began + every
        if self._line is not None:
            self._line[1].transport.abort()

    async def _tell(self) -> float:
        if self._line is None:
            self._line = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
            self._said.connections += 1
        reader, writer = self._line
        writer.write(WORD)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise ValueError(body)
        return float(body["lease"])


BODY = json.dumps({"untrusted_draining": "", "untrusted_lost": "", "untrusted_failing": {}})
WORD = (
    "POST /v1/lease HTTP/1.1\r\nhost: 127.0.0.1\r\naccept-encoding: identity\r\n"
    f"content-length: {len(BODY)}\r\ncontent-type: application/json\r\n\r\n{BODY}"
).encode()


async def joined_and_renewed(
    folder: Path, catalog: str, machines: int, seconds: float
) -> tuple[Joins, Leases]:
    async with grounded(folder, catalog, UNHEARD) as ground:
        joined = await joins(ground, machines)
    async with grounded(folder, catalog, f"{LEASE:.0f}s") as ground:
        return joined, await leases(ground, machines, seconds)


def main(machines: str = "5000", seconds: str = "60", database: str = "sqlite") -> None:
    with (
        (on_postgres if database == "postgres" else on_sqlite)() as urls,
        TemporaryDirectory(prefix="meshfed-bench-") as folder,
    ):
        found = asyncio.run(joined_and_renewed(Path(folder), urls(), int(machines), float(seconds)))
    for each in found:
        print(each, *map(str, each.figures()), sep="\n  ")


if __name__ == "__main__":
    main(*sys.argv[1:])
