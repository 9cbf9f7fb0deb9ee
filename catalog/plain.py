"""SQL that goes to the driver as it is: SQLAlchemy's way there costs ten times what it runs for."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

Row = Sequence[Any]

NAME = re.compile(r"(?<![:\w]):(\w+)")
AMONG = re.compile(r"\$among\((\w+)\)")
EACH = re.compile(r"\$each\((\w+)\)")
FEW = 4  # rows; for more of them COPY takes a quarter of the time


class Plain:
    """One statement with :names, with $among(names) where it is any of a list, and $each(names)."""

    def __init__(self, sql: str) -> None:
        self._sqlite = AMONG.sub(r"in (select value from json_each(:\1))", sql)
        self._sqlite = EACH.sub(r"json_each(:\1)", self._sqlite)
        postgres = EACH.sub(r"json_array_elements(cast(:\1 as json))", sql)
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


class Into:
    """Many rows of a table at once."""

    def __init__(self, table: str, columns: Iterable[str]) -> None:
        names = tuple(columns)
        self._into = f"{table} ({', '.join(names)})"
        self._sqlite = f"insert into {self._into} values ({', '.join('?' for _ in names)})"
        self._postgres = self._sqlite.replace("?", "%s")

    def pour(self, connection: Connection, rows: Sequence[Row]) -> None:
        driver = _driver(connection)
        if connection.dialect.name == "sqlite":
            driver.executemany(self._sqlite, rows)
            return
        with driver.cursor() as cursor:
            if len(rows) <= FEW:
                cursor.executemany(self._postgres, rows)
                return
            with cursor.copy(f"copy {self._into} from stdin") as copy:
                for row in rows:
                    copy.write_row(row)


class Each:
    """One statement for many rows of values, which stand in the places of its ?s."""

    def __init__(self, sql: str) -> None:
        self._sqlite = sql
        self._postgres = sql.replace("?", "%s")

    def on(self, connection: Connection, rows: Sequence[Row]) -> None:
        driver = _driver(connection)
        if connection.dialect.name == "sqlite":
            driver.executemany(self._sqlite, rows)
        else:
            with driver.cursor() as cursor:
                cursor.executemany(self._postgres, rows)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
