"""What one provider's scope now holds, made rows: only what is different, in one transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, and_, delete, insert, select, tuple_, update

from meshfed.catalog import preferences, pushes, rows
from meshfed.catalog.differences import (
    Claim,
    Difference,
    EndpointKey,
    Standing,
    by_key,
    change,
    difference,
    disputed,
    placed,
    standings,
    union,
)
from meshfed.catalog.model import Known, Service, Workload
from meshfed.catalog.preferences import NO_PREFERENCES, Preferences
from meshfed.catalog.schema import (
    CURRENT,
    acceptances,
    endpoints,
    ports,
    scopes,
    services,
    state,
    statements,
    workloads,
)
from meshfed.catalog.standing import condition, stood
from meshfed.catalog.writing import Writing

AT_ONCE = 400  # keys in one question: 4 values each, far below SQLite's 32,766


@dataclass(frozen=True, slots=True)
class Stored:
    """A scope as the database has it, with the ids of its rows."""

    scope: rows.Row | None
    services: Mapping[str, tuple[int, Service]]
    workloads: Mapping[str, tuple[int, Workload]]
    claims: Mapping[EndpointKey, tuple[int, Claim]]


def known(connection: Connection, provider: str, scope: str) -> Known | None:
    stored = _stored(connection, provider, scope)
    if stored.scope is None or stored.scope["revision"] is None:
        return None
    return Known(
        provider=provider,
        scope=scope,
        services=frozenset(service for _, service in stored.services.values()),
        workloads=frozenset(workload for _, workload in stored.workloads.values()),
        endpoints=frozenset(claim.endpoint for _, claim in stored.claims.values()),
        doubt=stored.scope["doubt"],
        stale=frozenset(key for key, (_, claim) in stored.claims.items() if claim.stale),
        rejected=rows.rejected(stored.scope["rejected"]),
    )


def believe(writing: Writing, believed: Known, kind: str) -> None:
    """Write what is different, if anything is."""
    stored = _stored(writing.connection, believed.provider, believed.scope)
    _services(writing, believed, stored)
    _workloads(writing, believed, stored)
    _endpoints(writing, believed, stored)
    _scope(writing, believed, kind, stored.scope)
    if writing.untold:  # other words for services whose union is what it was
        writing.tell("provider", believed.scope, "restated", believed.provider)


def _stored(connection: Connection, provider: str, scope: str) -> Stored:
    def current(table: Table) -> Iterable[rows.Row]:
        mine = and_(table.c.provider == provider, table.c.scope == scope, CURRENT)
        return connection.execute(select(table).where(mine)).mappings().all()

    one = and_(scopes.c.provider == provider, scopes.c.scope == scope)
    return Stored(
        scope=connection.execute(select(scopes).where(one)).mappings().one_or_none(),
        services={row["service"]: (row["id"], rows.service(row)) for row in current(statements)},
        workloads={row["workload"]: (row["id"], rows.workload(row)) for row in current(workloads)},
        claims={
            _key(row): (row["id"], Claim(rows.endpoint(row), bool(row["stale"])))
            for row in current(endpoints)
        },
    )


def _key(row: rows.Row) -> EndpointKey:
    return (row["service"], row["port"], row["address"], row["target"])


def _values(stored: Mapping[Any, tuple[int, Any]]) -> dict[Any, Any]:
    return {key: value for key, (_, value) in stored.items()}


# Services


def _services(writing: Writing, believed: Known, stored: Stored) -> None:
    said = by_key(believed.services, lambda service: str(service.name))
    moved = difference(_values(stored.services), said)
    if not moved:
        return
    source = {"provider": believed.provider, "scope": believed.scope}
    ids = {key: number for key, (number, _) in stored.services.items()}
    _replace(writing, statements, ids, moved, lambda s: {**source, **rows.service_row(s)})
    names = {name for name, *_ in (*moved.joined, *moved.altered, *moved.left)}
    _unions(writing, sorted(names), believed.provider)


def _unions(writing: Writing, names: list[str], provider: str) -> None:
    """The mesh's services, after what providers say of them has changed."""
    before: dict[str, tuple[int, Service]] = {}
    said: dict[str, list[tuple[str, str, Service]]] = {name: [] for name in names}
    for some in _portions(names):
        for row in _among(writing.connection, services, some):
            before[row["service"]] = (row["id"], rows.service(row))
        for row in _among(writing.connection, statements, some):
            said[row["service"]].append((row["provider"], row["scope"], rows.service(row)))
    unions = ((name, union(rows.service_name(name), told)) for name, told in said.items())
    after = {name: service for name, service in unions if service is not None}
    moved = difference(_values(before), after)
    if not moved:
        return
    ids = {name: number for name, (number, _) in before.items()}
    _replace(writing, services, ids, moved, rows.service_row)
    _ports(writing.connection, moved)
    for name, _ in moved.joined:
        writing.tell("service", name, "joined", provider)
    for name, *_ in moved.altered:
        writing.tell("service", name, "changed", provider)
    for name, _ in moved.left:
        writing.tell("service", name, "left", provider)
    writing.shape_moved()


