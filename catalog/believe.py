"""What one provider's scope now holds, made rows: only what is different, in one transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from sqlalchemy import Connection

from meshfed.catalog import claims, pushes, rows
from meshfed.catalog.differences import Claim, Difference, EndpointKey, by_key, difference, union
from meshfed.catalog.model import Known, Service, Workload
from meshfed.catalog.plain import Into, Plain
from meshfed.catalog.standing import condition, stood
from meshfed.catalog.versions import ENDPOINTS, SERVICES, STATEMENTS, WORKLOADS
from meshfed.catalog.writing import Writing

V = TypeVar("V")

MINE = "provider = :provider and scope = :scope"
SCOPE = Plain(
    "select revision, type, state, doubt, fault, left_out, rejected,"
    " (select count(*) from acceptances a where a.provider = :provider and a.scope = :scope)"
    f" from scopes where {MINE}"
)
SAID = Plain(
    "insert into scopes (provider, scope, revision, type, state, doubt, left_out, rejected,"
    " last_good) values (:provider, :scope, :revision, :type, :state, :doubt, :left_out, :rejected,"
    " :last_good) on conflict (provider, scope) do update set revision = excluded.revision,"
    " type = excluded.type, state = excluded.state, doubt = excluded.doubt,"
    " left_out = excluded.left_out, rejected = excluded.rejected,"
    " last_good = coalesce(excluded.last_good, scopes.last_good)"
)
ACCEPTED = Plain(f"delete from acceptances where {MINE}")
MY_STATEMENTS, MY_WORKLOADS, MY_ENDPOINTS = (
    each.current(MINE) for each in (STATEMENTS, WORKLOADS, ENDPOINTS)
)
ELSEWHERE = Plain(
    "select workload from workloads where workload $among(keys) and scope <> :scope"
    " and valid_to_revision is null"
)
NAMED, STATED = (each.current("service $among(names)") for each in (SERVICES, STATEMENTS))
CLOSED = Plain("delete from ports where service $among(names)")
OPENED = Into("ports", ("service", "number", "name", "protocol"))


@dataclass(frozen=True, slots=True)
class Scope:
    """The row of a scope."""

    revision: int | None  # null: never believed
    type: str
    state: str
    doubt: str
    fault: str
    left_out: str
    rejected: str
    accepted: int  # an operator's word that waits to be used


UNHEARD = Scope(None, "", "", "", "", "", "", 0)


@dataclass(frozen=True)
class Held:
    """What is believed of a scope, and the revision of its row at which that was so."""

    known: Known
    revision: int | None = None
    fault: str = ""

    @cached_property
    def services(self) -> Mapping[str, Service]:
        return by_key(self.known.services, lambda service: str(service.name))

    @cached_property
    def workloads(self) -> Mapping[str, Workload]:
        return by_key(self.known.workloads, lambda workload: workload.id)

    @cached_property
    def claims(self) -> Mapping[EndpointKey, Claim]:
        stale, seen = self.known.stale, by_key(self.known.endpoints, lambda e: e.key)
        return {key: Claim(endpoint, key in stale) for key, endpoint in seen.items()}


def held(
    connection: Connection, provider: str, scope: str, before: Held | None = None
) -> Held | None:
    """What is believed of a scope, of which `before` was true once; None when nothing ever was."""
    row = _scope(connection, provider, scope)
    if row is None or row.revision is None:
        return None
    return before if before and _stands(before, row) else _read(connection, provider, scope, row)


def stands(connection: Connection, before: Held, now: Known, kind: str) -> bool:
    """Whether the database has all of what was known before, and nothing is to be said of it."""
    row = _scope(connection, now.provider, now.scope)
    if row is None or (row.accepted and not now.doubt):
        return False
    return _stands(before, row) and row == _said(row, now, kind)


def believe(writing: Writing, believed: Known, kind: str, before: Held | None = None) -> Held:
    """Write what is different, if anything is. `before` was true once: its row tells if it is."""
    row = _scope(writing.connection, believed.provider, believed.scope)
    if row is None or row.revision is None:  # nothing was ever written of it
        before = Held(Known(believed.provider, believed.scope))
    elif before is None or not _stands(before, row):
        before = _read(writing.connection, believed.provider, believed.scope, row)
    now = Held(believed)
    if not same(believed.services, before.known.services):
        _services(writing, believed, before.services, now.services)
    if not same(believed.workloads, before.known.workloads):
        _workloads(writing, believed, before.workloads, now.workloads)
    if believed.stale != before.known.stale or not same(believed.endpoints, before.known.endpoints):
        claims.write(writing, believed, before.claims, now.claims)
    revision = _write(writing, believed, kind, row)
    if writing.untold:  # other words for services whose union is what it was
        writing.tell("provider", believed.scope, "restated", believed.provider)
    return Held(believed, revision, row.fault if row else "")


def same(some: frozenset[V], others: frozenset[V]) -> bool:
    return some is others or some == others


def _stands(before: Held, row: Scope) -> bool:
    """Whatever is written of a scope moves the revision of its row, apart from what it left out."""
    rejected = rows.rejections(before.known.rejected)
    return (before.revision, rejected) == (row.revision, row.rejected)


def _read(connection: Connection, provider: str, scope: str, row: Scope) -> Held:
    mine = {"provider": provider, "scope": scope}
    stated = (rows.service(row[2:]) for row in MY_STATEMENTS.rows(connection, **mine))
    running = map(rows.workload, MY_WORKLOADS.rows(connection, **mine))
    found = {claims.key(one): claims.claim(one) for one in MY_ENDPOINTS.rows(connection, **mine)}
    known = Known(
        provider,
        scope,
        services=frozenset(stated),
        workloads=frozenset(running),
        endpoints=frozenset(claim.endpoint for claim in found.values()),
        doubt=row.doubt,
        stale=frozenset(key for key, claim in found.items() if claim.stale),
        rejected=rows.rejected(row.rejected),
    )
    return Held(known, row.revision, row.fault)


# Services


def _services(
    writing: Writing, believed: Known, before: Mapping[str, Service], after: Mapping[str, Service]
) -> None:
    moved = difference(before, after)
    mine = (believed.provider, believed.scope)
    writing.end(STATEMENTS, ((*mine, name) for name, _ in moved.left), "left")
    writing.end(STATEMENTS, ((*mine, name) for name, *_ in moved.altered))
    for word, services in _begun(moved):
        writing.begin(STATEMENTS, [(*mine, *rows.service_row(each)) for each in services], word)
    _unions(writing, sorted(moved.keys), believed.provider)


def _unions(writing: Writing, names: list[str], provider: str) -> None:
    """The mesh's services, after what providers say of them has changed."""
    there = map(rows.service, NAMED.rows(writing.connection, names=names))
    before = {str(service.name): service for service in there}
    said: dict[str, list[tuple[str, str, Service]]] = {name: [] for name in names}
    for who, scope, name, *rest in STATED.rows(writing.connection, names=names):
        said[name].append((who, scope, rows.service((name, *rest))))
    unions = ((name, union(rows.service_name(name), told)) for name, told in said.items())
    moved = difference(before, {name: service for name, service in unions if service is not None})
    if not moved:
        return
    writing.end(SERVICES, ((name,) for name, _ in moved.left), "left")
    writing.end(SERVICES, ((name,) for name, *_ in moved.altered))
    for word, services in _begun(moved):
        writing.begin(SERVICES, list(map(rows.service_row, services)), word)
    _ports(writing.connection, moved)
    for name, _ in moved.joined:
        writing.tell("service", name, "joined", provider)
    for name, *_ in moved.altered:
        writing.tell("service", name, "changed", provider)
    for name, _ in moved.left:
        writing.tell("service", name, "left", provider)
    writing.shape_moved()


