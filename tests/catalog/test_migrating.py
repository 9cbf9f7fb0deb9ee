"""Up to this version's tables and back, one migration at a time, with what people rely on."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from meshfed.catalog.database import Database
from meshfed.catalog.migrating import (
    Step,
    Unfit,
    Unmigratable,
    carried_out,
    config,
    meanings,
    migrate,
    pending,
    planned,
    way,
)
from meshfed.catalog.reader import Refused, query
from meshfed.catalog.viewing import NAMES, READER, NoRole, drop, let_read

KNOWN = {"0001": "first", "0002": "second", "0003": "third"}


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database in which nothing was ever made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.db"
    found: str = request.getfixturevalue("empty_postgres")
    return found


@pytest.fixture
def empty_postgres(postgres_server: str) -> Iterator[str]:
    address = make_url(postgres_server)
    with psycopg.connect(dialled(postgres_server), autocommit=True) as admin:
        admin.execute("drop database if exists meshfed_steps")
        admin.execute("create database meshfed_steps")
        yield address.set(database="meshfed_steps").render_as_string(hide_password=False)
        admin.execute("drop database meshfed_steps with (force)")


def dialled(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def views(url: str) -> set[str]:
    database = Database(url)
    try:
        return database.read(lambda connection: set(inspect(connection).get_view_names()))
    finally:
        database.close()


@pytest.mark.parametrize(
    ("here", "to", "steps"),
    [
        pytest.param("", None, ["→0001", "0001→0002", "0002→0003"], id="a new database"),
        pytest.param("0002", None, ["0002→0003"], id="the last step"),
        pytest.param("0003", None, [], id="nothing to do"),
        pytest.param("0001", "0002", ["0001→0002"], id="not all the way"),
        pytest.param("0003", "0001", ["0003→0002", "0002→0001"], id="back"),
        pytest.param("0004", None, [], id="the next version's is left as it is"),
    ],
)
def test_the_way_to_a_schema(here: str, to: str | None, steps: list[str]) -> None:
    assert [f"{step.before}→{step.after}" for step in way(KNOWN, here, to)] == steps


def test_a_step_says_what_it_brings_or_takes() -> None:
    assert way(KNOWN, "0002", None) == (Step("0002", "0003", "third"),)
    assert way(KNOWN, "0003", "0002") == (Step("0003", "0002", "third"),)
    assert way(KNOWN, "0003", "0002")[0].back


@pytest.mark.parametrize(("here", "to"), [("0001", "9"), ("0001", "base"), ("0004", "0001")])
def test_where_there_is_no_way_is_said(here: str, to: str) -> None:
    with pytest.raises(Unmigratable):
        way(KNOWN, here, to)


def test_every_migration_says_in_a_line_what_it_is_for() -> None:
    for schema, meaning in meanings().items():
        assert 20 < len(meaning) < 100, schema
        assert meaning.endswith("."), schema


def test_migrations_are_called_and_begin_as_alembic_reads_them() -> None:
    known = [*ScriptDirectory.from_config(config()).walk_revisions()][::-1]
    assert {step.revision: step.doc for step in known} == meanings()
    assert [step.revision for step in known] == [*meanings()]


def test_looking_makes_nothing(empty: str) -> None:
    steps = planned(empty)
    assert [step.after for step in steps] == [*meanings()]
    assert planned(empty) == steps
    if empty.startswith("sqlite"):
        assert not Path(str(make_url(empty).database)).exists()


def test_what_somebody_else_keeps_there_is_left_alone(empty: str) -> None:
    theirs = Database(empty)
    theirs.write(lambda connection: connection.execute(text("create table invoices (id integer)")))
    for act in (planned, migrate):
        with pytest.raises(Unfit, match=r"\(invoices\): give the catalog a database of its own"):
            act(empty)
    there = theirs.read(lambda connection: inspect(connection).get_table_names())
    theirs.close()
    assert there == ["invoices"]


@pytest.mark.parametrize("schema", ["13ab45cd67ef", "0013", "0001", "0012b"])
def test_another_programs_migrations_are_not_taken_for_the_meshs(
    tmp_path: Path, schema: str
) -> None:
    file = tmp_path / "theirs.db"
    with closing(sqlite3.connect(file)) as theirs:
        theirs.executescript(
            "create table users (id); create table alembic_version (version_num text);"
            f" insert into alembic_version values ('{schema}')"
        )
    before = file.read_bytes()
    for act in (planned, migrate, pending):
        with pytest.raises(Unfit, match=r"\(users\): give the catalog a database of its own"):
            act(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_each_migration_is_undone_and_done_again(empty: str) -> None:
    migrate(empty)
    schemas = [*meanings()]
    for schema in schemas[-2::-1]:
        (step,) = carried_out(empty, schema)
        assert (step.back, step.after) == (True, schema)
        assert pending(empty) == schemas[schemas.index(schema) + 1 :]
        # What the older tables can fill is answered all the while.
        there = views(empty) & NAMES
        assert {"mesh_services", "mesh_changes"} <= there
        for view in there:
            query(empty, f"select * from {view}")
    for schema in schemas[1:]:
        assert [step.after for step in carried_out(empty, schema)] == [schema]
    assert views(empty) >= NAMES
    assert carried_out(empty) == ()


def test_views_that_a_rollback_left_out_are_made_by_the_next_start(empty: str) -> None:
    migrate(empty)
    database = Database(empty)
    database.write(drop)
    database.close()
    assert migrate(empty) == []
    assert views(empty) >= NAMES


# Who may read


@pytest.fixture
def role(empty_postgres: str) -> Iterator[str]:
    """Somebody's own, with an odd name."""
    with psycopg.connect(dialled(empty_postgres), autocommit=True) as admin:
        admin.execute('drop role if exists "Auditor""s"')
        admin.execute('create role "Auditor""s" login')
        yield 'Auditor"s'
        admin.execute('drop owned by "Auditor""s"')
        admin.execute('drop role "Auditor""s"')


