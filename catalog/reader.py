"""SQL from anybody, answered without the power to change, lock or stall anything."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshfed.catalog.file import Away, readable, sqlite_file
from meshfed.catalog.views import VIEWS

MOST_BYTES = 64 * 2**20  # of one answer
MOST_MEMORY = 256 * 2**20  # of SQLite in this process, which is a command's and ends with it
LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,  # ATTACH and VACUUM INTO would write files, mode=ro or not
    sqlite3.SQLITE_LIMIT_LENGTH: 8 * 2**20,  # of one value: zeroblob(1e9) takes one instruction
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,  # matching is quadratic, between two ticks
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
STEPS = 100  # SQLite instructions between two looks at the clock: each may take a millisecond
# What SQLite may compute: nothing that loads, logs, shows pointers, or asks SQL of its own.
COMPUTED = """
-> ->> abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce cos cosh count
cume_dist current_date current_time current_timestamp date datetime degrees dense_rank exp
first_value floor format glob group_concat hex ifnull iif instr json json_array json_array_length
json_extract json_group_array json_group_object json_insert json_object json_quote json_remove
json_replace json_set json_type json_valid julianday lag last_value lead length like likelihood
likely ln log log10 log2 lower ltrim max min mod nth_value ntile nullif percent_rank pi pow power
printf quote radians random randomblob rank replace round row_number rtrim sign sin sinh soundex
sqlite_version sqrt strftime string_agg substr substring sum tan tanh time timediff total trim
trunc typeof unhex unicode unixepoch unlikely upper zeroblob
"""
FUNCTIONS = frozenset(COMPUTED.split())
# A call of these may take hours, in which SQLite does not look at the clock once.
SLOW = {"instr": 2, "replace": 3, "trim": 2, "ltrim": 2, "rtrim": 2, "printf": -1, "format": -1}
MOST_WORK = 10**8  # comparisons in one of them: a tenth of a second
WIDTH = re.compile(r"\d{8}|\*")  # in a format
SCHEMA = {"sqlite_schema", "sqlite_master"}
OPEN = {view.name for view in VIEWS} | SCHEMA
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}
ASIDE = {"not", "materialized"}
# What SQLite reads as one: a comment, text or a name in quotes, a name, or a sign.
TOKEN = re.compile(
    r"(?P<aside>\s+|--[^\n]*|/\*.*?(?:\*/|$))|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`"
    r"|\[[^\]]*\]|\w+|.",
    re.DOTALL,
)

Cell = str | bytes | int | float | None


class Refused(ValueError):
    """The statement is wrong, does more than read, or takes too much; the message says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def query(url: str, sql: str, *, seconds: float = 5.0, rows: int = 10_000) -> Answer:
    """What one select answers, within so many seconds and rows. Raises Refused, Away."""
    statement = sql.strip().rstrip(";").rstrip()
    if not statement or "\0" in statement:
        raise Refused("there is no statement: ask one select, of the mesh_… views")
    if (file := sqlite_file(url)) is not None:
        return _sqlite(Path(file), statement, seconds, rows)
    from meshfed.catalog.reader_postgres import asked  # a quarter of a second that SQLite is spared

    return asked(url, statement, seconds, rows)


# What a statement may do


def permitted(action: int, one: str | None, two: str | None, _: str | None, via: str | None) -> int:
    """SQLite's question before each part of a statement: reading views is all there is."""
    if action in READING:
        return sqlite3.SQLITE_OK
    # A table that is joined for its rows alone is asked about without a column, or its view.
    counted = two == ""
    inside = (counted or via in OPEN) and one != "authority"
    if action == sqlite3.SQLITE_READ and (one in OPEN or inside):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and two in FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def bounded(name: str, inner: sqlite3.Connection) -> Callable[..., Cell]:
    """One of the SLOW functions, as it is, for arguments that it is done with at once."""

    def call(*arguments: Cell) -> Cell:
        texts = [str(each) for each in arguments[:2]]
        if name in ("printf", "format"):
            slow = any(map(WIDTH.search, texts[:1]))
        else:
            slow = len(texts[0]) * len(texts[1]) > MOST_WORK
        if slow:
            raise ValueError(name)  # which SQLite keeps to itself: see _explanation
        marks = ", ".join("?" * len(arguments))
        answer: Cell = inner.execute(f"select {name}({marks})", arguments).fetchone()[0]
        return answer

    return call


