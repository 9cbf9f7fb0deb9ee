"""A database is brought to the tables of this release, from nothing, on both, and says so."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url

from meshfed.catalog import viewing
from meshfed.catalog.database import Database
from meshfed.catalog.migrating import Unfit, bring, config, meanings, migrate, number, pending
from meshfed.catalog.reader import query
from meshfed.catalog.schema import metadata
from meshfed.catalog.spelling import SPELT
from meshfed.catalog.views import VIEWS


@pytest.fixture
def empty_postgres(postgres_server: str) -> Iterator[str]:
    address = make_url(postgres_server)
    admin_url = address.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("drop database if exists meshfed_empty")
        admin.execute("create database meshfed_empty")
        yield address.set(database="meshfed_empty").render_as_string(hide_password=False)
        admin.execute("drop database meshfed_empty with (force)")


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database in which nothing was ever made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.db"
    found: str = request.getfixturevalue("empty_postgres")
    return found


def on(url: str, act: Any) -> Any:
    database = Database(url)
    try:
        return database.write(act)
    finally:
        database.close()


def objects(connection: Connection) -> set[str]:
    there = inspect(connection)
    return {*there.get_table_names(), *there.get_view_names()}


def test_the_migrations_come_to_exactly_the_metadata(empty: str) -> None:
    migrate(empty)

    def differences(connection: Connection) -> list[Any]:
        # SQLite keeps a default as it was written, so there it never equals the metadata's.
        defaults = connection.dialect.name == "postgresql"
        opts = {"compare_type": True, "compare_server_default": defaults}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, metadata))

    assert on(empty, differences) == []


def test_migrating_is_done_once_and_named(empty: str) -> None:
    steps = pending(empty)
    assert steps[0] == "0001"
    assert migrate(empty) == steps
    assert pending(empty) == []
    assert migrate(empty) == []


def test_migrating_back_leaves_nothing_and_forth_again_everything(empty: str) -> None:
    migrate(empty)

    def back(connection: Connection) -> None:
        viewing.drop(connection)
        command.downgrade(config(connection), "base")

    on(empty, back)
    assert on(empty, objects) == {"alembic_version"}
    migrate(empty)
    wanted = {*metadata.tables, *(view.name for view in VIEWS), "alembic_version"}
    assert on(empty, objects) == wanted


async def test_two_that_migrate_at_once_take_turns(empty: str) -> None:
    done = await asyncio.gather(*(asyncio.to_thread(migrate, empty) for _ in range(3)))
    assert sorted(map(len, done)) == [0, 0, len(done[0]) or len(done[1]) or len(done[2])]


def test_a_newer_schema_is_refused_with_what_to_do(empty: str) -> None:
    migrate(empty)
    on(empty, lambda c: c.execute(text("update alembic_version set version_num = '9999'")))
    for asked in (pending, migrate):
        with pytest.raises(Unfit, match=r"9999.*upgrade meshfed"):
            asked(empty)


@pytest.mark.parametrize(("ahead", "runs"), [(0, True), (1, True), (2, False)])
def test_a_release_runs_on_the_schema_of_the_next_one(empty: str, ahead: int, runs: bool) -> None:
    newest = migrate(empty)[-1]
    name = f"{number(newest) + ahead:04}z"
    on(empty, lambda c: c.execute(text(f"update alembic_version set version_num = '{name}'")))
    for asked in (pending, migrate):
        with nullcontext() if runs else pytest.raises(Unfit, match=f"{name}.*upgrade meshfed"):
            assert asked(empty) == []


def test_a_migration_that_fails_leaves_nothing(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(connection: Connection) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(viewing, "create", broken)
        with pytest.raises(RuntimeError, match="power cut"):
            migrate(empty)
    assert on(empty, objects) == set()
    assert migrate(empty)


def test_how_providers_stand_is_known_from_the_migration_on(empty: str) -> None:
    def first_release(connection: Connection) -> None:
        command.upgrade(config(connection), "0001")
        said = "insert into scopes (provider, scope, type, state, doubt) values "
        connection.execute(text(said + "('rack', 'rack/a', 'hosts', 'doubted', 'gone')"))
        connection.execute(text("insert into orders (provider, paused) values ('rack', true)"))
        at = "2026-11-23T12:00:00.000Z"
        connection.execute(text(f"update state set revision = 7, at = '{at}'".replace(":", r"\:")))

    on(empty, first_release)
    migrate(empty)
    asked = "select state, doubt, valid_from, valid_to from mesh_provider_history"
    assert query(empty, asked).rows == (("paused", "gone", "2026-11-23T12:00:00.000Z", None),)


def test_a_view_that_changed_is_made_anew(empty: str) -> None:
    migrate(empty)

    def body(connection: Connection) -> str:
        return str(inspect(connection).get_view_definition("mesh_proxy_sync"))

    def before(connection: Connection) -> str:
        bring(connection, [*meanings()][-2])
        connection.execute(text("drop view mesh_proxy_sync"))
        connection.execute(text("create view mesh_proxy_sync as select * from proxy_sync"))
        return body(connection)

    new = on(empty, body)
    assert on(empty, before) != new
    assert migrate(empty) == [[*meanings()][-1]]
    assert on(empty, body) == new


def test_the_newest_migration_is_of_the_views_as_they_are() -> None:
    """Views are made again around a migration: without one, no catalog gets those that changed."""
    scripts = ScriptDirectory.from_config(config())
    newest = scripts.get_revision("head")
    views = hashlib.sha256(repr((VIEWS, SPELT)).encode()).hexdigest()[:16]
    why = f"the views changed: add a migration after {newest.revision}, with VIEWS = {views!r}"
    assert getattr(newest.module, "VIEWS", None) == views, why
