"""How many calls went where, minute by minute: what each replica heard from its sidecars.

A replica writes a minute's sums in rows of its own, as they stand: to write them twice, because
nobody knows whether the first time was committed, changes nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from meshfed.catalog.plain import Each, Plain


class Edge(NamedTuple):
    """From whom to where; what is not known is empty."""

    source_identity: str
    service: str  # that the caller asked for
    version: str = ""  # the backend of its split that it was given
    platform: str = ""
    zone: str = ""  # <region>/<zone>


class Load(NamedTuple):
    """What is known of an edge in one minute."""

    requests: int  # that ended, answered or not; of TCP, connections that began
    failed: int
    in_flight: int  # at the minute's end


KEY = ("minute", "replica", *Edge._fields)
COUNTED = (*KEY, *Load._fields)

WRITTEN = Each(
    f"insert into traffic ({', '.join(COUNTED)}) values ({', '.join('?' for _ in COUNTED)})"
    f" on conflict ({', '.join(KEY)}) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in Load._fields)
)
PRUNED = Plain(
    f"delete from traffic where ({', '.join(KEY)}) in (select {', '.join(KEY)} from traffic"
    " where minute < :before order by minute limit :most) returning 1"
)

Sums = Mapping[tuple[str, Edge], Load]  # by minute, as `stamp` writes its beginning


def count(connection: Connection, replica: str, sums: Sums) -> None:
    """Make this what the replica knows of these edges in these minutes."""
    rows = sorted((minute, replica, *edge, *load) for (minute, edge), load in sums.items())
    WRITTEN.on(connection, rows)


def prune(connection: Connection, before: str, most: int) -> int:
    """Take away some of the minutes that began before; how many rows, 0 when all is done."""
    return len(PRUNED.rows(connection, before=before, most=most))