def _ports(connection: Connection, moved: Difference[str, Service]) -> None:
    gone = [name for name, *_ in (*moved.altered, *moved.left)]
    for some in _portions(gone):
        connection.execute(delete(ports).where(ports.c.service.in_(some)))
    there = [service for _, service in moved.joined]
    there += [service for _, _, service in moved.altered]
    new = [
        {
            "service": str(service.name),
            "number": port.number,
            "name": port.name,
            "protocol": port.protocol.value,
        }
        for service in there
        for port in service.ports
    ]
    if new:
        connection.execute(insert(ports), new)


def _among(connection: Connection, table: Table, names: list[str]) -> Iterable[rows.Row]:
    return connection.execute(select(table).where(table.c.service.in_(names), CURRENT)).mappings()


# Workloads


def _workloads(writing: Writing, believed: Known, stored: Stored) -> None:
    seen = by_key(believed.workloads, lambda workload: workload.id)
    moved = difference(_values(stored.workloads), seen)
    if not moved:
        return
    ids = {key: number for key, (number, _) in stored.workloads.items()}
    _replace(writing, workloads, ids, moved, rows.workload_row)
    known = _elsewhere(writing.connection, believed, (*moved.joined, *moved.left))
    for _, _, workload in moved.altered:
        writing.tell("workload", workload.name, "changed", believed.provider)
    for key, workload in moved.joined:
        if key not in known:
            writing.tell("workload", workload.name, "joined", believed.provider)
    gone = [key for key, _ in moved.left if key not in known]
    for key, workload in moved.left:
        if key not in known:
            writing.tell("workload", workload.name, "left", believed.provider)
    if gone:
        pushes.forget(writing, gone)
    writing.shape_moved()


def _elsewhere(
    connection: Connection, believed: Known, some: Iterable[tuple[str, Workload]]
) -> set[str]:
    """Which of these are told by other scopes too, as only platforms' own ids can be."""
    keys = [key for key, workload in some if workload.resource_id]
    column = workloads.c.workload
    there = select(column).where(CURRENT, workloads.c.scope != believed.scope)
    return {
        key
        for portion in _portions(keys)
        for key in connection.execute(there.where(column.in_(portion))).scalars()
    }


# Endpoints


def _endpoints(writing: Writing, believed: Known, stored: Stored) -> None:
    seen = {
        key: Claim(endpoint, key in believed.stale)
        for key, endpoint in by_key(believed.endpoints, lambda e: e.key).items()
    }
    moved = difference(_values(stored.claims), seen)
    if not moved:
        return
    touched = [key for key, *_ in (*moved.joined, *moved.altered, *moved.left)]
    others = _others(writing.connection, believed, touched)
    federation = _federation(writing.connection) if others else NO_PREFERENCES
    writing.end(endpoints, (stored.claims[key][0] for key, _ in moved.left), "left")
    writing.end(endpoints, (stored.claims[key][0] for key, *_ in moved.altered))
    started = [("joined", key, claim) for key, claim in moved.joined]
    started += [(change(old, new), key, new) for key, old, new in moved.altered]
    versions = []
    for word, key, claim in started:
        claims = [claim.endpoint, *(rows.endpoint(row) for row in others.get(key, ()))]
        doubt = believed.doubt if claim.stale else ""
        versions.append(_version(claim, standings(claims, federation)[0], doubt) | {"change": word})
        writing.tell("endpoint", placed(key), word, believed.provider)
    for key, _ in moved.left:
        writing.tell("endpoint", placed(key), "left", believed.provider)
    writing.begin(endpoints, versions)
    if others:
        reconsider(writing, others, seen, federation)


