"""What one provider's scope now holds, made rows: only what is different, in one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from msgspec import Struct
from sqlalchemy import Connection

from meshfed.catalog import claims, pushes, rows
from meshfed.catalog.differences import Difference, EndpointKey, apart, by_key, difference
from meshfed.catalog.model import Endpoint, Known, Service, Workload
from meshfed.catalog.plain import Plain, Several
from meshfed.catalog.standing import condition, stood
from meshfed.catalog.unions import unite
from meshfed.catalog.versions import ENDPOINTS, STATEMENTS, WORKLOADS
from meshfed.catalog.writing import Writing

THESE = "provider = :provider and scope $among(scopes)"
SCOPES = Plain(
    "select scope, revision, type, state, doubt, fault, left_out, rejected, (select count(*)"
    " from acceptances a where a.provider = :provider and a.scope = scopes.scope)"
    f" from scopes where {THESE}"
)
INTO = (
    "scopes (provider, scope, revision, type, state, doubt, left_out, rejected, last_good) values"
)
OR = (
    "on conflict (provider, scope) do update set revision = excluded.revision,"
    " type = excluded.type, state = excluded.state, doubt = excluded.doubt,"
    " left_out = excluded.left_out, rejected = excluded.rejected,"
    " last_good = coalesce(excluded.last_good, scopes.last_good)"
)
SAID = Several(
    f"insert into {INTO} (?, ?, ?, ?, ?, ?, ?, ?, ?) {OR}",
    f"insert or fail into {INTO} $rows {OR}",
    width=9,
)
ACCEPTED = Plain(f"delete from acceptances where {THESE}")
THEIR_STATEMENTS, THEIR_WORKLOADS, THEIR_ENDPOINTS = (
    each.current(THESE) for each in (STATEMENTS, WORKLOADS, ENDPOINTS)
)
TOLD = Plain(
    "select workload, scope from workloads where workload $among(keys)"
    " and valid_to_revision is null"
)


class Scope(Struct, frozen=True):
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


class Held(Struct, frozen=True):
    """What is believed of a scope, and the revision of its row at which that was so."""

    known: Known
    revision: int | None = None
    fault: str = ""


class Moved(Struct, frozen=True):
    """What a scope's row says, and what is different of what it holds."""

    row: Scope | None
    known: Known
    services: Difference[str, Service]
    workloads: Difference[str, Workload]
    claims: claims.Moved

    @property
    def mine(self) -> tuple[str, str]:
        return self.known.provider, self.known.scope

    def __bool__(self) -> bool:
        return bool(self.services or self.workloads or self.claims.difference)


def moved(row: Scope | None, before: Known, now: Known) -> Moved:
    services = apart(before.services, now.services, attrgetter("name.name"))
    workloads = apart(before.workloads, now.workloads, attrgetter("name"))
    return Moved(
        row,
        now,
        difference(*(by_key(some, lambda service: str(service.name)) for some in services)),
        difference(*(by_key(some, lambda workload: workload.id) for some in workloads)),
        claims.moved(before, now),
    )


# What is held of several scopes of one provider, by scope


def held(
    connection: Connection, provider: str, scopes: Iterable[str], before: Mapping[str, Held]
) -> dict[str, Held]:
    """What is believed of scopes, of which `before` was true once; of some nothing ever was."""
    return _held(connection, provider, _scopes(connection, provider, scopes), before)


def standing(
    connection: Connection, provider: str, kind: str, same: Mapping[str, Held]
) -> set[str]:
    """Those of which the database has all that is known, and of which there is nothing to say."""
    there = _scopes(connection, provider, same)
    return {
        scope
        for scope, row in there.items()
        if _stands(same[scope], row)
        and row == _said(row, same[scope].known, kind)
        and not (row.accepted and not same[scope].known.doubt)
    }


def believe(
    writing: Writing, believed: Sequence[Known], kind: str, before: Mapping[str, Held]
) -> list[Held]:
    """Write what is different, if anything is, of scopes of one provider, table by table.

    `before` was true once: the scopes' rows tell if it is.
    """
    provider = believed[0].provider
    there = _scopes(writing.connection, provider, [one.scope for one in believed])
    known = _held(writing.connection, provider, there, before)
    were = {scope: each.known for scope, each in known.items()}
    several = [
        moved(there.get(one.scope), were.get(one.scope, Known(provider, one.scope)), one)
        for one in believed
    ]
    _services(writing, [each for each in several if each.services])
    _workloads(writing, [each for each in several if each.workloads])
    claims.write(writing, [each.claims for each in several if each.claims.difference])
    return _write(writing, several, kind)


def _stands(before: Held, row: Scope) -> bool:
    """Whatever is written of a scope moves the revision of its row, apart from what it left out."""
    rejected = rows.rejections(before.known.rejected)
    return (before.revision, rejected) == (row.revision, row.rejected)


def _held(
    connection: Connection, provider: str, there: Mapping[str, Scope], before: Mapping[str, Held]
) -> dict[str, Held]:
    """What is held, and of those whose rows say otherwise what they hold."""
    ever = {scope: row for scope, row in there.items() if row.revision is not None}
    stand = {
        scope: before[scope]
        for scope, row in ever.items()
        if scope in before and _stands(before[scope], row)
    }
    others = {scope: row for scope, row in ever.items() if scope not in stand}
    return stand | _read(connection, provider, others) if others else stand


