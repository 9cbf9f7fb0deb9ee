"""Workloads that people register by hand: a scope for each, so that one is a small write."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, update

from meshfed.catalog import overrides, rows
from meshfed.catalog.believe import believe, held
from meshfed.catalog.byhand import PROVIDER, scope
from meshfed.catalog.model import Endpoint, Known, Service, ServiceName, Workload, workload_id
from meshfed.catalog.plain import Plain
from meshfed.catalog.schema import CURRENT, joined, scope_states, scopes
from meshfed.catalog.versions import ENDPOINTS, SERVICES, WORKLOADS
from meshfed.catalog.writing import Writing

THEIRS, RUNNING = (each.current("provider = :provider") for each in (ENDPOINTS, WORKLOADS))
NAMED = SERVICES.current("service $among(names)")
# The scopes of other providers that have workloads of these names.
ELSEWHERE = Plain(
    "select name, scope from workloads where name $among(names) and valid_to_revision is null"
    f" and provider <> '{PROVIDER}'"
)


class Taken(ValueError):
    """Another provider has a workload of that name: `whose` it is."""

    def __init__(self, whose: str) -> None:
        super().__init__(f"{whose}: register it by another name")
        self.whose = whose


class Unregistered(ValueError):
    """Nobody registered a workload of that name."""


def register(writing: Writing, name: str, known: Known) -> None:
    """Make this what is registered as `name`. Raises Taken."""
    if why := taken(writing.connection, [name]).get(name):
        raise why
    believe(writing, [known], PROVIDER, {})


def taken(connection: Connection, names: Sequence[str]) -> Mapping[str, Taken]:
    """Why nobody may be registered by these names, by name."""
    found = ELSEWHERE.rows(connection, names=[*names])
    return {name: Taken(f"{name} is a workload of {scope} already") for name, scope in found}


def deregister(writing: Writing, name: str) -> None:
    """Take it away, with all that is kept of it for the present. Raises Unregistered."""
    nothing = Known(PROVIDER, scope(name))
    if not held(writing.connection, PROVIDER, [nothing.scope], {}):
        raise Unregistered(_unregistered(writing.connection, name))
    believe(writing, [nothing], PROVIDER, {})
    ended = {"valid_to_revision": writing.allocate(), "valid_to": writing.at, "ended": "left"}
    now = and_(_mine(scope_states, nothing.scope), CURRENT)
    writing.connection.execute(update(scope_states).where(now).values(ended))
    writing.connection.execute(delete(scopes).where(_mine(scopes, nothing.scope)))
    gone = workload_id(PROVIDER, nothing.scope, name)
    writing.connection.execute(delete(joined).where(joined.c.workload == gone))
    overrides.take_back(writing.connection, gone)


def registered(connection: Connection) -> tuple[tuple[Workload, frozenset[Endpoint]], ...]:
    """All that are registered and what they serve, by name."""
    serves: dict[str, set[Endpoint]] = {}
    for endpoint in map(rows.endpoint, THEIRS.rows(connection, provider=PROVIDER)):
        serves.setdefault(endpoint.workload, set()).add(endpoint)
    running = map(rows.workload, RUNNING.rows(connection, provider=PROVIDER))
    there = sorted(running, key=lambda workload: workload.name)
    return tuple((each, frozenset(serves.get(each.id, ()))) for each in there)


def declared(connection: Connection, names: Iterable[ServiceName]) -> Mapping[ServiceName, Service]:
    """Those of these services that the mesh has."""
    found = map(rows.service, NAMED.rows(connection, names=list(map(str, names))))
    return {service.name: service for service in found}


def _mine(table: Table, scope: str) -> ColumnElement[bool]:
    return and_(table.c.provider == PROVIDER, table.c.scope == scope)


def _unregistered(connection: Connection, name: str) -> str:
    if elsewhere := ELSEWHERE.row(connection, names=[name]):
        return f"{name} was not registered: {elsewhere[1]} has it, so take it out there"
    return f"no workload {name} is registered"
