"""Endpoints as their providers claim them, made rows: who is believed where several claim one."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from meshfed.catalog import preferences, rows
from meshfed.catalog.differences import (
    Claim,
    EndpointKey,
    Place,
    Standing,
    change,
    difference,
    disputed,
    placed,
    standings,
)
from meshfed.catalog.model import Endpoint, Known
from meshfed.catalog.plain import Plain, Row
from meshfed.catalog.preferences import NO_PREFERENCES, Preferences
from meshfed.catalog.versions import ENDPOINTS
from meshfed.catalog.writing import Writing

Claims = Mapping[EndpointKey, Claim]

UNDISPUTED = Standing()

CONTESTED = ENDPOINTS.current("conflict <> ''", "id")
FEDERATION = Plain("select federation from state where id = 1")
# What other scopes claim in the same places.
THEIRS = (
    f"select {ENDPOINTS.listed('e.')} from endpoints e where e.service = k.value ->> 0"
    " and e.port = cast(k.value ->> 1 as integer) and e.address = k.value ->> 2"
    " and e.valid_to_revision is null"
    " and not (e.provider = :provider and e.scope = :scope)"
)
# The index is asked once for each: `offset 0` keeps Postgres from joining the whole table instead.
OTHERS = Plain(
    THEIRS.replace("from endpoints e where", "from $each(keys) as k cross join endpoints e where"),
    postgresql=f"select e.* from $each(keys) as k cross join lateral ({THEIRS} offset 0) as e",
)


def key(row: Row) -> EndpointKey:
    """Of a row of ENDPOINTS."""
    _, _, service, port, address, target, *_ = row
    return service, port, address, target


def claim(row: Row) -> Claim:
    return Claim(rows.endpoint(row), bool(row[-4]))


def standing(row: Row) -> Standing:
    return Standing(bool(row[-2]), row[-1])


def write(writing: Writing, believed: Known, before: Claims, after: Claims) -> None:
    """What is different of one scope's claims, and what that means for those of others."""
    moved = difference(before, after)
    if not moved:
        return
    others = _others(writing.connection, believed, moved.keys)
    federation = _federation(writing.connection) if others else NO_PREFERENCES
    mine = (believed.provider, believed.scope)
    writing.end(ENDPOINTS, ((*mine, *key) for key, _ in moved.left), "left")
    writing.end(ENDPOINTS, ((*mine, *key) for key, *_ in moved.altered))
    began: defaultdict[str, list[Row]] = defaultdict(list)
    started = [("joined", key, claim) for key, claim in moved.joined]
    started += [(change(old, new), key, new) for key, old, new in moved.altered]
    for word, key, claim in started:
        doubt = believed.doubt if claim.stale else ""
        stands = _standing(claim, others.get(key[:3], ()), federation)
        began[word].append(_version(claim, stands, doubt))
        writing.tell("endpoint", placed(key), word, believed.provider)
    for key, _ in moved.left:
        writing.tell("endpoint", placed(key), "left", believed.provider)
    for word, versions in began.items():
        writing.begin(ENDPOINTS, versions, word)
    if others:
        reconsider(writing, others, after, federation)


def contested(connection: Connection) -> dict[Place, list[Row]]:
    """The places that several claim."""
    return _by_place(CONTESTED.rows(connection))


def reconsider(
    writing: Writing, others: Mapping[Place, list[Row]], seen: Claims, federation: Preferences
) -> None:
    """Let claims stand or fall, now that this scope's, or the rules, have changed."""
    mine: defaultdict[Place, list[Endpoint]] = defaultdict(list)
    for at, claimed in seen.items():
        if at[:3] in others:
            mine[at[:3]].append(claimed.endpoint)
    ended: list[tuple[str, str, *EndpointKey]] = []
    began: defaultdict[str, list[Row]] = defaultdict(list)
    for place, found in others.items():
        theirs = [rows.endpoint(row) for row in found]
        every = [*theirs, *mine.get(place, ())]
        for row, now in zip(found, standings(every, federation), strict=False):
            if now == (before := standing(row)):
                continue
            (provider, scope, *_), (_, doubt, _, _) = row, row[-4:]
            word = disputed(before, now)
            ended.append((provider, scope, *key(row)))
            began[word].append(_version(claim(row), now, doubt))
            writing.tell("endpoint", placed(key(row)), word, provider)
    writing.end(ENDPOINTS, ended)
    for word, versions in began.items():
        writing.begin(ENDPOINTS, versions, word)


def _others(
    connection: Connection, believed: Known, keys: Iterable[EndpointKey]
) -> dict[Place, list[Row]]:
    """What other scopes claim in the places of these endpoints."""
    mine = {"provider": believed.provider, "scope": believed.scope}
    places = list(dict.fromkeys(key[:3] for key in keys))
    return _by_place(OTHERS.rows(connection, keys=json.dumps(places), **mine))


def _by_place(found: Iterable[Row]) -> dict[Place, list[Row]]:
    claimed: dict[Place, list[Row]] = {}
    for row in found:
        claimed.setdefault(key(row)[:3], []).append(row)
    return claimed


def _federation(connection: Connection) -> Preferences:
    (written,) = FEDERATION.rows(connection)[0]
    return preferences.read(written)


def _standing(claim: Claim, others: Sequence[Row], federation: Preferences) -> Standing:
    if not others:
        return UNDISPUTED
    return standings([claim.endpoint, *map(rows.endpoint, others)], federation)[0]


def _version(claim: Claim, standing: Standing, doubt: str) -> Row:
    told = (claim.stale, doubt, standing.outranked, standing.conflict)
    return (*rows.endpoint_row(claim.endpoint), *told)
