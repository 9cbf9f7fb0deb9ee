"""Which migrations bring a database to a schema, forth or back, and carrying them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from meshfed.catalog import viewing
from meshfed.catalog.database import Database
from meshfed.catalog.schema import _alembic, _pending


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
        raise Unmigratable(f"{to} is no schema of this version: it knows {', '.join(known)}")
    names = ["", *known]
    if here not in names:  # the next version's, which this one runs on as it is
        if to is None:
            return ()
        raise Unmigratable(f"{here} is undone by the version that made it: run this one there")
    start, end = names.index(here), names.index(to or names[-1])
    if end < start:
        return tuple(Step(names[n], names[n - 1], known[names[n]]) for n in range(start, end, -1))
    return tuple(Step(names[n], names[n + 1], known[names[n + 1]]) for n in range(start, end))


def planned(url: str, to: str | None = None) -> tuple[Step, ...]:
    """What `carried_out` would do; nothing is made. Raises Unmigratable, Newer, Away."""
    database = Database(url)
    try:
        if database.is_sqlite and not Path(str(database.url.database)).exists():
            return way(meanings(), "", to)
        return database.read(lambda connection: _steps(connection, to))
    finally:
        database.close()


def carried_out(url: str, to: str | None = None) -> tuple[Step, ...]:
    """Bring a database to a schema, or the newest; what was done.

    All in one transaction: it is done, or nothing is. Raises Unmigratable, Newer, Away.
    """
    database = Database(url)
    try:
        return database.write(lambda connection: bring(connection, to))
    finally:
        database.close()


def bring(connection: Connection, to: str | None = None) -> tuple[Step, ...]:
    from alembic import command

    steps = _steps(connection, to)
    newest = to in (None, [*meanings()][-1])
    if not steps and (not newest or viewing.complete(connection)):
        return ()
    with _alembic(connection) as (config, _), viewing.without(connection, newest=newest):
        if steps:
            move = command.downgrade if steps[0].back else command.upgrade
            move(config, steps[-1].after)
    return steps


def schema(connection: Connection) -> str:
    """The schema that a database has; "" before its first."""
    with _alembic(connection) as (_, applied):
        return max(applied, default="")


def meanings() -> Mapping[str, str]:
    """Every schema of this version, oldest first, and what it is for."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "meshfed:migrations")
    steps = [*ScriptDirectory.from_config(config).walk_revisions()][::-1]
    return {step.revision: step.doc.partition("\n")[0] for step in steps}


def _steps(connection: Connection, to: str | None) -> tuple[Step, ...]:
    _pending(connection)  # raises Newer
    return way(meanings(), schema(connection), to)
