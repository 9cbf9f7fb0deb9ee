"""What happened to a service, an address or a workload: joined, left, health lost, by whom, why."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, or_, select

from meshfed.catalog import rows
from meshfed.catalog.differences import placed
from meshfed.catalog.schema import changes, endpoints, services, workloads

Row = Mapping[str, Any]

# What is told of a version that follows another, in this order.
TOLD = {
    "endpoint": (
        "health", "health_reason", "weight", "identity", "stale", "doubt", "conflict", "outranked",
        "interception", "region", "zone", "network", "cluster", "workload", "platform",
    ),
    "service": ("ports", "vip", "virtual_ips", "plaintext"),
    "workload": (
        "identity", "addresses", "interception", "bind", "application", "network", "region",
        "zone", "labels", "platform", "resource_id", "cluster",
    ),
}  # fmt: skip
KEY = {
    "endpoint": ("provider", "scope", "service", "port", "address", "target"),
    "service": ("service",),
    "workload": ("workload",),
}
# Told under the revision that stands, which somebody else may have made.
ASIDE = ("provider", "join", "token")
TABLE = {"endpoint": endpoints, "service": services, "workload": workloads}


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One thing that happened, and who or what brought it about."""

    at: str
    revision: int
    what: str
    object: str
    change: str
    detail: str
    provider: str
    cause: str
    who: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Whether a name was ever known, and what happened to it."""

    known: bool
    events: tuple[Event, ...]


def happened(connection: Connection, name: str, since: str, target: int | None = None) -> Happened:
    """Everything that is kept of a service, an address or a workload, oldest first.

    Of an address it may be one port alone, the application's.
    """
    ids = set(connection.execute(_ids(name)).scalars())
    concerned = or_(
        endpoints.c.service == name, endpoints.c.address == name, endpoints.c.workload.in_(ids)
    )
    if target is not None:
        concerned = and_(concerned, endpoints.c.target == target)
    found = {
        "endpoint": _versions(connection, endpoints, concerned),
        "service": _versions(connection, services, services.c.service == name),
        "workload": _versions(connection, workloads, workloads.c.workload.in_(ids)),
    }
    events = [event for what, versions in found.items() for event in lived(what, versions)]
    scopes = {row["scope"] for row in (*found["endpoint"], *found["workload"])}
    providers = {row["provider"] for row in (*found["endpoint"], *found["workload"])}
    events += _troubles(connection, scopes | providers)
    late = [event for event in events if event.at >= since]
    return Happened(bool(any(found.values())), _signed(connection, late))


# Versions as events


def lived(what: str, versions: Iterable[Row]) -> Iterator[Event]:
    """The life of each thing from its versions, which come in order."""
    before: dict[tuple[Any, ...], Row] = {}
    for row in versions:
        key = tuple(row[name] for name in KEY[what])
        ended = before.get(key)
        follows = ended is not None and ended["valid_to_revision"] == row["valid_from_revision"]
        detail = differing(what, ended, row) if follows and ended else introduced(what, row)
        at, revision = row["valid_from"], row["valid_from_revision"]
        yield _event(what, row, at, revision, row["change"], detail, row["cause"])
        if row["ended"]:
            yield _event(what, row, row["valid_to"], row["valid_to_revision"], row["ended"], "", "")
        before[key] = row


def introduced(what: str, row: Row) -> str:
    if what == "service":
        return _shown("ports", row["ports"])
    who = row["identity"] or "nobody known"
    if what == "workload":
        return f"{row['platform']}, {who}"
    parts = (f"weight {row['weight']}", row["health"], row["health_reason"], row["doubt"])
    return ", ".join((who, *filter(None, parts)))


def differing(what: str, before: Row, after: Row) -> str:
    """What became different, as `weight 1 → 3`."""
    return "; ".join(
        f"{name.replace('_', ' ')} {_shown(name, before[name])} → {_shown(name, after[name])}"
        for name in TOLD[what]
        if before[name] != after[name]
    )


def _shown(name: str, value: Any) -> str:
    if name == "ports":
        found = rows.ports(value)
        return ", ".join(f"{p.number}/{p.name}" if p.name else str(p.number) for p in found)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) or "none"


def _event(
    what: str, row: Row, at: str, revision: int, change: str, detail: str, cause: str
) -> Event:
    match what:
        case "endpoint":
            thing = placed((row["service"], row["port"], row["address"], row["target"]))
        case "workload":
            thing = row["name"]
        case _:
            thing = row["service"]
    provider = row.get("provider", "")
    return Event(at, revision, what, thing, change, detail, provider, cause, "")


# What is asked of the database


def _ids(name: str) -> Any:
    return select(workloads.c.workload).where(workloads.c.name == name).distinct()


def _versions(connection: Connection, table: Table, concerned: ColumnElement[bool]) -> list[Row]:
    asked = select(table).where(concerned).order_by(table.c.valid_from_revision, table.c.id)
    return [dict(row) for row in connection.execute(asked).mappings()]


def _troubles(connection: Connection, names: set[str]) -> Iterator[Event]:
    """What became of the providers and scopes that saw it: their doubts, and orders."""
    asked = select(changes).where(changes.c.what == "provider", changes.c.object.in_(names))
    for row in connection.execute(asked.order_by(changes.c.id)).mappings():
        change, _, detail = row["change"].partition(": ")
        yield Event(
            row["at"], row["revision"], "provider", row["object"], change, detail,
            row["provider"], row["cause"], row["who"],
        )  # fmt: skip


def _signed(connection: Connection, events: list[Event]) -> tuple[Event, ...]:
    """With the cause and the person of each revision, which stand in `changes`."""
    found: dict[int, Row] = {}
    revisions = sorted({event.revision for event in events if event.what != "provider"})
    for start in range(0, len(revisions), 400):
        some = revisions[start : start + 400]
        made = changes.c.what.not_in(ASIDE)
        asked = select(changes).where(changes.c.revision.in_(some), made)
        found.update({row["revision"]: row for row in connection.execute(asked).mappings()})
    return tuple(sorted(_sign(event, found.get(event.revision)) for event in events))


def _sign(event: Event, line: Row | None) -> Event:
    if event.what == "provider" or line is None:
        return event
    return replace(event, cause=event.cause or line["cause"], who=line["who"])