def let(url: str, role: str) -> None:
    database = Database(url)
    try:
        database.write(lambda connection: let_read(connection, role))
    finally:
        database.close()


def test_a_role_reads_the_views_and_nothing_else(empty_postgres: str, role: str) -> None:
    migrate(empty_postgres)
    theirs = make_url(empty_postgres).set(username=role).render_as_string(hide_password=False)
    with pytest.raises(Refused, match="permission denied"):
        query(theirs, "select * from mesh_services")
    let(empty_postgres, role)
    for view in NAMES:
        query(theirs, f"select * from {view}")
    with psycopg.connect(dialled(theirs), autocommit=True) as them:
        tables = "select relname from pg_class where relkind in ('r', 'S') and relnamespace = %s"
        for (table,) in them.execute(f"{tables}::regnamespace", ("public",)).fetchall():
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                them.execute(f"select * from {table}")
        for change in (
            "delete from mesh_services",
            "create table x (y int)",
            "drop view mesh_changes",
        ):
            with pytest.raises(psycopg.errors.Error):
                them.execute(change)


def test_who_could_read_still_can_after_migrations(empty_postgres: str, role: str) -> None:
    migrate(empty_postgres)
    with psycopg.connect(dialled(empty_postgres), autocommit=True) as admin:
        admin.execute("drop role if exists partly")
        admin.execute("create role partly login")
        admin.execute("grant select on mesh_services, mesh_changes to partly")
        let(empty_postgres, role)
        carried_out(empty_postgres, next(iter(meanings())))
        migrate(empty_postgres)
        granted = (
            "select distinct relname from pg_class, aclexplode(relacl) acl"
            " where relkind = 'v' and acl.grantee = (select oid from pg_roles where rolname = %s)"
        )
        found = {
            name: {view for (view,) in admin.execute(granted, (name,)).fetchall()}
            for name in (role, READER, "partly")
        }
        admin.execute("drop owned by partly")
        admin.execute("drop role partly")
    assert found == {
        role: NAMES,
        READER: NAMES,
        "partly": {"mesh_services", "mesh_changes"},
    }


def test_there_is_no_such_role(empty: str) -> None:
    migrate(empty)
    with pytest.raises(NoRole, match=r"SQLite has no roles|no role nobody-here: make it"):
        let(empty, "nobody-here")


def test_a_catalog_of_the_next_version_is_left_as_it_is(empty: str) -> None:
    migrate(empty)
    database = Database(empty)
    later = f"{int(max(meanings())[:4]) + 1:04}"
    database.write(
        lambda c: c.execute(text("update alembic_version set version_num = :v"), {"v": later})
    )
    database.close()
    assert carried_out(empty) == ()
    with pytest.raises(Unmigratable, match=f"{later} is undone by the version that made it"):
        carried_out(empty, "0001")
