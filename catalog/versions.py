"""Tables whose rows are versions: how one is found, how it begins, and how it ends."""

from collections.abc import Iterable

from meshfed.catalog import rows
from meshfed.catalog.plain import Into, Plain, Several

BEGAN = ("change", "cause", "valid_from_revision", "valid_from")
CURRENT = "valid_to_revision is null"


class Versions:
    """One such table, as far as a writer fills it: these columns, of which some are its key."""

    def __init__(self, table: str, columns: Iterable[str], key: Iterable[str]) -> None:
        self.table = table
        self.columns = tuple(columns)
        names = tuple(key)
        one = " and ".join(f"{name} = ?" for name in names)
        lot = " and ".join(f"e.{name} = k.column{at}" for at, name in enumerate(names, 1))
        self.began = Into(table, self.columns, BEGAN)
        self.ended = Several(
            f"update {table} set valid_to_revision = ?, valid_to = ?, ended = ?"
            f" where {CURRENT} and {one}",
            f"update or fail {table} set valid_to_revision = ?1, valid_to = ?2, ended = ?3"
            f" where id in (select e.id from (values $rows) as k cross join {table} as e"
            f" where e.{CURRENT} and {lot})",
            len(names),
            same=3,
        )

    def current(self, where: str = "1 = 1", order: str = "") -> Plain:
        """The versions in force, of all or of some."""
        chosen = f"{CURRENT} and {where} order by {order}" if order else f"{CURRENT} and {where}"
        return Plain(f"select {self.listed()} from {self.table} where {chosen}")

    def listed(self, prefix: str = "") -> str:
        return ", ".join(f"{prefix}{name}" for name in self.columns)


ENDPOINT_KEY = ("service", "port", "address", "target")
SAID = ("said", "said_reason")
CLAIM = ("stale", "doubt", "outranked", "conflict")

STATEMENTS = Versions(
    "statements", ("provider", "scope", *rows.STATEMENT), ("provider", "scope", "service")
)
SERVICES = Versions("services", rows.SERVICE, ("service",))
WORKLOADS = Versions("workloads", rows.WORKLOAD, ("provider", "scope", "workload"))
ENDPOINTS = Versions(
    "endpoints", (*rows.ENDPOINT, *SAID, *CLAIM), ("provider", "scope", *ENDPOINT_KEY)
)
