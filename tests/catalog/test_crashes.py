"""Killed in the middle of an ingest, again and again: what was reported as stored is there."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from ingest import SCOPES, cause, observation
from postgres import Postgres, started
from sqlalchemy import Connection, text

from meshfed.catalog.database import Database
from meshfed.catalog.store import migrate

ROUNDS = 200
SERVER_TOO = 8  # in every so many rounds, Postgres itself is killed
INGEST = Path(__file__).parents[1] / "ingest.py"
VERSIONED = {
    "endpoints": "provider, scope, service, port, address, target",
    "workloads": "workload",
    "services": "service",
    "statements": "provider, scope, service",
}


@dataclass
class Ingest:
    """The program in a process of its own, and what it has reported."""

    url: str
    stored: list[int] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        command = [sys.executable, INGEST, self.url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.program = subprocess.Popen(command, **pipes)

    def killed_after(self, seconds: float, *, going: bool, also: Callable[[], None] | None) -> None:
        """Go on where it was, and die with SIGKILL so long after it began, or was `going`."""
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(f"{len(self.stored)}\n")
        pid = int(self.program.stdout.readline().removeprefix("pid "))
        try:
            if going:
                self.reported(self.program.stdout.readline())
            time.sleep(seconds)  # the moment is the test
            if also is not None:
                also()
        finally:
            os.kill(pid, signal.SIGKILL)
        for line in iter(self.program.stdout.readline, "ended\n"):
            self.reported(line)

    def reported(self, line: str) -> None:
        n, revision = line.split()
        assert int(n) == len(self.stored)
        self.stored.append(int(n))
        if revision != "None":  # it had been stored before it could be reported
            self.revisions.append(int(revision))

    def close(self) -> None:
        self.program.communicate()
        assert self.program.returncode == 0


def sound(connection: Connection, since: int) -> int:
    """The newest revision of a catalog that is whole; only what is newer than `since` is checked.

    Raises AssertionError.
    """
    if connection.dialect.name == "sqlite":
        assert connection.exec_driver_sql("pragma integrity_check").all() == [("ok",)]
        assert connection.exec_driver_sql("pragma foreign_key_check").all() == []
    newest = int(connection.scalar(text("select revision from state")))
    told = "select distinct revision from changes where revision > :since order by 1"
    found = connection.scalars(text(told), {"since": since}).all()
    assert found == list(range(since + 1, newest + 1))  # strictly increasing, none is missing
    for table, key in VERSIONED.items():
        torn = (
            f"select id from {table} where valid_to_revision <= valid_from_revision"
            " or valid_from_revision > :newest or valid_to_revision > :newest"
        )
        assert connection.execute(text(torn), {"newest": newest}).all() == []
        # Versions of one thing follow each other: never two at a time.
        double = (
            "select id from (select id, valid_from_revision, lag(coalesce(valid_to_revision,"
            f" 1000000000)) over (partition by {key} order by valid_from_revision) before"
            f" from {table} where coalesce(valid_to_revision, :newest) >= :since) versions"
            " where before > valid_from_revision"
        )
        assert connection.execute(text(double), {"since": since, "newest": newest}).all() == []
    return newest


def whole(connection: Connection, stored: list[int], known: int) -> None:
    """Everything reported is there, and of what was under way all or nothing.

    Of those before the `known` ones this was found before.
    """
    counted = "select cause, count(*) from endpoints where weight > :known group by cause"
    found = connection.execute(text(counted), {"known": known})
    versions = {row.cause: row[1] for row in found}
    for n in stored[known:]:
        assert versions[cause(n)] == len(observation(n).endpoints)
    there = connection.execute(
        text("select scope, address, weight from endpoints where valid_to_revision is null")
    ).all()
    hosts = connection.execute(
        text("select scope, name from workloads where valid_to_revision is null")
    ).all()
    for place in range(SCOPES):
        weights = {row.weight for row in there if row.scope == f"rack/{place}"}
        last = max((n for n in stored if n % SCOPES == place), default=None)
        if not weights:
            assert last is None
            continue
        (weight,) = weights  # of one observation
        assert weight - 1 in (last, len(stored))  # the last one reported, or the one under way
        seen = observation(weight - 1)
        addresses = {row.address for row in there if row.scope == seen.scope}
        assert addresses == {endpoint.address for endpoint in seen.endpoints}
        names = {row.name for row in hosts if row.scope == seen.scope}
        assert names == {host.name for host in seen.workloads}


def crash(url: str, rounds: int, longest: float, server: Postgres | None = None) -> Ingest:
    """Kill it so many times, at moments that are the same in every run, and look each time."""
    moments = random.Random(200)
    ingest = Ingest(url)
    newest = 0
    with closing(ingest):
        for n in range(rounds):
            known = len(ingest.stored)
            too = server if n % SERVER_TOO == SERVER_TOO - 1 else None
            ingest.killed_after(
                moments.uniform(0.0, longest), going=bool(n % 3), also=too and partial(killed, too)
            )
            if too is not None:
                too.start()
            with closing(Database(url)) as database:
                newest = database.read(lambda c, newest=newest: sound(c, newest))
                database.read(lambda c, known=known: whole(c, ingest.stored, known))
    assert ingest.revisions == sorted(set(ingest.revisions))
    assert not ingest.revisions or newest >= ingest.revisions[-1]
    return ingest


def test_killed_five_times_everything_reported_is_there(url: str) -> None:
    assert len(crash(url, 5, 0.1).stored) >= 3


# The large numbers


def killed(postgres: Postgres) -> None:
    """All of its processes at once, as when the machine's memory is out."""
    pid = postgres.server.get_pid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    while any(Path(f"/proc/{process}").exists() for process in (pid, *children)):
        time.sleep(0.01)


@pytest.mark.soak
def test_killed_200_times_on_sqlite(sqlite_url: str) -> None:
    ingest = crash(sqlite_url, ROUNDS, 0.4)
    print(f"{len(ingest.stored)} observations stored on SQLite through {ROUNDS} kills")


@pytest.mark.soak
def test_killed_200_times_on_postgres_which_is_killed_too() -> None:
    with started() as postgres:
        migrate(postgres.url)
        ingest = crash(postgres.url, ROUNDS, 0.4, postgres)
    print(
        f"postgres: {len(ingest.stored)} observations, {len(ingest.revisions)} reported revisions"
    )
