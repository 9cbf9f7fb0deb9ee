"""One database, SQLite or Postgres: how it is opened, read, written, and found to be away."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from meshfed.catalog import entra
from meshfed.catalog.file import DIRECTORY, readable, which
from meshfed.catalog.file import Away as Away
from meshfed.catalog.times import seconds as seconds
from meshfed.catalog.times import stamp as stamp

T = TypeVar("T")

LOCK = 0x6D657368  # "mesh": the advisory lock under which Postgres writers take turns
# A process that is stopped in its turn would keep all others from theirs.
STALLED = "set_config('idle_in_transaction_session_timeout', '10s', true)"

# A partition must end as an error within seconds, not as a hung thread.
POSTGRES: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "meshfed",
}
# Whose file it is: one that has tables, and not the catalog's, is left as it is.
THEIRS = (
    "select 1 from sqlite_master where type = 'table' and not exists"
    " (select 1 from sqlite_master where type = 'table' and name = 'state') limit 1"
)
PATIENCE = 5.0  # seconds that a SQLite connection waits for its turn
SQLITE = (
    "pragma synchronous = normal",  # safe against kill -9; a power cut may undo the last commits
    # Pages, 64 MB beside the file: by default each fourth commit of a first load waits for a copy.
    "pragma wal_autocheckpoint = 16000",
    "pragma cache_size = -32000",  # KiB: what a large transaction changed is written once
    "pragma foreign_keys = on",
)

# What the database says of our statements. Whatever else it says is of itself: locked, full,
# damaged, restarting, or a standby that is not promoted yet, to Postgres an internal error.
OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)


def database_url(url: str) -> URL:
    """A catalog's address. Raises ValueError with what it should be."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(f"{url!r} is neither sqlite:///FILE nor postgresql+psycopg://…") from error
    match parsed.drivername:
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed
        case "sqlite":
            raise ValueError("a catalog on SQLite is a file: sqlite:///FILE")
        case "postgresql" | "postgres" | "postgresql+psycopg":
            if why := entra.refusal(parsed.query, parsed.password):
                raise ValueError(why)
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"{other} is neither sqlite nor postgresql+psycopg")


class Database:
    """Opens connections when they are needed, and turns their loss into Away."""

    def __init__(self, url: str) -> None:
        self.url = database_url(url)
        self._engine = _sqlite(self.url) if self.is_sqlite else _postgres(self.url)
        driver = self._engine.dialect.loaded_dbapi
        # A statement may go to it as it is.
        self._ours = (*OURS, *(getattr(driver, kind.__name__) for kind in OURS))
        self._theirs = (DatabaseError, InterfaceError, PoolTimeout, driver.Error)
        self._file = self._which()
        self._writing = self._engine.execution_options(
            # A snapshot from before the writer's turn would not show what the one before it wrote.
            writing=True,
            **({} if self.is_sqlite else {"isolation_level": "READ COMMITTED"}),
        )

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def read(self, act: Callable[[Connection], T]) -> T:
        """`act` on one consistent snapshot. Raises Away."""
        with self._present(), self._engine.connect() as connection, connection.begin():
            return act(connection)

    def write(self, act: Callable[[Connection], T]) -> T:
        """`act` in one transaction, one writer at a time; all of it, or nothing. Raises Away."""
        with self._present(), self._writing.connect() as connection, connection.begin():
            return act(connection)

    def close(self) -> None:
        self._engine.dispose()

    def _which(self) -> tuple[int, int] | None:
        return which(Path(str(self.url.database))) if self.is_sqlite else None

    @contextmanager
    def _present(self) -> Iterator[None]:
        if self._file != (now := self._which()):
            self._file = now
            self._engine.dispose()  # idle ones, too, would keep a disk from its repair
        try:
            yield
        except self._ours:
            raise
        except self._theirs as error:
            if self.is_sqlite:
                # What was opened read-only stays so, and a disk that is mounted again is another.
                self._engine.dispose()
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise Away(f"the catalog is away: {self._why(_line(cause))}") from error

    def _why(self, cause: str) -> str:
        """SQLite never names the file, nor says what is there instead."""
        if not self.is_sqlite:
            return cause
        file = Path(str(self.url.database))
        return f"{file}: {DIRECTORY if file.is_dir() else cause}"


def _line(cause: object) -> str:
    """The first line of what the driver says: the rest is hints for programmers."""
    return str(cause).strip().partition("\n")[0]


def connection_string(url: URL) -> str:
    """A Postgres address as its driver takes it, with the password in it."""
    plain = entra.plain(url).set(drivername="postgresql")
    return plain.render_as_string(hide_password=False)


def identified(url: URL) -> dict[str, Any]:
    """What a connection to Postgres is made with beside the address. Raises Away."""
    try:
        return POSTGRES | entra.password(url)
    except entra.Tokenless as error:
        raise Away(f"the catalog is away: {error}") from error


def _postgres(url: URL) -> Engine:
    engine = create_engine(
        entra.plain(url),
        isolation_level="REPEATABLE READ",  # a mesh is read in several statements
        pool_pre_ping=True,  # a restarted server costs nobody an error
    )

    @event.listens_for(engine, "do_connect")
    def opening(_dialect: object, _record: object, _given: object, said: dict[str, Any]) -> None:
        said |= identified(url)

    _on_begin(engine, reading="", writing=f"select {STALLED}, pg_advisory_xact_lock({LOCK})")
    return engine


def _sqlite(url: URL) -> Engine:
    path = Path(str(url.database))
    engine = create_engine(url)
    found = False

    @event.listens_for(engine, "do_connect")
    def opening(*_: object) -> sqlite3.Connection:
        nonlocal found
        if found and which(path) is None:  # to make a new one here would hide that
            raise Away(f"the catalog is away: {path} is gone")
        connection = _opened(path)
        found = True
        return connection

    @event.listens_for(engine, "connect")
    def opened(_: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        record.info["pool"] = engine.pool

    @event.listens_for(engine, "checkin")
    def returned(_: sqlite3.Connection | None, record: ConnectionPoolEntry) -> None:
        if record.info.get("pool") is not engine.pool:
            record.invalidate()  # it was in use when the others were closed

    _on_begin(engine, reading="begin", writing="begin immediate")
    return engine


def _on_begin(engine: Engine, *, reading: str, writing: str) -> None:
    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        statement = writing if connection.get_execution_options().get("writing") else reading
        driver = connection.connection.driver_connection
        if statement and driver:
            driver.execute(statement)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection for one thread at a time; to a file on a read-only disk, for reading."""
    _private(path)
    address = readable(path)
    frozen = "immutable" in address
    connection = sqlite3.connect(
        address if frozen else path,
        uri=frozen,
        timeout=PATIENCE,
        isolation_level=None,  # transactions begin where _on_begin says, not by guess
        check_same_thread=False,  # the pool gives it to one thread after another
    )
    if not (frozen or connection.execute(THEIRS).fetchone()):
        _write_ahead(connection)
    for pragma in SQLITE:
        connection.execute(pragma)
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers never wait for the writer from now on."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            # Of two that open a new file at once, SQLite refuses one, without the patience it has.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)
        else:
            return


def _private(path: Path) -> None:
    """An empty file that only its owner may read, if there is none: SQLite would make it 0644."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return  # it is there; or it cannot be, and SQLite says why when it opens it
