"""SQL that goes to the driver as it is: SQLAlchemy's way there costs ten times what it runs for."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

Row = tuple[Any, ...]

NAME = re.compile(r"(?<![:\w]):(\w+)")
AMONG = re.compile(r"\$among\((\w+)\)")
EACH = re.compile(r"\$each\((\w+)\)")
FEW = 4  # rows; for more of them COPY takes a quarter of the time


class Plain:
    """One statement with :names, with $among(names) where it is any of a list, and $each(names)."""

    def __init__(self, sql: str, *, postgresql: str = "") -> None:
        self._sqlite = AMONG.sub(r"in (select value from json_each(:\1))", sql)
        self._sqlite = EACH.sub(r"json_each(:\1)", self._sqlite)
        postgres = EACH.sub(r"json_array_elements(cast(:\1 as json))", postgresql or sql)
        self._postgres = NAME.sub(r"%(\1)s", AMONG.sub(r"= any(:\1)", postgres))

    def run(self, connection: Connection, **values: object) -> None:
        self._on(connection, values)

    def rows(self, connection: Connection, **values: object) -> list[Row]:
        answer: list[Row] = self._on(connection, values).fetchall()
        return answer

    def row(self, connection: Connection, **values: object) -> Row | None:
        return next(iter(self.rows(connection, **values)), None)

    def _on(self, connection: Connection, values: dict[str, object]) -> Any:
        if connection.dialect.name == "postgresql":
            return _driver(connection).execute(self._postgres, values)
        lists = {name: json.dumps(one) for name, one in values.items() if isinstance(one, list)}
        return _driver(connection).execute(self._sqlite, {**values, **lists})


class Each:
    """One statement for many rows of values, which stand in the places of its ?s."""

    def __init__(self, sql: str) -> None:
        self._sqlite = sql
        self._postgres = sql.replace("?", "%s")

    def on(self, connection: Connection, rows: Sequence[Row]) -> None:
        driver = _driver(connection)
        if connection.dialect.name == "sqlite":
            driver.executemany(self._sqlite, rows)
        elif len(rows) == 1:
            driver.execute(self._postgres, rows[0])
        else:
            driver.cursor().executemany(self._postgres, rows)


class Into(Each):
    """Many rows of a table at once."""

    def __init__(self, table: str, columns: Iterable[str]) -> None:
        names = tuple(columns)
        into = f"{table} ({', '.join(names)})"
        super().__init__(f"insert into {into} values ({', '.join('?' for _ in names)})")
        self._copied = f"copy {into} from stdin"

    def on(self, connection: Connection, rows: Sequence[Row]) -> None:
        if connection.dialect.name == "sqlite" or len(rows) <= FEW:
            super().on(connection, rows)
            return
        with _driver(connection).cursor().copy(self._copied) as copy:
            for row in rows:
                copy.write_row(row)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
