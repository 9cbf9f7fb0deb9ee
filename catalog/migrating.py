"""Which migrations bring a database to a schema, forth or back, and carrying them out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect

from meshfed import migrations
from meshfed.catalog import viewing
from meshfed.catalog.database import Database

NUMBER = re.compile(r"\d+")
VERSIONS = Path(migrations.__path__[0]) / "versions"
VERSION = "alembic_version"  # Alembic's own, which stays when all others are gone
OURS = {VERSION, "state", "scopes"}  # of every schema


class Unfit(ValueError):
    """The database is somebody else's, or of a meshfed two releases later than this one."""


class Unmigratable(ValueError):
    """There is no way to that schema; one line, with what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One migration: from which schema to which, "" being none, and what the later one is for."""

    before: str
    after: str
    meaning: str

    @property
    def back(self) -> bool:
        return self.after < self.before


def way(known: Mapping[str, str], here: str, to: str | None) -> tuple[Step, ...]:
    """From a schema to another, or the newest; those `known`, oldest first, have a meaning."""
    if to is not None and to not in known:
        raise Unmigratable(f"{to!r} is no schema of this version: it knows {', '.join(known)}")
    names = ["", *known]
    if here not in names and not follows(here, names[-1]):
        raise Unfit(
            f"the catalog's schema is {here} and this meshfed knows it up to {names[-1]}, "
            "and runs on the next: upgrade meshfed, or restore a backup of that schema"
        )
    if here not in names:  # the next version's, which this one runs on as it is
        if to is None:
            return ()
        raise Unmigratable(f"{here} is undone by the version that made it: run this one there")
    start, end = names.index(here), names.index(to or names[-1])
    if end < start:
        return tuple(Step(names[n], names[n - 1], known[names[n]]) for n in range(start, end, -1))
    return tuple(Step(names[n], names[n + 1], known[names[n + 1]]) for n in range(start, end))


def follows(schema: str, known: str) -> bool:
    """Whether a schema is the one after: it has more, and what it no longer has goes one later.

    The number is the release's: its first migration is 0007, its second 0007b.
    """
    return number(known) <= number(schema) <= number(known) + 1


def number(schema: str) -> int:
    digits = NUMBER.match(schema)
    return int(digits[0]) if digits else -1


def pending(url: str) -> list[str]:
    """The migrations that a database lacks, oldest first. Raises Unfit, Away."""
    return [step.after for step in planned(url)]


def migrate(url: str) -> list[str]:
    """Bring a database to the newest tables and views; what was applied. Raises Unfit, Away."""
    return [step.after for step in carried_out(url)]


def planned(url: str, to: str | None = None) -> tuple[Step, ...]:
    """What `carried_out` would do; nothing is made. Raises Unmigratable, Unfit, Away."""
    database = Database(url)
    try:
        if database.is_sqlite and not Path(str(database.url.database)).exists():
            return way(meanings(), "", to)
        return database.read(lambda connection: _steps(connection, to))
    finally:
        database.close()


def carried_out(url: str, to: str | None = None) -> tuple[Step, ...]:
    """Bring a database to a schema, or the newest; what was done.

    All in one transaction: it is done, or nothing is. Two that start at once take turns.
    Raises Unmigratable, Unfit, Away.
    """
    database = Database(url)
    try:
        return database.write(lambda connection: bring(connection, to))
    finally:
        database.close()


def bring(connection: Connection, to: str | None = None) -> tuple[Step, ...]:
    steps = _steps(connection, to)
    newest = to in (None, [*meanings()][-1])
    if not steps and (not newest or viewing.complete(connection)):
        return ()
    from alembic import command  # a fifth of a second that only migrations should pay

    with viewing.without(connection, newest=newest):
        if steps:
            move = command.downgrade if steps[0].back else command.upgrade
            move(config(connection), steps[-1].after)
    return steps


def schema(connection: Connection) -> str:
    """The schema that a database has; "" before its first."""
    if not inspect(connection).has_table(VERSION):
        return ""
    return str(connection.exec_driver_sql(f"select version_num from {VERSION}").scalar() or "")


@cache
def meanings() -> Mapping[str, str]:
    """Every schema of this version, oldest first, and what it is for.

    As the files are called and begin: what Alembic knows of them takes a tenth of a second.
    """
    files = sorted(VERSIONS.glob("[0-9]*.py"))
    return {file.name.partition("_")[0]: _first_line(file) for file in files}


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as text:
        return text.readline().strip().strip('"')


def config(connection: Connection | None = None) -> Any:
    """Alembic's own, which has no types."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", "meshfed:migrations")
    made.attributes["connection"] = connection
    return made


def _steps(connection: Connection, to: str | None) -> tuple[Step, ...]:
    here, there = schema(connection), {*inspect(connection).get_table_names()}
    others = sorted(there - {VERSION})
    if (others or here) and not there >= OURS:
        told = ", ".join(others[:3]) + ", …" * bool(others[3:])
        raise Unfit(
            f"this database has tables that meshfed did not make ({told}):"
            " give the catalog a database of its own"
        )
    return way(meanings(), here, to)
