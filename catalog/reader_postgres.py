"""SQL from anybody, answered by a Postgres."""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Timer
from typing import Any

import psycopg

from meshfed.catalog.database import Away, connection_string, database_url, identified
from meshfed.catalog.reader import Answer, Refused, taken
from meshfed.catalog.viewing import READER

# Volatile, as Postgres calls them, and yet harmless; and stable ones that use up a transaction.
HARMLESS = ("random", "clock_timestamp", "timeofday", "gen_random_uuid")
EFFECTS = ("txid_current", "pg_current_xact_id")
DEAF = 1.0  # seconds for a Postgres that was told to stop: it does not look inside position()
WORD = re.compile(r"\"((?:[^\"]|\"\")*)\"|([A-Za-z_\u0080-\uffff][\w$]*)")


def names(statement: str) -> frozenset[str]:
    """Every word of a statement that could name a function.

    Words in strings count too: where a string ends (E'', $$, comments) only a parser knows, and a
    mistake there would be a way around this. Raises Refused where a name is spelt in code points.
    """
    if re.search(r"[uU]&[\"']", statement):
        raise Refused("U& quoting is not understood here: write the name plainly")
    found: set[str] = set()
    for quoted, word in WORD.findall(statement):
        found.add(quoted.replace('""', '"') if quoted else word.lower())
    return frozenset(found)


def asked(url: str, statement: str, seconds: float, most: int) -> Answer:
    """What one select answers. Raises Refused, Away."""
    at = database_url(url)
    address, said = connection_string(at), identified(at)
    with _told(seconds), psycopg.connect(address, autocommit=True, **said) as connection:
        _refuse_effects(connection, statement)
        done = Event()
        timer = Timer(seconds, _stop, (connection, done))
        timer.start()
        try:
            return _fetched(connection, statement, seconds, most)
        finally:
            done.set()
            timer.cancel()


def _stop(connection: psycopg.Connection[Any], done: Event) -> None:
    """Cancel the statement; hang up on a server that does not heed it."""
    connection.cancel_safe(timeout=DEAF)
    if not done.wait(DEAF):
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def _refuse_effects(connection: psycopg.Connection[Any], statement: str) -> None:
    """A READ ONLY transaction still lets functions take locks, signal processes and write files.

    Nearly all of those are volatile; which words are, the server itself knows best. The role alone
    does not do it: `set_config('role', …)` would leave it again in the middle of a statement.
    """
    volatile = connection.execute(
        "select proname from pg_catalog.pg_proc where (provolatile = 'v' or proname = any(%s))"
        " and proname = any(%s) and not proname = any(%s) order by 1 limit 1",
        (list(EFFECTS), list(names(statement)), list(HARMLESS)),
    ).fetchone()
    if volatile:
        raise Refused(f"{volatile[0]} is a function with effects: only reading is answered")


def _fetched(
    connection: psycopg.Connection[Any], statement: str, seconds: float, most: int
) -> Answer:
    connection.execute("begin transaction isolation level repeatable read, read only")
    connection.execute(f"set local statement_timeout = {int(seconds * 1000)}")
    if _may_be_reader(connection):
        connection.execute(f"set local role {READER}")
    cursor = connection.cursor(binary=True)  # the extended protocol: one statement, never two
    cursor.execute(f"declare asked no scroll cursor for {statement}\n".encode())
    answer = connection.cursor()
    answer.execute("fetch forward 0 from asked")
    columns = tuple(column.name for column in answer.description or ())
    rows = taken(_portions(answer), most)
    connection.execute("rollback")
    return Answer(columns, rows)


def _may_be_reader(connection: psycopg.Connection[Any]) -> bool:
    right = "SET" if connection.info.server_version >= 160_000 else "MEMBER"
    may = connection.execute(
        "select pg_catalog.pg_has_role(oid, %s) from pg_catalog.pg_roles where rolname = %s",
        (right, READER),
    ).fetchone()
    return bool(may and may[0])


def _portions(cursor: psycopg.Cursor[Any]) -> Iterator[tuple[Any, ...]]:
    """Few rows first: a row may be large, and what is fetched stands in memory at once."""
    portion = 1
    while found := cursor.execute(f"fetch forward {portion} from asked").fetchall():
        yield from found
        portion = min(portion * 2, 256)


@contextmanager
def _told(seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise Refused(f"it took more than {seconds:g} s and was stopped") from error
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise Refused(f"{_line(error)}: only selects of the mesh_… views are answered") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if time.monotonic() > until + DEAF:
            raise Refused(f"it took more than {seconds:g} s, and was left alone") from error
        raise Away(f"the catalog is away: {_line(error)}") from error
    except psycopg.Error as error:
        raise Refused(_line(error)) from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
