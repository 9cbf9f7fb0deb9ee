"""The whole catalog as one stream of rows, the same from SQLite and Postgres, and back."""

import gzip
import io
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator

from sqlalchemy import (
    Connection,
    LargeBinary,
    Table,
    func,
    insert,
    select,
    text,
)

from meshfed.catalog.database import Database
from meshfed.catalog.schema import metadata, migrate, pending

FORMAT = 1
BATCH = 1000  # rows an insert: what is held in memory besides the copy itself


class Uncopied(ValueError):
    """The catalog cannot be copied or put back; one line, with what to do."""


def copied(url: str) -> bytes:
    """Every row there is, at one moment. Raises Uncopied, Away."""
    if pending(url):
        raise Uncopied("the catalog is new, or of an older version: run `meshfed migrate` first")
    database = Database(url)
    try:
        return database.read(_packed)
    finally:
        database.close()


def put_back(url: str, copy: bytes, also: Callable[[], None]) -> None:
    """Fill a catalog that is new or empty: all of it, or none. Raises Uncopied, Away.

    `also` is done before the commit; when it fails, nothing is written.
    """

    def fill(connection: Connection) -> None:
        _unpack(connection, copy)
        also()

    migrate(url)
    database = Database(url)
    try:
        database.write(fill)
    finally:
        database.close()


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
    """The schema's version; then each table's name, and its rows."""
    yield {"format": FORMAT, "schema": _schema(connection)}
    for table in metadata.sorted_tables:
        yield {"table": table.name}
        for row in connection.execute(select(table).order_by(*table.primary_key)).yield_per(BATCH):
            yield [b64encode(cell).decode() if isinstance(cell, bytes) else cell for cell in row]


def _unpack(connection: Connection, copy: bytes) -> None:
    with gzip.open(io.BytesIO(copy), "rt", encoding="utf-8") as lines:
        _check_schema(connection, json.loads(next(lines)))
        _check_empty(connection)
        batch: list[dict[str, object]] = []
        table: Table | None = None
        for line in map(json.loads, lines):
            if isinstance(line, dict) or len(batch) == BATCH:
                _insert(connection, table, batch)
            if isinstance(line, dict):
                table = metadata.tables[line["table"]]
                connection.execute(table.delete())  # what a migration put there
            elif table is not None:
                batch.append(_row(table, line))
        _insert(connection, table, batch)
    if connection.dialect.name == "postgresql":
        _count_on(connection)


def _insert(connection: Connection, table: Table | None, batch: list[dict[str, object]]) -> None:
    if table is not None and batch:
        connection.execute(insert(table), batch)
    batch.clear()


def _row(table: Table, cells: Iterable[object]) -> dict[str, object]:
    return {
        column.name: b64decode(cell)
        if isinstance(column.type, LargeBinary) and isinstance(cell, str)
        else cell
        for column, cell in zip(table.columns, cells, strict=True)
    }


def _check_schema(connection: Connection, header: dict[str, object]) -> None:
    ours = {"format": FORMAT, "schema": _schema(connection)}
    if header != ours:
        raise Uncopied(
            f"the backup's schema is {header.get('schema')} and this meshfed's {ours['schema']}:"
            " restore it with the version that made it, then run `meshfed migrate` with this one"
        )


def _check_empty(connection: Connection) -> None:
    for table in metadata.sorted_tables:
        rows = connection.scalar(select(func.count()).select_from(table))
        # A migration may seed the table of the revision; a catalog in use has changes as well.
        if rows and table.name != "state":
            raise Uncopied(
                "this catalog is not empty: stop `meshfed serve`, move the catalog away"
                " (a SQLite file with its -wal and -shm) or name a new one, and restore again"
            )


def _count_on(connection: Connection) -> None:
    """Postgres numbers new rows from a sequence, which inserted numbers do not move."""
    for table in metadata.sorted_tables:
        if (key := table.autoincrement_column) is None:
            continue
        sequence = connection.scalar(
            text("select pg_get_serial_sequence(:table, :key)"),
            {"table": table.name, "key": key.name},
        )
        highest = connection.scalar(select(func.max(key)))
        if sequence and highest:
            connection.execute(
                text("select setval(:sequence, :highest)"),
                {"sequence": sequence, "highest": highest},
            )


def _schema(connection: Connection) -> str:
    return str(connection.exec_driver_sql("select version_num from alembic_version").scalar())
