"""The views made in a database, with their comments and the roles that may read them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from meshfed.catalog.spelling import View
from meshfed.catalog.views import VIEWS

READER = "meshfed_reader"  # may read the views and nothing else
NAMES = frozenset(view.name for view in VIEWS)


# Roles belong to the whole server: another catalog on it may be making this one just now.
MAKE_READER = f"""do $$ begin create role {READER} nologin;
exception when duplicate_object or unique_violation then null; end $$"""

GRANTED = """select case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end,
  array_agg(view.relname::text)
from pg_class view, aclexplode(view.relacl) acl
where view.relnamespace = current_schema()::regnamespace and view.relkind = 'v'
  and acl.privilege_type = 'SELECT' and acl.grantee <> view.relowner group by 1"""


class NoRole(ValueError):
    """The database has no such role, or this is none that could have any."""


def complete(connection: Connection) -> bool:
    """Whether there is every view of this version; after a rollback some are missing."""
    return _there(connection) == NAMES


@contextmanager
def without(connection: Connection, *, newest: bool = True) -> Iterator[None]:
    """Tables may be changed while there are no views; who could read them can again afterwards.

    Of older tables only those views are made that they can fill: the version of then adds its own.
    """
    readers = _readers(connection)
    drop(connection)
    yield
    if newest:
        create(connection)
    else:
        _create_some(connection)
    _let(connection, readers)


def create(connection: Connection) -> None:
    """All views; on Postgres with comments, and the right to read them where roles can be made."""
    for view in VIEWS:
        _create(connection, view)
    if connection.dialect.name == "postgresql":
        _grant(connection)


def _create_some(connection: Connection) -> None:
    for view in VIEWS:
        with suppress(DBAPIError), connection.begin_nested():
            _create(connection, view)
            _run(connection, f"select * from {view.name} limit 0")


def drop(connection: Connection) -> None:
    for view in VIEWS:
        _run(connection, f"drop view if exists {view.name}")


def let_read(connection: Connection, role: str) -> None:
    """Somebody's own role may read the views, as READER may, and nothing else by that."""
    if connection.dialect.name != "postgresql":
        raise NoRole("SQLite has no roles: who may read the file may read the catalog")
    known = "select 1 from pg_roles where rolname = %(role)s"
    if not connection.exec_driver_sql(known, {"role": role}).scalar():
        raise NoRole(f"there is no role {role}: make it first, by `create role {role} login`")
    quote = connection.dialect.identifier_preparer.quote
    schema = str(connection.exec_driver_sql("select current_schema()").scalar())
    if schema != "public":  # which is open to everybody
        _run(connection, f"grant usage on schema {quote(schema)} to {quote(role)}")
    _let(connection, {quote(role): NAMES})


def _readers(connection: Connection) -> Mapping[str, frozenset[str]]:
    """Who was let to read which views; who could read every one there was is let to read all."""
    if connection.dialect.name != "postgresql":
        return {}
    there = _there(connection)
    granted = connection.exec_driver_sql(GRANTED).all()
    return {role: NAMES if there <= set(views) else frozenset(views) for role, views in granted}


def _let(connection: Connection, readers: Mapping[str, frozenset[str]]) -> None:
    there = _there(connection)
    for role, views in readers.items():
        for view in sorted(there & views):
            _run(connection, f"grant select on {view} to {role}")


def _there(connection: Connection) -> frozenset[str]:
    return NAMES & set(inspect(connection).get_view_names())


def _create(connection: Connection, view: View) -> None:
    _run(connection, f"create view {view.name} as {view.select(connection.dialect.name)}")
    if connection.dialect.name == "postgresql":
        _comment(connection, view)


def _comment(connection: Connection, view: View) -> None:
    _run(connection, f"comment on view {view.name} is {_quoted(view.comment)}")
    for column in view.columns:
        at = f"{view.name}.{column.name}"
        _run(connection, f"comment on column {at} is {_quoted(column.comment)}")


def _grant(connection: Connection) -> None:
    """Let READER read the views. Where roles cannot be made, reading is read-only all the same."""
    may = connection.exec_driver_sql(
        "select rolsuper or rolcreaterole from pg_roles where rolname = current_user"
    ).scalar()
    there = connection.exec_driver_sql(
        f"select 1 from pg_roles where rolname = '{READER}'"
    ).scalar()
    if may and not there:
        _run(connection, MAKE_READER)
    if may:
        _run(connection, f"grant {READER} to current_user")
    if may or there:
        _let(connection, {READER: NAMES})


def _run(connection: Connection, statement: str) -> None:
    # psycopg reads a % as the beginning of a parameter.
    escaped = connection.dialect.paramstyle == "pyformat"
    connection.exec_driver_sql(statement.replace("%", "%%") if escaped else statement)


def _quoted(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"
