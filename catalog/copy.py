"""The whole catalog as one stream of rows, the same from SQLite and Postgres, and back."""

import fcntl
import gzip
import io
import json
import struct
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from sqlalchemy import (
    Connection,
    LargeBinary,
    MetaData,
    Table,
    func,
    insert,
    select,
    text,
)

from meshfed.catalog.database import Database
from meshfed.catalog.migrating import Unmigratable, bring, schema
from meshfed.catalog.schema import metadata

FORMAT = 2  # of the first, tables did not name their columns
BATCH = 1000  # rows an insert: what is held in memory besides the copy itself

# Every process that has a SQLite database open in WAL mode holds this byte of the -shm file.
OPEN = 128
LOCK = "hhqqi4x"  # struct flock: kind, whence, start, length, pid
ELSEWHERE = """select string_agg(distinct coalesce(client_addr::text, 'this machine'), ', ')
from pg_stat_activity where datname = current_database() and application_name = 'meshfed'
  and pid <> pg_backend_pid()"""

Counts = Mapping[str, int]


class Uncopied(ValueError):
    """The catalog cannot be copied or put back; one line, with what to do."""


def copied(url: str) -> bytes:
    """Every row there is, at one moment. Raises Uncopied, Away."""
    database = Database(url)
    try:
        return database.read(_packed)
    finally:
        database.close()


def put_back(url: str, copy: bytes, also: Callable[[], None]) -> Counts:
    """Fill a catalog that is new or empty, and bring it up to this version: all of it, or none.

    `also` is done before the commit; when it fails, nothing is written. Raises Uncopied, Away.
    """

    def fill(connection: Connection) -> Counts:
        with gzip.open(io.BytesIO(copy), "rt", encoding="utf-8") as lines:
            counts = _fill(connection, map(json.loads, lines))
        also()
        return counts

    return _written(url, fill)


def moved(source: str, target: str) -> Counts:
    """Copy a catalog that nobody has open into a new or empty one; rows of each table.

    Raises Uncopied, Away.
    """
    if who := held(source):
        raise Uncopied(f"{who} has this catalog open: stop `meshfed serve` first")
    database = Database(source)
    try:
        return database.read(
            lambda here: _written(target, lambda there: _fill(there, _lines(here)))
        )
    finally:
        database.close()


def held(url: str) -> str:
    """Who else has the catalog open, as far as can be told; "" for nobody. Raises Away."""
    database = Database(url)
    if database.is_sqlite:
        return _holder(Path(str(database.url.database)))
    try:
        where = database.read(lambda connection: connection.scalar(text(ELSEWHERE)))
    finally:
        database.close()
    return f"a meshfed at {where}" if where else ""


def _holder(path: Path) -> str:
    asked = struct.pack(LOCK, fcntl.F_WRLCK, 0, OPEN, 1, 0)
    try:
        with path.with_name(f"{path.name}-shm").open("rb+") as index:
            answer = struct.unpack(LOCK, fcntl.fcntl(index, fcntl.F_GETLK, asked))
    except OSError:
        return ""
    if answer[0] == fcntl.F_UNLCK:
        return ""
    return f"process {answer[4]}" if answer[4] else "another process"


def _written(url: str, fill: Callable[[Connection], Counts]) -> Counts:
    database = Database(url)
    try:
        return database.write(fill)
    finally:
        database.close()


# Out


def _packed(connection: Connection) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as raw,
        io.TextIOWrapper(raw, encoding="utf-8") as out,
    ):
        for line in _lines(connection):
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
    return packed.getvalue()


def _lines(connection: Connection) -> Iterator[object]:
    """The schema's version; then each table's name and columns, and its rows."""
    version = schema(connection)
    if not version:
        raise Uncopied("the catalog is new: there is nothing to copy")
    yield {"format": FORMAT, "schema": version}
    for table in _tables(connection).values():
        yield {"table": table.name, "columns": [column.name for column in table.columns]}
        for row in connection.execute(select(table).order_by(*table.primary_key)).yield_per(BATCH):
            yield [b64encode(cell).decode() if isinstance(cell, bytes) else cell for cell in row]


