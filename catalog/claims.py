"""Endpoints as their providers claim them, made rows: who is believed where several claim one."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from msgspec import Struct, structs
from sqlalchemy import Connection

from meshfed.catalog import overrides, preferences, rows
from meshfed.catalog.differences import (
    Claim,
    Difference,
    EndpointKey,
    Place,
    Standing,
    apart,
    by_key,
    change,
    difference,
    disputed,
    placed,
    standings,
)
from meshfed.catalog.model import Endpoint, Known
from meshfed.catalog.overrides import Overrides
from meshfed.catalog.plain import Plain, Row
from meshfed.catalog.preferences import NO_PREFERENCES, Preferences
from meshfed.catalog.versions import ENDPOINTS
from meshfed.catalog.writing import Writing

Claims = Mapping[EndpointKey, Claim]

UNDISPUTED = Standing()
UNSAID = ("", "")

ADDRESS, KEY = attrgetter("address"), attrgetter("key")

OF_WORKLOAD = ENDPOINTS.current("workload = :workload")
CONTESTED = ENDPOINTS.current("conflict <> ''", "id")
FEDERATION = Plain("select federation from state where id = 1")
# What other scopes claim in the same places.
THEIRS = (
    f"select {ENDPOINTS.listed('e.')} from endpoints e where e.service = k.value ->> 0"
    " and e.port = cast(k.value ->> 1 as integer) and e.address = k.value ->> 2"
    " and e.valid_to_revision is null"
    " and not (e.provider = :provider and e.scope = k.value ->> 3)"
)
# The index is asked once for each: `offset 0` keeps Postgres from joining the whole table instead.
OTHERS = Plain(
    THEIRS.replace("from endpoints e where", "from $each(keys) as k cross join endpoints e where"),
    postgresql=f"select e.* from $each(keys) as k cross join lateral ({THEIRS} offset 0) as e",
)


class Moved(Struct, frozen=True):
    """What is different of one scope's claims, and all that it claims now at those addresses."""

    known: Known
    difference: Difference[EndpointKey, Claim]
    there: Claims

    @property
    def mine(self) -> tuple[str, str]:
        return self.known.provider, self.known.scope

    @property
    def places(self) -> set[Place]:
        return {key[:3] for key in self.difference.keys}


def moved(before: Known, after: Known) -> Moved:
    seen = apart(
        before.endpoints, after.endpoints, ADDRESS, (key[2] for key in before.stale ^ after.stale)
    )
    were, are = (
        {key: Claim(endpoint, key in stale) for key, endpoint in by_key(some, KEY).items()}
        for some, stale in zip(seen, (before.stale, after.stale), strict=True)
    )
    return Moved(after, difference(were, are), are)


def key(row: Row) -> EndpointKey:
    """Of a row of ENDPOINTS."""
    _, _, service, port, address, target, *_ = row
    return service, port, address, target


def claim(row: Row) -> Claim:
    """As its provider has it, whatever people said of its health."""
    endpoint = rows.endpoint(row)
    if said := row[-6]:
        endpoint = structs.replace(endpoint, health=rows.HEALTH[said], health_reason=row[-5])
    return Claim(endpoint, bool(row[-4]))


def standing(row: Row) -> Standing:
    return Standing(bool(row[-2]), row[-1])


def write(writing: Writing, several: Sequence[Moved]) -> None:
    """What is different of the claims of one provider's scopes, and what of others' it changes."""
    if not several:
        return
    others = _others(writing.connection, several)
    entangled = _entangled(several, others)
    if not entangled:
        _write(writing, several, others)
        return
    alone = [each for each in several if each.mine not in entangled]
    for some in (alone, *([each] for each in several if each.mine in entangled)):
        _write(writing, some, _others(writing.connection, some))


