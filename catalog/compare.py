"""What differs between two moments: services, endpoints, policies, access."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from meshfed.catalog import past
from meshfed.catalog.differences import difference
from meshfed.catalog.moment import Moment, Named, found
from meshfed.catalog.schema import policies, state

Row = Mapping[str, Any]
Rows = tuple[Row, ...]

# What makes a row the same thing at both moments, and what is no difference by itself.
KEYS = {
    "mesh": ("name",),
    "service": ("service",),
    "endpoint": ("service", "address", "port", "provider", "scope"),
    "policy": ("kind", "namespace", "name", "source", "slot"),
    "access": ("source_identity", "destination_service", "port", "methods", "path", "headers",
               "policy", "destination_identity", "protocol"),
    "split": ("policy", "service", "backend"),
}  # fmt: skip
ASIDE = {"since", "revision", "share"}


@dataclass(frozen=True, slots=True)
class Changed:
    """One thing that is not what it was."""

    what: str
    object: str
    change: str  # joined, left or changed; of access: gained or lost
    detail: str


@dataclass(frozen=True, slots=True)
class Compared:
    before: Moment
    after: Moment
    changed: tuple[Changed, ...]


def compared(url: str, before: Named, after: Named) -> Compared:
    """Raises Unknown, Away."""

    def look(connection: Connection) -> Compared:
        moments = (found(connection, before), found(connection, after))
        there = [_at(connection, moment) for moment in moments]
        changed = (c for what in KEYS for c in differences(what, there[0][what], there[1][what]))
        return Compared(*moments, tuple(changed))

    return past.looked(url, look)


def differences(what: str, before: Rows, after: Rows) -> Iterable[Changed]:
    moved = difference(_keyed(what, before), _keyed(what, after))
    gained, lost = ("gained", "lost") if what == "access" else ("joined", "left")
    for _, row in moved.joined:
        yield Changed(what, _named(what, row), gained, _introduced(what, row))
    for _, old, new in moved.altered:
        if told := _told(old, new):
            yield Changed(what, _named(what, new), "changed", told)
    for _, row in moved.left:
        yield Changed(what, _named(what, row), lost, "")


def _keyed(what: str, rows: Rows) -> dict[tuple[Any, ...], Row]:
    return {tuple(row[name] for name in KEYS[what]): row for row in rows}


def _told(old: Row, new: Row) -> str:
    """`weight 1 → 3; health healthy → unhealthy`."""
    pairs = [(name, old[name], new[name]) for name in new if name not in ASIDE]
    written = [pair for pair in pairs if pair[0] == "document" and pair[1] != pair[2]]
    pairs = [pair for pair in pairs if pair[0] != "document"] + [
        part for _, was, now in written for part in _parts(was, now)
    ]
    return "; ".join(
        f"{name.replace('_', ' ')} {_shown(was)} → {_shown(now)}"
        for name, was, now in pairs
        if was != now
    )


def _parts(old: str, new: str) -> list[tuple[str, Any, Any]]:
    """The parts of two versions of a policy."""
    was, now = (json.loads(text) if text else {} for text in (old, new))
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return [("matches", was, now)]
    return [(name, was.get(name), now.get(name)) for name in {**was, **now}]


def _shown(value: Any) -> str:
    if value in ("", None, {}):
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _introduced(what: str, row: Row) -> str:
    names = {
        "endpoint": ("identity", "weight", "health", "provider"),
        "service": ("ports",),
        "split": ("weight",),
    }
    told = [f"{name} {_shown(row[name])}" for name in names.get(what, ())]
    return ", ".join(told) or str(row.get("reason") or "")


def _named(what: str, row: Row) -> str:
    match what:
        case "endpoint":
            literal = f"[{row['address']}]" if ":" in row["address"] else row["address"]
            return f"{row['service']} at {literal}:{row['port']}"
        case "policy":
            return f"{row['kind']} {row['namespace']}/{row['name']}"
        case "split":
            return f"{row['service']} to {row['backend']} by {row['policy']}"
        case "access":
            return _access(row)
        case _:
            return str(row[KEYS[what][0]])


def _access(row: Row) -> str:
    how = (row["methods"], row["path"], row["headers"])
    told = " ".join(("", *filter(None, how)))
    to = f"{row['destination_service']}:{row['port']}"
    return f"{row['source_identity']} may call {to}{told} by {row['policy']}"


# What is asked of the database


def _at(connection: Connection, moment: Moment) -> dict[str, Rows]:
    with past.shadowed(connection, moment):
        return {
            "mesh": _mesh(connection),
            "service": _rows(connection, "mesh_services", "service"),
            "endpoint": _rows(connection, "mesh_endpoints", "service, address, port"),
            "policy": _policies(connection),
            "access": _rows(connection, "mesh_access", "policy, source_identity"),
            "split": _rows(connection, "mesh_splits", "service, backend"),
        }


def _mesh(connection: Connection) -> Rows:
    """Who may call is not only a matter of policies."""
    settings = select(state.c.trust_domain, state.c.permissive, state.c.federation)
    now = connection.execute(settings).mappings().one()
    return tuple({"name": name, "value": now[name]} for name in now)


def _rows(connection: Connection, view: str, order: str) -> Rows:
    answer = past.listing(connection, view, order)
    return tuple(dict(zip(answer.columns, row, strict=True)) for row in answer.rows)


def _policies(connection: Connection) -> Rows:
    names = ("kind", "namespace", "name", "source", "slot", "state", "field", "reason", "document")
    asked = select(*(policies.c[name] for name in names))
    ordered = asked.order_by(policies.c.kind, policies.c.namespace, policies.c.name)
    return tuple(dict(row) for row in connection.execute(ordered).mappings())
