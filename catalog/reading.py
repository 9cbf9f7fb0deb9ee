"""The mesh out of the tables: whole, or only what moved since a revision."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from types import MappingProxyType
from typing import TypeVar

from immutables import Map
from sqlalchemy import Connection

from meshfed.catalog import preferences, rows
from meshfed.catalog.model import Changed, Endpoint, Mesh, Policy, Service, ServiceName, Workload
from meshfed.catalog.plain import Plain, Row
from meshfed.catalog.preferences import Preferences
from meshfed.catalog.specify import POLICIES, in_force
from meshfed.catalog.versions import ENDPOINTS, SERVICES, WORKLOADS, Versions

K = TypeVar("K")
V = TypeVar("V")

# Later lines may be told under a revision that stands; Postgres gives them in any order.
TOLD = "(select at from changes where revision = {revision} order by id limit 1)"
STATE = Plain(
    "select revision, shape_revision, horizon, trust_domain, permissive, federation,"
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

Place = tuple[int, str, int]
in_order: Callable[[Endpoint], Place] = attrgetter("port", "address", "target")
outline = attrgetter("workload", "port", "target", "identity", "interception", "network")


@dataclass(frozen=True, slots=True)
class State:
    """The row that says where the catalog is."""

    revision: int
    shape_revision: int
    horizon: int  # what ended before this revision may be pruned
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


ITS_ENDPOINTS = ENDPOINTS.current(STANDING)
# Each version that began or ended, and whether it is in force. One claim to an endpoint stands at
# a time: what of these is in force replaces whatever was there under its key.
MOVED_ENDPOINTS = Plain(
    f"select {ENDPOINTS.listed()}, valid_to_revision is null from endpoints"
    f" where valid_from_revision > :since and {STANDING}"
    f" union all select {ENDPOINTS.listed()}, false from endpoints"
    f" where valid_to_revision > :since and valid_from_revision <= :since and {STANDING}"
)
ITS_SERVICES = Part.of(SERVICES, "service")
# Of a workload that several scopes tell, every reader takes the version that came last.
ITS_WORKLOADS = Part.of(WORKLOADS, "workload", order="id")
MOVED_POLICIES = Plain(MOVED.format(key="1", table=POLICIES.table))


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
        endpoints=MappingProxyType(_by_service(ITS_ENDPOINTS.rows(connection))),
        workloads=Map({row[0]: rows.workload(row) for row in ITS_WORKLOADS.all.rows(connection)}),
        policies=tuple(in_force(connection)),
    )


def advance(connection: Connection, mesh: Mesh) -> tuple[Mesh, Changed]:
    """The newest mesh from an older one, and what moved between them."""
    now = _state(connection, mesh.revision)
    restored = now.revision < mesh.revision or (now.since and now.since != mesh.at)
    if restored or mesh.revision < now.horizon:
        # It was put back, or lost commits, and nothing that is held can be trusted; or what left
        # since is pruned, and nothing says that it did.
        fresh = read(connection)
        all_endpoints = frozenset(fresh.endpoints) | frozenset(mesh.endpoints)
        all_workloads = frozenset(fresh.workloads) | frozenset(mesh.workloads)
        return fresh, Changed(all_endpoints, all_workloads, shape=True)
    if now.revision == mesh.revision:
        return mesh, Changed()
    since = mesh.revision
    endpoints, touched = _endpoints(connection, since, mesh.endpoints)
    newer = replace(mesh, revision=now.revision, at=now.at, endpoints=endpoints)
    if now.shape_revision <= since:
        shape = any(_differs(mesh, newer, name) for name in touched)
        return newer, Changed(touched, shape=shape)
    workloads = _moved(connection, ITS_WORKLOADS, since)
    newer = replace(
        newer,
        trust_domain=now.trust_domain,
        permissive=now.permissive,
        preferences=now.preferences,
        services=_services(connection, since, mesh.services),
        workloads=_workloads(connection, workloads, mesh.workloads),
        policies=_policies(connection, since, mesh.policies),
    )
    return newer, Changed(touched, frozenset(workloads), shape=True)


def _policies(connection: Connection, since: int, held: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """They are few, and move rarely: then all of them are read."""
    moved = MOVED_POLICIES.row(connection, since=since)
    return tuple(in_force(connection)) if moved else held


def _services(
    connection: Connection, since: int, held: Mapping[ServiceName, Service]
) -> Mapping[ServiceName, Service]:
    moved = _moved(connection, ITS_SERVICES, since)
    if not moved:
        return held
    newer = copied(held)
    for name in moved:
        newer.pop(rows.service_name(name), None)
    for service in map(rows.service, ITS_SERVICES.some.rows(connection, names=moved)):
        newer[service.name] = service
    return MappingProxyType(newer)


def _workloads(
    connection: Connection, moved: list[str], held: Mapping[str, Workload]
) -> Mapping[str, Workload]:
    """There may be 100,000: what did not move is not touched."""
    if not moved:
        return held
    newer = (held if isinstance(held, Map) else Map(held.items())).mutate()
    for id_ in moved:
        newer.pop(id_, None)
    for row in ITS_WORKLOADS.some.rows(connection, names=moved):
        newer[row[0]] = rows.workload(row)
    return newer.finish()


def _endpoints(
    connection: Connection, since: int, held: Mapping[ServiceName, tuple[Endpoint, ...]]
) -> tuple[Mapping[ServiceName, tuple[Endpoint, ...]], frozenset[ServiceName]]:
    """`held` with what moved, and the services of which something did."""
    moved: defaultdict[ServiceName, set[Place]] = defaultdict(set)
    began: defaultdict[ServiceName, list[Endpoint]] = defaultdict(list)
    for row in MOVED_ENDPOINTS.rows(connection, since=since):
        endpoint = rows.endpoint(row)
        moved[endpoint.service].add(in_order(endpoint))
        if row[-1]:
            began[endpoint.service].append(endpoint)
    if not moved:
        return held, frozenset()
    newer = copied(held)
    for name, places in moved.items():
        kept = (each for each in held.get(name, ()) if in_order(each) not in places)
        newer[name] = tuple(sorted((*kept, *began[name]), key=in_order))
        if not newer[name]:
            del newer[name]
    return MappingProxyType(newer), frozenset(moved)


def copied(held: Mapping[K, V]) -> dict[K, V]:
    """dict() looks each key of a proxy up; its own copy() of a thousand takes 5 µs, not 500."""
    return held.copy() if isinstance(held, MappingProxyType) else dict(held)


def _differs(old: Mesh, new: Mesh, service: ServiceName) -> bool:
    """Whether more than addresses, weights and health of a service's endpoints moved.

    Who answers for it decides SAN lists; which workload answers decides that one's listeners.
    """
    before, after = old.endpoints.get(service, ()), new.endpoints.get(service, ())
    if len(before) == len(after) and all(map(_alike, before, after)):
        return False
    return set(map(outline, before)) != set(map(outline, after))


def _alike(one: Endpoint, other: Endpoint) -> bool:
    return one is other or outline(one) == outline(other)


def _state(connection: Connection, since: int = 0) -> State:
    (row,) = STATE.rows(connection, since=since)
    revision, shape, horizon, trust_domain, permissive, federation, at, then = row
    federated, told, held = preferences.read(federation), at or "", then or ""
    return State(revision, shape, horizon, trust_domain, bool(permissive), federated, told, held)


def _moved(connection: Connection, part: Part, since: int) -> list[str]:
    return sorted(name for (name,) in part.moved.rows(connection, since=since))


def _by_service(found: Iterable[Row]) -> dict[ServiceName, tuple[Endpoint, ...]]:
    """Endpoints in the order of their keys."""
    sorted_out: defaultdict[ServiceName, list[Endpoint]] = defaultdict(list)
    for endpoint in map(rows.endpoint, found):
        sorted_out[endpoint.service].append(endpoint)
    return {name: tuple(sorted(there, key=in_order)) for name, there in sorted_out.items()}