def _write(
    writing: Writing, several: Sequence[Moved], others: Mapping[Place, Sequence[Row]]
) -> None:
    """Of scopes that have no place in common."""
    federation = _federation(writing.connection) if others else NO_PREFERENCES
    over = overrides.standing(writing.connection)
    left = [(*each.mine, *key) for each in several for key, _ in each.difference.left]
    altered = [(*each.mine, *key) for each in several for key, *_ in each.difference.altered]
    writing.end(ENDPOINTS, left, "left")
    writing.end(ENDPOINTS, altered)
    began: defaultdict[str, list[Row]] = defaultdict(list)
    for each in several:
        doubt, provider = each.known.doubt, each.known.provider
        started = [("joined", key, claim) for key, claim in each.difference.joined]
        started += [(change(old, new), key, new) for key, old, new in each.difference.altered]
        for word, key, claim in started:
            stands = _standing(claim, others.get(key[:3], ()), federation)
            began[word].append(_version(claim, stands, doubt if claim.stale else "", over))
            writing.tell("endpoint", placed(key), word, provider)
        for key, _ in each.difference.left:
            writing.tell("endpoint", placed(key), "left", provider)
    for word, versions in began.items():
        writing.begin(ENDPOINTS, versions, word)
    if others:
        there = {key: claim for each in several for key, claim in each.there.items()}
        reconsider(writing, others, there, federation)


def judge(writing: Writing, workload: str, word: str) -> None:
    """Make the versions of a workload's endpoints again: what people say of it has changed."""
    over = overrides.standing(writing.connection)
    found = OF_WORKLOAD.rows(writing.connection, workload=workload)
    writing.end(ENDPOINTS, [(*row[:2], *key(row)) for row in found])
    versions = [_version(claim(row), standing(row), row[-3], over) for row in found]
    writing.begin(ENDPOINTS, versions, word)
    for row in found:
        writing.tell("endpoint", placed(key(row)), word, row[0])


def contested(connection: Connection) -> dict[Place, list[Row]]:
    """The places that several claim."""
    return _by_place(CONTESTED.rows(connection))


def reconsider(
    writing: Writing, others: Mapping[Place, Sequence[Row]], seen: Claims, federation: Preferences
) -> None:
    """Let claims stand or fall, now that this scope's, or the rules, have changed."""
    mine: defaultdict[Place, list[Endpoint]] = defaultdict(list)
    for at, claimed in seen.items():
        if at[:3] in others:
            mine[at[:3]].append(claimed.endpoint)
    ended: list[tuple[str, str, *EndpointKey]] = []
    began: defaultdict[str, list[Row]] = defaultdict(list)
    over = overrides.standing(writing.connection)
    for place, found in others.items():
        theirs = [rows.endpoint(row) for row in found]
        every = [*theirs, *mine.get(place, ())]
        for row, now in zip(found, standings(every, federation), strict=False):
            if now == (before := standing(row)):
                continue
            (provider, scope, *_), (_, doubt, _, _) = row, row[-4:]
            word = disputed(before, now)
            ended.append((provider, scope, *key(row)))
            began[word].append(_version(claim(row), now, doubt, over))
            writing.tell("endpoint", placed(key(row)), word, provider)
    writing.end(ENDPOINTS, ended)
    for word, versions in began.items():
        writing.begin(ENDPOINTS, versions, word)


def _others(connection: Connection, several: Iterable[Moved]) -> dict[Place, list[Row]]:
    """What other scopes claim in the places of what is different."""
    provider, keys = "", []
    for each in several:
        provider, scope = each.mine
        keys += [(*place, scope) for place in each.places]
    return _by_place(OTHERS.rows(connection, keys=json.dumps(keys), provider=provider))


def _entangled(
    several: Sequence[Moved], others: Mapping[Place, Sequence[Row]]
) -> set[tuple[str, str]]:
    """Those of these scopes that have a place in common with another of them."""
    if len(several) == 1:
        return set()
    there: defaultdict[Place, set[tuple[str, str]]] = defaultdict(set)
    for each in several:
        for place in each.places:
            there[place].add(each.mine)
    these = {each.mine for each in several}
    for place, found in others.items():
        there[place] |= these & {(provider, scope) for provider, scope, *_ in found}
    return {mine for some in there.values() if len(some) > 1 for mine in some}


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


def _version(claim: Claim, standing: Standing, doubt: str, over: Overrides) -> Row:
    endpoint, said = claim.endpoint, UNSAID
    if override := over.get(endpoint.workload):
        said = (rows.WORD[endpoint.health], endpoint.health_reason)
        verdict = {"health": override.health, "health_reason": override.verdict}
        endpoint = structs.replace(endpoint, **verdict)
    told = (claim.stale, doubt, standing.outranked, standing.conflict)
    return (*rows.endpoint_row(endpoint), *said, *told)