def _read(connection: Connection, provider: str, there: Mapping[str, Scope]) -> dict[str, Held]:
    these = {"provider": provider, "scopes": list(there)}
    services: dict[str, list[Service]] = {scope: [] for scope in there}
    workloads: dict[str, list[Workload]] = {scope: [] for scope in there}
    endpoints: dict[str, list[Endpoint]] = {scope: [] for scope in there}
    stale: dict[str, list[EndpointKey]] = {scope: [] for scope in there}
    for _, scope, *rest in THEIR_STATEMENTS.rows(connection, **these):
        services[scope].append(rows.statement(tuple(rest)))
    for workload in map(rows.workload, THEIR_WORKLOADS.rows(connection, **these)):
        workloads[workload.scope].append(workload)
    for row in THEIR_ENDPOINTS.rows(connection, **these):
        claim = claims.claim(row)
        endpoints[claim.endpoint.scope].append(claim.endpoint)
        if claim.stale:
            stale[claim.endpoint.scope].append(claim.endpoint.key)
    return {
        scope: Held(
            Known(
                provider,
                scope,
                services=frozenset(services[scope]),
                workloads=frozenset(workloads[scope]),
                endpoints=frozenset(endpoints[scope]),
                doubt=row.doubt,
                stale=frozenset(stale[scope]),
                rejected=rows.rejected(row.rejected),
            ),
            row.revision,
            row.fault,
        )
        for scope, row in there.items()
    }


# Services


def _services(writing: Writing, several: Sequence[Moved]) -> None:
    if not several:
        return
    moved = [(each.mine, each.services) for each in several]
    writing.replace(STATEMENTS, moved, lambda mine, one: (*mine, *rows.statement_row(one)))
    names = sorted({name for _, each in moved for name in each.keys})
    unite(writing, names, several[0].known.provider)


# Workloads


def _workloads(writing: Writing, several: Sequence[Moved]) -> None:
    if not several:
        return
    told = _told(writing.connection, several)
    moved = [(each.mine, each.workloads) for each in several]
    writing.replace(WORKLOADS, moved, lambda _, workload: rows.workload_row(workload))
    for (provider, _), each in moved:
        for *_, workload in each.altered:
            writing.tell("workload", workload.name, "changed", provider)
    for (provider, scope), each in moved:
        for key, workload in each.joined:
            if not told[key]:
                writing.tell("workload", workload.name, "joined", provider)
            told[key].add(scope)
    gone = []
    for (provider, scope), each in moved:
        for key, workload in each.left:
            told[key].discard(scope)
            if not told[key]:
                writing.tell("workload", workload.name, "left", provider)
                gone.append(key)
    if gone:
        pushes.forget(writing, gone)
    writing.shape_moved()


def _told(connection: Connection, several: Iterable[Moved]) -> defaultdict[str, set[str]]:
    """The scopes that tell of these workloads; of several, only those of platforms' own ids."""
    told: defaultdict[str, set[str]] = defaultdict(set)
    moved = (pair for each in several for pair in (*each.workloads.joined, *each.workloads.left))
    if keys := [key for key, workload in moved if workload.resource_id]:
        for key, scope in TOLD.rows(connection, keys=keys):
            told[key].add(scope)
    return told


# The scopes themselves


def _scopes(connection: Connection, provider: str, scopes: Iterable[str]) -> dict[str, Scope]:
    found = SCOPES.rows(connection, provider=provider, scopes=list(scopes))
    return {scope: Scope(*row) for scope, *row in found}


def _said(before: Scope, believed: Known, kind: str) -> Scope:
    """The row once this is believed."""
    accepted = bool(before.accepted) or before.state == "good"
    return Scope(
        before.revision,
        kind,
        condition(before.fault, believed.doubt, accepted=accepted),
        believed.doubt,
        before.fault,
        "; ".join(map(str, believed.rejected)),
        rows.rejections(believed.rejected),
        before.accepted,
    )


def _write(writing: Writing, several: Sequence[Moved], kind: str) -> list[Held]:
    """The scopes' rows; the revision that each then is of is a part of what is held of it."""
    provider = several[0].known.provider
    told = {each.known.scope for each in several if _tell(writing, each)}
    news = told | {each.known.scope for each in several if each}
    revision = writing.allocate() if news else None
    held, said, moved, used = [], [], [], []
    for each in several:
        scope, before = each.known.scope, each.row or UNHEARD
        now = _said(before, each.known, kind)
        is_of = revision if scope in news else before.revision
        held.append(Held(each.known, is_of, before.fault))
        if before.accepted and not now.doubt:
            used.append(scope)
        if each.row is None or now != before:
            moved.append(scope)
        elif scope not in news:
            continue
        words = (now.type, now.state, now.doubt, now.left_out, now.rejected)
        said.append((provider, scope, is_of, *words, None if now.doubt else writing.now))
    if used:
        # What an operator accepted has been believed; the next doubt needs a word of its own.
        ACCEPTED.run(writing.connection, provider=provider, scopes=used)
    if said:
        SAID.on(writing.connection, said)
    if moved:
        stood(writing, provider, moved)
    if writing.untold:  # other words for services whose union is what it was
        for scope in sorted(news):
            writing.tell("provider", scope, "restated", provider)
    return held


def _tell(writing: Writing, moved: Moved) -> bool:
    """What is to be told of a scope itself, if anything is."""
    before, now = moved.row or UNHEARD, moved.known
    if first := before.revision is None:  # a first belief is news even where it is empty
        writing.tell("provider", now.scope, "first seen", now.provider)
    if other := now.doubt != before.doubt:
        word = f"doubted: {now.doubt}" if now.doubt else "believed again"
        writing.tell("provider", now.scope, word, now.provider)
    return first or other
