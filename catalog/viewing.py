"""The views made in a database, with their comments and the role that may read them."""

from sqlalchemy import Connection

from meshfed.catalog.views import VIEWS

READER = "meshfed_reader"  # may read the views and nothing else


# Roles belong to the whole server: another catalog on it may be making this one just now.
MAKE_READER = f"""do $$ begin create role {READER} nologin;
exception when duplicate_object or unique_violation then null; end $$"""


def create(connection: Connection) -> None:
    """All views; on Postgres with comments, and the right to read them where roles can be made."""
    for view in VIEWS:
        select = view.select(connection.dialect.name)
        _run(connection, f"create view {view.name} as {select}")
    if connection.dialect.name == "postgresql":
        _comment(connection)
        _grant(connection)


def drop(connection: Connection) -> None:
    for view in VIEWS:
        _run(connection, f"drop view if exists {view.name}")


def _comment(connection: Connection) -> None:
    for view in VIEWS:
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
        for view in VIEWS:
            _run(connection, f"grant select on {view.name} to {READER}")


def _run(connection: Connection, statement: str) -> None:
    # psycopg reads a % as the beginning of a parameter.
    escaped = connection.dialect.paramstyle == "pyformat"
    connection.exec_driver_sql(statement.replace("%", "%%") if escaped else statement)


def _quoted(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"
