"""Revisions as they are committed, by this process or any other; only the latest matters."""

import asyncio
import os
import socket
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from meshfed.catalog import stirred
from meshfed.catalog.database import Away, connection_string, identified
from meshfed.catalog.file import which
from meshfed.catalog.writing import CHANNEL

if TYPE_CHECKING:
    from psycopg import AsyncConnection

TICK = 0.005  # SQLite, where the kernel does not tell of writes to its log
REST = 0.05  # and where it does: a wake-up costs 100 µs on a virtual machine, 200 a second 2 %
SOON = 0.001  # after such a word, then twice that: what was written is not committed yet
AWAY = 0.25  # between attempts to reach a database that is away
POLL = 1.0  # Postgres: a notification is never lost silently for longer than this
PATIENCE = 2.0  # seconds for an answer of Postgres: on a half-open connection none comes
REVISION = "select revision from state where id = 1"
POOLED = (
    "a pooler stands before Postgres and gives each transaction another session, so LISTEN hears"
    " nothing: name Postgres itself, or let the pooler keep sessions (PgBouncer: pool_mode=session)"
)


class Bell:
    """Wakes this process's followers at once, from whichever thread has committed."""

    def __init__(self) -> None:
        self._waiting: set[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = set()

    def ring(self) -> None:
        for loop, wake in tuple(self._waiting):
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

    async def heard(self, moved: Callable[[], bool], log: int | None) -> None:
        """Returns when it rings, or when a look says that it moved: after any word of the log."""
        loop = asyncio.get_running_loop()
        heard = loop.create_future()

        def wake() -> None:
            if not heard.done():
                heard.set_result(None)

        def look() -> None:
            if heard.done():
                return
            try:
                if moved():
                    wake()
            except (sqlite3.Error, OSError) as error:
                heard.set_exception(error)

        def regularly(pause: float) -> None:
            look()
            if not heard.done():
                loop.call_later(pause, regularly, pause)

        def written(log: int) -> None:
            """A large commit is many words, and the first of them is enough."""
            stirred.drain(log)
            loop.remove_reader(log)
            soon(log, SOON)

        def soon(log: int, pause: float) -> None:
            look()
            if heard.done():
                return
            if pause < REST:
                loop.call_later(pause, soon, log, 2 * pause)
            else:
                loop.add_reader(log, written, log)

        waiting = (loop, wake)
        self._waiting.add(waiting)
        rest = TICK if log is None else REST
        loop.call_later(rest, regularly, rest)
        if log is not None:
            loop.add_reader(log, written, log)
        try:
            await heard
        finally:
            self._waiting.discard(waiting)
            if log is not None:
                loop.remove_reader(log)


async def follow(url: URL, bell: Bell) -> AsyncGenerator[int]:
    """The revision now, then each newer one; once more after the database was away."""
    watch = _sqlite if url.get_backend_name() == "sqlite" else _postgres
    while True:
        try:
            async with aclosing(watch(url, bell)) as revisions:  # its connection, with the follower
                async for revision in revisions:
                    yield revision
        except (sqlite3.Error, OSError, TimeoutError, Away):
            await asyncio.sleep(AWAY)


def _watcher(url: URL) -> sqlite3.Connection:
    """A connection that makes no file and waits for no lock: it is read on the event loop."""
    address = f"{Path(str(url.database)).absolute().as_uri()}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=0, isolation_level=None)


async def _sqlite(url: URL, bell: Bell) -> AsyncGenerator[int]:
    file = Path(str(url.database))
    with closing(_watcher(url)) as connection:
        told, opened = -1, which(file)
        version = _version(connection)  # whoever reads has opened the log

        def moved() -> bool:
            return which(file) != opened or _version(connection) != version

        with stirred.log(file) as log:
            while which(file) == opened:  # 3 µs; else its disk was mounted anew, or it is gone
                version = _version(connection)
                (revision,) = connection.execute(REVISION).fetchone()
                if revision != told:
                    told = revision
                    yield revision
                    continue  # something may have been committed meanwhile
                await bell.heard(moved, log)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("pragma data_version").fetchone()
    return int(version)


async def _postgres(url: URL, bell: Bell) -> AsyncGenerator[int]:
    with _reached():
        async with await _connected(url) as connection:
            with _answering(connection):
                await connection.execute(f"listen {CHANNEL}")
            told = -1
            while True:
                revision = await _revision(connection)
                if revision != told:
                    told = revision
                    yield revision
                async for _ in connection.notifies(timeout=POLL, stop_after=1):
                    pass


async def deaf(url: URL) -> str:
    """Why no notification comes through to this database's listeners, or nothing. Raises Away.

    A pooler gives a session to somebody else after each transaction, with what it listens to.
    """
    if url.get_backend_name() == "sqlite":
        return ""
    channel = f"{CHANNEL}_{token_hex(8)}"
    with _reached():
        async with await _connected(url) as listening, await _connected(url) as telling:
            await listening.execute(f"listen {channel}")
            await telling.execute("select pg_notify(%s, '')", [channel])
            async for _ in listening.notifies(timeout=PATIENCE, stop_after=1):
                return ""
    return POOLED


@contextmanager
def _reached() -> Iterator[None]:
    """Turns what psycopg raises into Away."""
    from psycopg import Error  # slow to load, and not needed for SQLite

    try:
        yield
    except Error as error:
        raise Away(f"the catalog is away: {error}".partition("\n")[0]) from error


async def _connected(url: URL) -> "AsyncConnection[tuple[object, ...]]":
    """Raises Away, and what psycopg raises."""
    from psycopg import AsyncConnection

    said = await asyncio.to_thread(identified, url)
    return await AsyncConnection.connect(connection_string(url), autocommit=True, **said)


@contextmanager
def _answering(connection: "AsyncConnection[tuple[object, ...]]") -> Iterator[None]:
    """Hangs up on a server that says nothing, as on a half-open connection.

    A timeout that cancels would have psycopg ask that same server to cancel, for 5 s.
    """

    def hang_up() -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(PATIENCE, hang_up)
    try:
        yield
    finally:
        timer.cancel()


async def _revision(connection: "AsyncConnection[tuple[object, ...]]") -> int:
    with _answering(connection):
        row = await (await connection.execute(REVISION)).fetchone()
    assert row is not None
    return int(str(row[0]))
