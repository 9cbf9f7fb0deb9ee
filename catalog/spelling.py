"""What a view is: columns with comments, and SQL that both databases understand."""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

SILENT = 30  # seconds without a word from the replica that serves a proxy

# What the two databases spell differently.
SPELT: Mapping[str, Mapping[str, str]] = {
    "sqlite": {
        "list": "group_concat",
        "name": "substr(s.service, 1, instr(s.service, '.') - 1)",
        "namespace": "substr(s.service, instr(s.service, '.') + 1)",
        "age": "cast((julianday('now') - julianday(s.last_good)) * 86400 as integer)",
        "silent": f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{SILENT} seconds')",
    },
    "postgresql": {
        "list": "string_agg",
        "name": "split_part(s.service, '.', 1)",
        "namespace": "split_part(s.service, '.', 2)",
        "age": "cast(trunc(extract(epoch from clock_timestamp()"
        " - cast(s.last_good as timestamptz))) as integer)",
        "silent": "to_char((clock_timestamp() at time zone 'UTC')"
        f" - interval '{SILENT} seconds', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
    },
}


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    sql: str
    comment: str


@dataclass(frozen=True, slots=True)
class View:
    name: str
    comment: str
    columns: tuple[Column, ...]
    source: str

    def select(self, dialect: str) -> str:
        columns = ",\n  ".join(f"{column.sql} as {column.name}" for column in self.columns)
        return Template(f"select\n  {columns}\nfrom {self.source}").substitute(SPELT[dialect])


def view(name: str, comment: str, source: str, *columns: tuple[str, str, str]) -> View:
    return View(name, comment, tuple(Column(*column) for column in columns), source)


def listed(what: str, source: str) -> str:
    """The different values of something, in order, as one text."""
    values = f"select distinct {what} as value from {source} order by 1"
    return f"coalesce((select $list(value, ', ') from ({values}) as listed), '')"


SINCE = (
    ("since", "{}.valid_from", "When it became as it is now"),
    ("revision", "{}.valid_from_revision", "The revision that made it so"),
)


def since(table: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, sql.format(table), comment) for name, sql, comment in SINCE)


def lived(table: str) -> tuple[tuple[str, str, str], ...]:
    """From when until when a version was in force, how it began, and what brought it about."""
    ended = f"{table}.change || case when {table}.ended = '' then '' else ', ' || {table}.ended end"
    return (
        ("valid_from_revision", f"{table}.valid_from_revision", "The first revision it was so"),
        ("valid_from", f"{table}.valid_from", "When that was"),
        ("valid_to_revision", f"{table}.valid_to_revision",
         "The revision that ended it; null: none yet"),
        ("valid_to", f"{table}.valid_to", "When that was"),
        ("change", ended,
         "How this version began (joined, health lost, …), and `left` where nothing followed it"),
        ("cause", f"{table}.cause", "What brought it about"),
    )  # fmt: skip
