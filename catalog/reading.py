"""The mesh out of the tables: whole, or only what moved since a revision."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, select, union

from meshfed.catalog import preferences, rows
from meshfed.catalog.model import Changed, Endpoint, Mesh, ServiceName
from meshfed.catalog.schema import CURRENT, endpoints, services, state, workloads
from meshfed.catalog.specify import in_force

K = TypeVar("K")
V = TypeVar("V")

AT_ONCE = 400  # names in one question


def read(connection: Connection) -> Mesh:
    """Everything, at the newest revision."""
    now = connection.execute(select(state)).mappings().one()
    found = _current(connection, services)
    running = _current(connection, workloads)
    return Mesh(
        trust_domain=now["trust_domain"],
        permissive=bool(now["permissive"]),
        preferences=preferences.read(now["federation"]),
        revision=now["revision"],
        services=MappingProxyType(
            {rows.service_name(row["service"]): rows.service(row) for row in found}
        ),
        endpoints=MappingProxyType(_by_service(_current(connection, endpoints))),
        workloads=MappingProxyType({row["workload"]: rows.workload(row) for row in running}),
        policies=tuple(in_force(connection)),
    )


def advance(connection: Connection, mesh: Mesh) -> tuple[Mesh, Changed]:
    """The newest mesh from an older one, and what moved between them."""
    now = connection.execute(select(state)).mappings().one()
    if now["revision"] == mesh.revision:
        return mesh, Changed()
    if now["revision"] < mesh.revision:
        # The catalog was restored from a backup: nothing that is held can be trusted.
        fresh = read(connection)
        return fresh, Changed(frozenset(fresh.endpoints) | frozenset(mesh.endpoints), shape=True)
    names = _moved(connection, endpoints.c.service, mesh.revision)
    newer = replace(
        mesh, revision=now["revision"], endpoints=_endpoints(connection, names, mesh.endpoints)
    )
    touched = frozenset(map(rows.service_name, names))
    shape = now["shape_revision"] > mesh.revision
    if shape:
        newer = _reshaped(connection, newer, mesh.revision, now)
    return newer, Changed(touched, shape or any(_differs(mesh, newer, name) for name in touched))


def _reshaped(connection: Connection, mesh: Mesh, since: int, now: rows.Row) -> Mesh:
    return replace(
        mesh,
        trust_domain=now["trust_domain"],
        permissive=bool(now["permissive"]),
        preferences=preferences.read(now["federation"]),
        services=_newer(
            connection, services.c.service, since, mesh.services, rows.service_name, rows.service
        ),
        workloads=_newer(
            connection, workloads.c.workload, since, mesh.workloads, str, rows.workload
        ),
        policies=tuple(in_force(connection)),
    )


def _newer(
    connection: Connection,
    key: Column[str],
    since: int,
    held: Mapping[K, V],
    named: Callable[[str], K],
    parse: Callable[[rows.Row], V],
) -> Mapping[K, V]:
    moved = _moved(connection, key, since)
    if not moved:
        return held
    newer = dict(held)
    for name in moved:
        newer.pop(named(name), None)
    for row in _current(connection, key.table, key, moved):
        newer[named(row[key.name])] = parse(row)
    return MappingProxyType(newer)


def _endpoints(
    connection: Connection, names: list[str], held: Mapping[ServiceName, tuple[Endpoint, ...]]
) -> Mapping[ServiceName, tuple[Endpoint, ...]]:
    if not names:
        return held
    gone = set(map(rows.service_name, names))
    kept = {name: there for name, there in held.items() if name not in gone}
    found = _by_service(_current(connection, endpoints, endpoints.c.service, names))
    return MappingProxyType({**kept, **found})


def _differs(old: Mesh, new: Mesh, service: ServiceName) -> bool:
    """Whether more than addresses, weights and health of a service's endpoints moved.

    Who answers for it decides SAN lists; which workload answers decides that one's listeners.
    """
    return _outline(old.endpoints.get(service, ())) != _outline(new.endpoints.get(service, ()))


def _outline(there: Iterable[Endpoint]) -> set[tuple[Any, ...]]:
    return {(e.workload, e.port, e.target, e.identity, e.interception, e.network) for e in there}


def _moved(connection: Connection, key: Column[str], since: int) -> list[str]:
    """What had a row that began or ended after a revision."""
    table = key.table
    began = select(key).where(table.c.valid_from_revision > since)
    ended = select(key).where(table.c.valid_to_revision > since)
    return sorted(connection.execute(union(began, ended)).scalars())


def _current(
    connection: Connection,
    table: Any,
    key: Column[str] | None = None,
    names: list[str] | None = None,
) -> list[rows.Row]:
    """The rows in force, of all or of these."""
    # Of a workload that several scopes tell, every reader takes the version that came last.
    there = select(table).where(CURRENT).order_by(table.c.id)
    if key is None or names is None:
        return list(connection.execute(there).mappings().all())
    found: list[rows.Row] = []
    for start in range(0, len(names), AT_ONCE):
        some = there.where(key.in_(names[start : start + AT_ONCE]))
        found.extend(connection.execute(some).mappings().all())
    return found


def _by_service(found: Iterable[rows.Row]) -> dict[ServiceName, tuple[Endpoint, ...]]:
    """Endpoints in the order of their keys; claims that another provider outranks left out."""
    sorted_out: dict[ServiceName, list[Endpoint]] = {}
    for row in found:
        if not row["outranked"]:
            endpoint = rows.endpoint(row)
            sorted_out.setdefault(endpoint.service, []).append(endpoint)
    return {name: tuple(sorted(there, key=lambda e: e.key)) for name, there in sorted_out.items()}