def _others(
    connection: Connection, believed: Known, keys: list[EndpointKey]
) -> dict[EndpointKey, list[rows.Row]]:
    """What other scopes claim of the same endpoints."""
    found: dict[EndpointKey, list[rows.Row]] = {}
    columns = (endpoints.c.service, endpoints.c.port, endpoints.c.address, endpoints.c.target)
    mine = and_(endpoints.c.provider == believed.provider, endpoints.c.scope == believed.scope)
    for some in _portions(keys):
        claims = select(endpoints).where(tuple_(*columns).in_(some), CURRENT, ~mine)
        for row in connection.execute(claims).mappings():
            found.setdefault(_key(row), []).append(row)
    return found


def _federation(connection: Connection) -> Preferences:
    return preferences.read(connection.execute(select(state.c.federation)).scalar_one())


def contested(connection: Connection) -> dict[EndpointKey, list[rows.Row]]:
    """The endpoints that several claim."""
    found: dict[EndpointKey, list[rows.Row]] = {}
    claims = select(endpoints).where(CURRENT, endpoints.c.conflict != "")
    for row in connection.execute(claims.order_by(endpoints.c.id)).mappings():
        found.setdefault(_key(row), []).append(row)
    return found


def reconsider(
    writing: Writing,
    others: Mapping[EndpointKey, list[rows.Row]],
    seen: Mapping[EndpointKey, Claim],
    federation: Preferences,
) -> None:
    """Let claims stand or fall, now that this scope's, or the rules, have changed."""
    for key, claimed in others.items():
        theirs = [rows.endpoint(row) for row in claimed]
        mine = [seen[key].endpoint] if key in seen else []
        for row, standing in zip(claimed, standings([*theirs, *mine], federation), strict=False):
            before = Standing(bool(row["outranked"]), row["conflict"])
            if standing == before:
                continue
            claim = Claim(rows.endpoint(row), bool(row["stale"]))
            word = disputed(before, standing)
            writing.end(endpoints, [row["id"]])
            writing.begin(endpoints, [_version(claim, standing, row["doubt"])], word)
            writing.tell("endpoint", placed(key), word, row["provider"])


def _version(claim: Claim, standing: Standing, doubt: str) -> dict[str, Any]:
    return {
        **rows.endpoint_row(claim.endpoint),
        "stale": claim.stale,
        "doubt": doubt,
        "outranked": standing.outranked,
        "conflict": standing.conflict,
    }


# The scope itself


def _scope(writing: Writing, believed: Known, kind: str, before: rows.Row | None) -> None:
    mine = and_(scopes.c.provider == believed.provider, scopes.c.scope == believed.scope)
    said: dict[str, Any] = {
        "type": kind,
        "state": condition(before["fault"] if before else "", believed.doubt),
        "doubt": believed.doubt,
        "left_out": "; ".join(map(str, believed.rejected)),
        "rejected": rows.rejections(believed.rejected),
    }
    if before is None:
        writing.connection.execute(
            insert(scopes).values(provider=believed.provider, scope=believed.scope)
        )
    if before is None or before["revision"] is None:
        writing.tell("provider", believed.scope, "first seen", believed.provider)
        writing.allocate()  # a first belief is news even where it is empty
    if believed.doubt != (before["doubt"] if before else ""):
        word = f"doubted: {believed.doubt}" if believed.doubt else "believed again"
        writing.tell("provider", believed.scope, word, believed.provider)
        writing.allocate()
    if not believed.doubt:
        said["last_good"] = writing.now
        _consume(writing.connection, believed)
    moved = before is None or any(
        said[name] != before[name] for name in said if name != "last_good"
    )
    if moved or writing.begun:
        if writing.begun:
            said["revision"] = writing.allocate()
        writing.connection.execute(update(scopes).where(mine).values(said))
    if moved:
        stood(writing, believed.provider, believed.scope)


def _consume(connection: Connection, believed: Known) -> None:
    """What an operator accepted has been believed; the next doubt needs a word of its own."""
    accepted = and_(
        acceptances.c.provider == believed.provider, acceptances.c.scope == believed.scope
    )
    if connection.execute(select(acceptances.c.scope).where(accepted)).first():
        connection.execute(delete(acceptances).where(accepted))


def _replace(
    writing: Writing,
    table: Table,
    ids: Mapping[str, int],
    moved: Difference[str, Any],
    row: Any,
) -> None:
    writing.end(table, (ids[key] for key, _ in moved.left), "left")
    writing.end(table, (ids[key] for key, *_ in moved.altered))
    writing.begin(table, [row(value) for _, value in moved.joined], "joined")
    writing.begin(table, [row(value) for _, _, value in moved.altered], "changed")


def _portions(keys: list[Any]) -> Iterable[list[Any]]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