def _tables(connection: Connection) -> dict[str, Table]:
    """As they are in this database, whichever version of the schema that is."""
    there = MetaData()
    there.reflect(connection, resolve_fks=False)
    return {name: there.tables[name] for name in sorted(there.tables) if name != "alembic_version"}


# In


def _fill(connection: Connection, lines: Iterator[object]) -> Counts:
    header = next(lines)
    assert isinstance(header, dict)
    _check_empty(connection)
    _bring(connection, header)
    tables = _tables(connection)
    counts: Counter[str] = Counter()
    batch: list[dict[str, object]] = []
    table = next(iter(tables.values()))
    columns: Iterable[str] = ()
    for line in lines:
        if isinstance(line, dict) or len(batch) == BATCH:
            _insert(connection, table, batch)
        if isinstance(line, dict):
            table = tables[line["table"]]
            columns = line.get("columns") or _first_order(table)
            connection.execute(table.delete())  # what a migration put there
            counts[table.name] = 0
        elif isinstance(line, list):
            counts[table.name] += 1
            batch.append(_row(table, columns, line))
    _insert(connection, table, batch)
    _check_counts(connection, tables, counts)
    if connection.dialect.name == "postgresql":
        _count_on(connection)
    bring(connection)
    return counts


def _first_order(table: Table) -> tuple[str, ...]:
    """The columns of a copy in format 1: in the order of `schema.py`, without what came later."""
    return tuple(c.name for c in metadata.tables[table.name].columns if c.name in table.columns)


def _insert(connection: Connection, table: Table, batch: list[dict[str, object]]) -> None:
    if batch:
        connection.execute(insert(table), batch)
    batch.clear()


def _row(table: Table, columns: Iterable[str], cells: Iterable[object]) -> dict[str, object]:
    return {
        name: b64decode(cell)
        if isinstance(table.columns[name].type, LargeBinary) and isinstance(cell, str)
        else cell
        for name, cell in zip(columns, cells, strict=True)
    }


def _bring(connection: Connection, header: Mapping[str, object]) -> None:
    """The tables as they were when the copy was made."""
    version = str(header.get("schema"))
    if header.get("format") not in (1, FORMAT):
        raise Uncopied("the copy is of a later version: put it back with that one")
    try:
        bring(connection, version)
    except Unmigratable as why:
        raise Uncopied(
            f"the copy's schema is {version}, and this version does not know it:"
            " put it back with the version that made it"
        ) from why


def _check_empty(connection: Connection) -> None:
    for table in _tables(connection).values():
        rows = connection.scalar(select(func.count()).select_from(table))
        # A migration may seed the table of the revision; a catalog in use has changes as well.
        if rows and table.name != "state":
            raise Uncopied(
                "this catalog is not empty: stop `meshfed serve`, move the catalog away"
                " (a SQLite file with its -wal and -shm) or name a new one, and try again"
            )


def _check_counts(connection: Connection, tables: Mapping[str, Table], counts: Counts) -> None:
    for name, table in tables.items():
        there = connection.scalar(select(func.count()).select_from(table))
        if there != counts.get(name, there if name == "state" else 0):
            raise Uncopied(f"{name} has {there} rows where the copy has {counts.get(name, 0)}")


def _count_on(connection: Connection) -> None:
    """Postgres numbers new rows from a sequence, which inserted numbers do not move."""
    for table in _tables(connection).values():
        key = next(iter(table.primary_key), None)
        if key is None:
            continue
        sequence = connection.scalar(
            text("select pg_get_serial_sequence(:table, :key)"),
            {"table": table.name, "key": key.name},
        )
        highest = sequence and connection.scalar(select(func.max(key)))
        if highest:
            connection.execute(
                text("select setval(:sequence, :highest)"),
                {"sequence": sequence, "highest": highest},
            )
