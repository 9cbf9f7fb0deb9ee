"""SQL that goes to the driver as it is: SQLAlchemy's way there costs ten times what it runs for."""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

Row = tuple[Any, ...]

NAME = re.compile(r"(?<![:\w]):(\w+)")
AMONG = re.compile(r"\$among\((\w+)\)")
EACH = re.compile(r"\$each\((\w+)\)")
FEW = 4  # rows; for more of them COPY takes a quarter of the time
LOTS = (64, 8)  # rows that SQLite takes in one statement
LISTED = 1000  # rows that are one list: to write it as JSON takes a millisecond


class Plain:
    """One statement with :names, with $among(names) where it is any of a list, and $each(names)."""

    def __init__(self, sql: str, *, postgresql: str = "") -> None:
        self._sqlite = AMONG.sub(r"in (select value from json_each(:\1))", sql)
        self._sqlite = EACH.sub(r"json_each(:\1)", self._sqlite)
        postgres = EACH.sub(r"json_array_elements(cast(:\1 as json))", postgresql or sql)
        self._postgres = NAME.sub(r"%(\1)s", AMONG.sub(r"= any(:\1)", postgres))

    def run(self, connection: "Connection", **values: object) -> None:
        self._on(connection, values)

    def rows(self, connection: "Connection", **values: object) -> list[Row]:
        answer: list[Row] = self._on(connection, values).fetchall()
        return answer

    def row(self, connection: "Connection", **values: object) -> Row | None:
        return next(iter(self.rows(connection, **values)), None)

    def _on(self, connection: "Connection", values: dict[str, object]) -> Any:
        if connection.dialect.name == "postgresql":
            return _driver(connection).execute(self._postgres, values)
        lists = {name: json.dumps(one) for name, one in values.items() if isinstance(one, list)}
        return _driver(connection).execute(self._sqlite, {**values, **lists})


class Gathered:
    """A question whose answer is one row, however many there are.

    Before each row that SQLite's module fetches other threads have their turn: where the loop is
    busy that is 5 ms, and of 5,000 rows as many seconds as nobody has.
    """

    def __init__(self, columns: str, rest: str) -> None:
        self._plain = Plain(
            f"select json_group_array(json_array({columns})) {rest}",
            postgresql=f"select coalesce(json_agg(json_build_array({columns})), '[]') {rest}",
        )

    def rows(self, connection: "Connection", **values: object) -> list[list[Any]]:
        ((found,),) = self._plain.rows(connection, **values)
        answer: list[list[Any]] = json.loads(found) if isinstance(found, str) else found
        return answer


class Listed:
    """One statement for many rows of values, the arrays of its $each(rows).

    Between two statements Python gives other threads their turn, and where the loop is busy that
    is 5 ms, in which nobody else may write. Postgres takes no NUL in them.
    """

    def __init__(self, sql: str) -> None:
        self._plain = Plain(sql)

    def on(self, connection: "Connection", rows: Sequence[Row]) -> None:
        for at in range(0, len(rows), LISTED):
            self._plain.run(connection, rows=json.dumps(rows[at : at + LISTED]))


class Each:
    """One statement for many rows of values, which stand in the places of its ?s."""

    def __init__(self, sql: str) -> None:
        self._sqlite = sql
        self._postgres = sql.replace("?", "%s")

    def on(self, connection: "Connection", rows: Sequence[Row]) -> None:
        driver = _driver(connection)
        if connection.dialect.name == "sqlite":
            driver.executemany(self._sqlite, rows)
        elif len(rows) == 1:
            driver.execute(self._postgres, rows[0])
        else:
            driver.cursor().executemany(self._postgres, rows)


class Several:
    """One statement for each row of values, or for SQLite one for a lot of them, its $rows.

    After each statement Python gives other threads their turn, and where the loop is busy that is
    5 ms. `or fail`: SQLite would else write all that a lot changes to a file, to undo it alone.
    """

    def __init__(self, one: str, lot: str, width: int, same: int = 0) -> None:
        """The first values, so many of them, are the same for all rows."""
        self._one = Each(one)
        self._lots = [(n, Each(lot.replace("$rows", _places(n, width, same)))) for n in LOTS]

    def on(self, connection: "Connection", rows: Sequence[Row], same: Row = ()) -> None:
        left = rows
        for size, lot in self._lots if connection.dialect.name == "sqlite" else ():
            starts = range(0, len(left) - size + 1, size)
            if starts:
                lots = (chain.from_iterable(left[at : at + size]) for at in starts)
                lot.on(connection, [(*same, *values) for values in lots])
                left = left[len(starts) * size :]
        if left:
            self._one.on(connection, [(*same, *row) for row in left])


def _places(size: int, width: int, same: int) -> str:
    given = [f"?{same + number + 1}" for number in range(size * width)]
    rows = (given[at : at + width] for at in range(0, len(given), width))
    return ", ".join(f"({', '.join(row)})" for row in rows)


class Into:
    """Many rows of a table at once; the columns of `same` come first, with one value for all."""

    def __init__(self, table: str, columns: Iterable[str], same: Iterable[str] = ()) -> None:
        own, shared = tuple(columns), tuple(same)
        into = f"{table} ({', '.join((*shared, *own))})"
        given = "".join(f"?{number + 1}, " for number in range(len(shared)))
        self._several = Several(
            f"insert into {into} values ({', '.join('?' * len((*shared, *own)))})",
            f"insert or fail into {into} select {given}* from (values $rows)",
            len(own),
            len(shared),
        )
        self._copied = f"copy {into} from stdin"

    def on(self, connection: "Connection", rows: Sequence[Row], same: Row = ()) -> None:
        if connection.dialect.name == "postgresql" and len(rows) > FEW:
            with _driver(connection).cursor().copy(self._copied) as copy:
                for row in rows:
                    copy.write_row((*same, *row))
        else:
            self._several.on(connection, rows, same)


def _driver(connection: "Connection") -> Any:
    return connection.connection.driver_connection
