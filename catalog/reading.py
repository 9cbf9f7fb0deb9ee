"""The mesh out of the tables: whole, or only what moved since a revision."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import Connection

from meshfed.catalog import preferences, rows
from meshfed.catalog.model import Changed, Endpoint, Mesh, ServiceName
from meshfed.catalog.plain import Plain, Row
from meshfed.catalog.preferences import Preferences
from meshfed.catalog.specify import in_force
from meshfed.catalog.versions import ENDPOINTS, SERVICES, WORKLOADS, Versions

K = TypeVar("K")
V = TypeVar("V")

TOLD = "(select at from changes where revision = {revision} limit 1)"
STATE = Plain(
    "select revision, shape_revision, trust_domain, permissive, federation,"
    f" {TOLD.format(revision='state.revision')}, {TOLD.format(revision=':since')}"
    " from state where id = 1"
)
# What had a row that began or ended after a revision.
MOVED = (
    "select {key} from {table} where valid_from_revision > :since"
    " union select {key} from {table} where valid_to_revision > :since"
)
STANDING = "not outranked"  # the claims of one provider where several claim an endpoint
SOME = "{key} $among(names)"

in_order = attrgetter("port", "address", "target")


@dataclass(frozen=True, slots=True)
class State:
    """The row that says where the catalog is."""

    revision: int
    shape_revision: int
    trust_domain: str
    permissive: bool
    preferences: Preferences
    at: str  # when its revision was made, and the one that was asked about; "" once that is pruned
    since: str


@dataclass(frozen=True, slots=True)
class Part:
    """What a mesh has of one table, and how it is read."""

    all: Plain
    some: Plain
    moved: Plain

    @classmethod
    def of(cls, versions: Versions, key: str, only: str = "1 = 1", order: str = "") -> "Part":
        return cls(
            versions.current(only, order),
            versions.current(f"{only} and {SOME.format(key=key)}", order),
            Plain(MOVED.format(key=key, table=versions.table)),
        )


ITS_ENDPOINTS = Part.of(ENDPOINTS, "service", STANDING)
ITS_SERVICES = Part.of(SERVICES, "service")
# Of a workload that several scopes tell, every reader takes the version that came last.
ITS_WORKLOADS = Part.of(WORKLOADS, "workload", order="id")


def read(connection: Connection) -> Mesh:
    """Everything, at the newest revision."""
    now = _state(connection)
    services = map(rows.service, ITS_SERVICES.all.rows(connection))
    return Mesh(
        trust_domain=now.trust_domain,
        permissive=now.permissive,
        preferences=now.preferences,
        revision=now.revision,
        at=now.at,
        services=MappingProxyType({service.name: service for service in services}),
        endpoints=MappingProxyType(_by_service(ITS_ENDPOINTS.all.rows(connection))),
        workloads=MappingProxyType(
            {row[0]: rows.workload(row) for row in ITS_WORKLOADS.all.rows(connection)}
        ),
        policies=tuple(in_force(connection)),
    )


def advance(connection: Connection, mesh: Mesh) -> tuple[Mesh, Changed]:
    """The newest mesh from an older one, and what moved between them."""
    now = _state(connection, mesh.revision)
    if now.revision < mesh.revision or (now.since and now.since != mesh.at):
        # It was restored from a backup, or lost commits: nothing that is held can be trusted.
        fresh = read(connection)
        return fresh, Changed(frozenset(fresh.endpoints) | frozenset(mesh.endpoints), shape=True)
    if now.revision == mesh.revision:
        return mesh, Changed()
    names = _moved(connection, ITS_ENDPOINTS, mesh.revision)
    endpoints = _endpoints(connection, names, mesh.endpoints)
    newer = replace(mesh, revision=now.revision, at=now.at, endpoints=endpoints)
    touched = frozenset(map(rows.service_name, names))
    shape = now.shape_revision > mesh.revision
    if shape:
        newer = _reshaped(connection, newer, mesh.revision, now)
    return newer, Changed(touched, shape or any(_differs(mesh, newer, name) for name in touched))


def _reshaped(connection: Connection, mesh: Mesh, since: int, now: State) -> Mesh:
    return replace(
        mesh,
        trust_domain=now.trust_domain,
        permissive=now.permissive,
        preferences=now.preferences,
        services=_newer(
            connection, ITS_SERVICES, since, mesh.services, rows.service_name, rows.service
        ),
        workloads=_newer(connection, ITS_WORKLOADS, since, mesh.workloads, str, rows.workload),
        policies=tuple(in_force(connection)),
    )


def _newer(
    connection: Connection,
    part: Part,
    since: int,
    held: Mapping[K, V],
    named: Callable[[str], K],
    parse: Callable[[Row], V],
) -> Mapping[K, V]:
    """`held` with what moved; the key is the first value of a row."""
    moved = _moved(connection, part, since)
    if not moved:
        return held
    newer = copied(held)
    for name in moved:
        newer.pop(named(name), None)
    for row in part.some.rows(connection, names=moved):
        newer[named(row[0])] = parse(row)
    return MappingProxyType(newer)


def _endpoints(
    connection: Connection, names: list[str], held: Mapping[ServiceName, tuple[Endpoint, ...]]
) -> Mapping[ServiceName, tuple[Endpoint, ...]]:
    if not names:
        return held
    newer = copied(held)
    for name in map(rows.service_name, names):
        newer.pop(name, None)
    newer.update(_by_service(ITS_ENDPOINTS.some.rows(connection, names=names)))
    return MappingProxyType(newer)


def copied(held: Mapping[K, V]) -> dict[K, V]:
    """dict() looks each key of a proxy up; its own copy() of a thousand takes 5 µs, not 500."""
    return held.copy() if isinstance(held, MappingProxyType) else dict(held)


def _differs(old: Mesh, new: Mesh, service: ServiceName) -> bool:
    """Whether more than addresses, weights and health of a service's endpoints moved.

    Who answers for it decides SAN lists; which workload answers decides that one's listeners.
    """
    return _outline(old.endpoints.get(service, ())) != _outline(new.endpoints.get(service, ()))


def _outline(there: Iterable[Endpoint]) -> set[tuple[Any, ...]]:
    return {(e.workload, e.port, e.target, e.identity, e.interception, e.network) for e in there}


def _state(connection: Connection, since: int = 0) -> State:
    (row,) = STATE.rows(connection, since=since)
    revision, shape, trust_domain, permissive, federation, at, then = row
    federated = preferences.read(federation)
    return State(revision, shape, trust_domain, bool(permissive), federated, at or "", then or "")


def _moved(connection: Connection, part: Part, since: int) -> list[str]:
    return sorted(name for (name,) in part.moved.rows(connection, since=since))


def _by_service(found: Iterable[Row]) -> dict[ServiceName, tuple[Endpoint, ...]]:
    """Endpoints in the order of their keys."""
    sorted_out: defaultdict[ServiceName, list[Endpoint]] = defaultdict(list)
    for endpoint in map(rows.endpoint, found):
        sorted_out[endpoint.service].append(endpoint)
    return {name: tuple(sorted(there, key=in_order)) for name, there in sorted_out.items()}
