"""Where the running parts stand: replicas, proxies, and the files that policies come from."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from meshfed.catalog.database import Away, Database, seconds
from meshfed.catalog.leadership import NOBODY, Leader, leader
from meshfed.catalog.model import Rejected
from meshfed.catalog.rows import rejected
from meshfed.catalog.schema import CURRENT, joined, policies, proxies, replicas, scopes, state


@dataclass(frozen=True, slots=True)
class Replica:
    """One control plane, as it last said of itself."""

    name: str
    evaluated: int  # the revision that is in every world it serves
    seen_at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Connected:
    """One connected proxy, as its replica last said of it."""

    proxy: str  # Workload.id
    workload: str
    identity: str
    replica: str
    state: str
    reason: str
    behind: int | None  # the oldest revision it has not acknowledged
    connected_since: float
    envoy_version: str


@dataclass(frozen=True, slots=True)
class Bearings:
    revision: int
    committed_at: float | None  # of that revision; None where nothing ever happened
    now: float | None  # the database's own clock; None for SQLite, which is this machine's
    replicas: tuple[Replica, ...]
    proxies: tuple[Connected, ...]
    policies: Mapping[tuple[str, str], str]  # (kind, namespace/name) → where it stands
    rejected: Mapping[tuple[str, str], tuple[Rejected, ...]]  # (provider, scope) → what it left out
    leader: Leader = NOBODY
    joined: frozenset[str] = frozenset()  # workloads that joined: each has an agent


def bearings(connection: Connection) -> Bearings:
    now = connection.execute(select(state)).mappings().one()
    there = select(policies).where(CURRENT, policies.c.state == "accepted")
    return Bearings(
        revision=now["revision"],
        committed_at=seconds(now["at"]) if now["at"] else None,
        now=_clock(connection),
        replicas=tuple(
            Replica(row["replica"], row["evaluated"], seconds(row["seen_at"]))
            for row in connection.execute(select(replicas).order_by("replica")).mappings()
        ),
        proxies=tuple(
            Connected(
                proxy=row["proxy"],
                workload=row["workload"],
                identity=row["identity"],
                replica=row["replica"],
                state=row["state"],
                reason=row["reason"],
                behind=row["behind"],
                connected_since=seconds(row["connected_since"]),
                envoy_version=row["envoy_version"],
            )
            for row in connection.execute(select(proxies).order_by("workload", "proxy")).mappings()
        ),
        policies={
            (row["kind"], f"{row['namespace']}/{row['name']}"): row["file"]
            for row in connection.execute(there).mappings()
        },
        rejected={
            (row["provider"], row["scope"]): rejected(row["rejected"])
            for row in connection.execute(select(scopes)).mappings()
            if row["rejected"]
        },
        leader=leader(connection),
        joined=frozenset(connection.execute(select(joined.c.workload)).scalars()),
    )


def _clock(connection: Connection) -> float | None:
    if connection.dialect.name == "sqlite":
        return None
    asked = text("select cast(extract(epoch from clock_timestamp()) as double precision)")
    return float(connection.execute(asked).scalar_one())


class Undone(Exception):
    """Takes back what was written to see whether it can be."""


def unwritable(url: str) -> str:
    """Why nothing can be written there, or nothing. Leaves no trace."""
    database = Database(url)

    def attempt(connection: Connection) -> None:
        connection.execute(text("update state set revision = revision"))
        raise Undone

    try:
        database.write(attempt)
    except Undone:
        return ""
    except Away as away:
        return str(away)
    except DBAPIError as error:  # a role without the right, or a standby
        return str(error.orig).strip().partition("\n")[0]
    finally:
        database.close()
    raise AssertionError("the attempt always ends in Undone")