def _size(row: tuple[Any, ...]) -> int:
    return sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in row)


def taken(rows: Iterator[tuple[Any, ...]], most: int) -> tuple[tuple[Any, ...], ...]:
    kept: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        size += _size(row)
        if len(kept) == most:
            raise Refused(f"the answer has more than {most} rows: add a `limit`, or a condition")
        if size > MOST_BYTES:
            raise Refused(f"the answer has more than {MOST_BYTES >> 20} MB: select fewer columns")
        kept.append(row)
    return tuple(kept)


# SQLite


def named_as_a_view(statement: str) -> str:
    """The view whose name `with` gives to something else; "" mostly.

    SQLite would take what that reads for what the view reads.
    """
    tokens = [found[0] for found in TOKEN.finditer(statement) if not found["aside"]]
    for at, token in enumerate(tokens):
        name = token.strip("'\"`[]").lower()
        if name in OPEN and _is_made(tokens[at + 1 :]):
            return name
    return ""


def _is_made(after: list[str]) -> bool:
    """Whether what follows a name says what it is: `as (…)`, perhaps with columns before it."""
    if after[:1] == ["("]:
        after = after[after.index(")") + 1 :] if ")" in after else []
    words = [token.lower() for token in after[:4]]
    return words[:1] == ["as"] and "(" in words and {*words[1 : words.index("(")]} <= ASIDE


def _sqlite(file: Path, statement: str, seconds: float, most: int) -> Answer:
    if view := named_as_a_view(statement):
        raise Refused(f"{view} is a view's name: give what you select in `with` another")
    address = readable(file)
    until = time.monotonic() + seconds
    with (
        _explained(seconds),
        closing(sqlite3.connect(address, uri=True)) as connection,
        closing(sqlite3.connect(":memory:")) as inner,
    ):
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        connection.execute("pragma query_only = on")
        for name, count in SLOW.items():
            connection.create_function(name, count, bounded(name, inner), deterministic=True)
        # What is sorted goes to a disk otherwise: 1.8 GB in five seconds, measured.
        connection.execute("pragma temp_store = memory")
        connection.execute(f"pragma hard_heap_limit = {MOST_MEMORY}")
        connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
        connection.set_authorizer(permitted)
        cursor = connection.execute(statement)
        columns = tuple(str(column[0]) for column in cursor.description or ())
        return Answer(columns, taken(cursor, most))


@contextmanager
def _explained(seconds: float) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise Refused(f"it takes more than {MOST_MEMORY >> 20} MB of memory") from error
    except (sqlite3.DatabaseError, sqlite3.Warning) as error:
        raise _explanation(error, seconds) from error


MADE = "vtable constructor failed: "  # SQLite's words for a table that a function makes


def _explanation(error: Exception, seconds: float) -> Exception:
    extended = getattr(error, "sqlite_errorcode", None)
    code = None if extended is None else extended & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        return Refused(f"it took more than {seconds:g} s and was stopped")
    if "user-defined function" in str(error):
        return Refused(f"{', '.join(SLOW)} of so much text, or so wide, would take too long")
    if str(error).startswith(MADE):
        name = str(error).removeprefix(MADE)
        why = f"{name} is a table of SQLite's own: only the mesh_… views are read"
        return Refused(f"{why}; json_extract(column, '$.key') takes a value out of JSON")
    # `create` is denied as SQLITE_SCHEMA, with these words.
    if code == sqlite3.SQLITE_AUTH or "not authorized" in str(error):
        return Refused(f"{error}: only selects of the mesh_… views are answered")
    # SQLITE_SCHEMA: a connection's first statement names a column that is not there.
    if code in (None, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_TOOBIG):
        return Refused(str(error))
    return Away(f"the catalog is away: {error}")