def _ports(connection: Connection, moved: Difference[str, Service]) -> None:
    if gone := [name for name, *_ in (*moved.altered, *moved.left)]:
        CLOSED.run(connection, names=gone)
    opened = [
        (str(service.name), port.number, port.name, port.protocol.value)
        for _, services in _begun(moved)
        for service in services
        for port in service.ports
    ]
    if opened:
        OPENED.on(connection, opened)


# Workloads


def _workloads(
    writing: Writing, believed: Known, before: Mapping[str, Workload], after: Mapping[str, Workload]
) -> None:
    moved = difference(before, after)
    if not moved:
        return
    mine = (believed.provider, believed.scope)
    known = _elsewhere(writing.connection, believed, (*moved.joined, *moved.left))
    writing.end(WORKLOADS, ((*mine, key) for key, _ in moved.left), "left")
    writing.end(WORKLOADS, ((*mine, key) for key, *_ in moved.altered))
    for word, workloads in _begun(moved):
        writing.begin(WORKLOADS, list(map(rows.workload_row, workloads)), word)
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
    if not keys:
        return set()
    return {key for (key,) in ELSEWHERE.rows(connection, keys=keys, scope=believed.scope)}


def _begun(moved: Difference[str, V]) -> Iterable[tuple[str, list[V]]]:
    yield "joined", [value for _, value in moved.joined]
    yield "changed", [value for _, _, value in moved.altered]


# The scope itself


def _scope(connection: Connection, provider: str, scope: str) -> Scope | None:
    found = SCOPE.row(connection, provider=provider, scope=scope)
    return None if found is None else Scope(*found)


def _said(before: Scope, believed: Known, kind: str) -> Scope:
    """The row once this is believed."""
    return Scope(
        before.revision,
        kind,
        condition(before.fault, believed.doubt),
        believed.doubt,
        before.fault,
        "; ".join(map(str, believed.rejected)),
        rows.rejections(believed.rejected),
        before.accepted,
    )


def _write(writing: Writing, believed: Known, kind: str, row: Scope | None) -> int | None:
    """The scope's row, and the revision that it then is of."""
    mine = {"provider": believed.provider, "scope": believed.scope}
    before = row or UNHEARD
    said = _said(before, believed, kind)
    if before.revision is None:
        writing.tell("provider", believed.scope, "first seen", believed.provider)
        writing.allocate()  # a first belief is news even where it is empty
    if believed.doubt != before.doubt:
        word = f"doubted: {believed.doubt}" if believed.doubt else "believed again"
        writing.tell("provider", believed.scope, word, believed.provider)
        writing.allocate()
    if before.accepted and not believed.doubt:
        # What an operator accepted has been believed; the next doubt needs a word of its own.
        ACCEPTED.run(writing.connection, **mine)
    moved = row is None or said != before
    revision = writing.allocate() if writing.begun else before.revision
    if moved or writing.begun:
        SAID.run(
            writing.connection,
            type=said.type,
            state=said.state,
            doubt=said.doubt,
            left_out=said.left_out,
            rejected=said.rejected,
            last_good=None if said.doubt else writing.now,
            revision=revision,
            **mine,
        )
    if moved:
        stood(writing, believed.provider, believed.scope)
    return revision
