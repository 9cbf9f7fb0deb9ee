"""What one source of policies now says, made rows; what it got wrong stands beside what it had."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Table, and_, delete, insert, select, update

from meshfed.catalog import rows
from meshfed.catalog.differences import difference
from meshfed.catalog.model import ObjectName, Policy, Specified
from meshfed.catalog.plain import Row
from meshfed.catalog.schema import CURRENT, grants, policies, scopes, shares
from meshfed.catalog.spread import grant_rows, share_rows
from meshfed.catalog.standing import stood
from meshfed.catalog.versions import Versions
from meshfed.catalog.writing import Writing

ACCEPTED, REJECTED, SHADOWED = "accepted", "rejected", "shadowed"
STAYS = "; the previous version stays in force"

# source, kind, namespace, name, and a number where it is one of several rejections
Key = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of policies: an object in force or beaten by another, or a rejection."""

    state: str
    document: str = ""
    file: str = ""
    field: str = ""
    reason: str = ""


NAMED = ("source", "kind", "namespace", "name", "slot")
POLICIES = Versions("policies", (*NAMED, *Entry.__slots__), NAMED)


def entries(
    specified: Specified, before: Mapping[Key, Entry], first: Sequence[str] = ()
) -> dict[Key, Entry]:
    """All entries of all sources, now that one of them says this."""
    source = specified.source
    kept = {key: entry for key, entry in before.items() if key[0] != source}
    mine = {key: entry for key, entry in before.items() if key[0] == source}
    said = _stated(specified)
    lasting = {k: e for k, e in mine.items() if k not in said and _lasts(k, e, specified)}
    refused = _refusals(specified, {**lasting, **said})
    return _ranked({**kept, **lasting, **said, **refused}, first)


def _stated(specified: Specified) -> dict[Key, Entry]:
    said: dict[Key, Entry] = {}
    for policy, where in specified.policies:
        key = _key(specified.source, policy)
        said.setdefault(key, Entry(ACCEPTED, rows.document(policy), _file(where)))
    return said


def _refusals(specified: Specified, standing: Mapping[Key, Entry]) -> dict[Key, Entry]:
    refused: dict[Key, Entry] = {}
    for number, (name, kind, why) in enumerate(specified.rejected, 1):
        at = name or ObjectName("", "")
        stays = STAYS if (specified.source, kind, at.namespace, at.name, "") in standing else ""
        told = f"{why.where}: {why.why}" if why.where else why.why
        key = (specified.source, kind, at.namespace, at.name, str(number))
        refused[key] = Entry(REJECTED, "", _file(why.where), why.field, told + stays)
    stated: dict[Key, str] = {}
    for policy, where in specified.policies:
        key = _key(specified.source, policy)
        if (first := stated.setdefault(key, where)) != where:
            told = f"{where}: the same object stands at {first}: remove one of them"
            refused[(*key[:4], where)] = Entry(REJECTED, "", _file(where), "metadata.name", told)
    return refused


def _lasts(key: Key, entry: Entry, specified: Specified) -> bool:
    """Whether an object is missing because it was not read, or its new text is wrong.

    A text so wrong that it has no name may be any object of its file, so all of them hold.
    """
    _, kind, namespace, name, slot = key
    if (kind, namespace) in specified.unread:
        return True
    return not slot and any(
        (at == ObjectName(namespace, name) and told in (kind, ""))
        if at
        else _file(why.where) == entry.file
        for at, told, why in specified.rejected
    )


def _ranked(all_of_them: dict[Key, Entry], first: Sequence[str]) -> dict[Key, Entry]:
    """An object that several sources have is in force as the first of them says.

    These come first; of all others, the first by name.
    """
    ranks = {source: rank - len(first) for rank, source in enumerate(first)}
    winners: dict[tuple[str, str, str], str] = {}
    for source, kind, namespace, name, slot in sorted(
        all_of_them, key=lambda key: (ranks.get(key[0], 0), key)
    ):
        if not slot:
            winners.setdefault((kind, namespace, name), source)
    return {key: _rank(key, entry, winners) for key, entry in all_of_them.items()}


def _rank(key: Key, entry: Entry, winners: Mapping[tuple[str, str, str], str]) -> Entry:
    if entry.state == REJECTED:
        return entry
    winner = winners[key[1:4]]
    if winner == key[0]:
        return replace(entry, state=ACCEPTED, reason="")
    return replace(entry, state=SHADOWED, reason=f"{winner} has the same object and comes first")


def _key(source: str, policy: Policy) -> Key:
    return (source, rows.KINDS[type(policy)], policy.name.namespace, policy.name.name, "")


def _file(where: str) -> str:
    file, colon, line = where.rpartition(":")
    return file if colon and line.isdigit() else where


def specify(writing: Writing, specified: Specified, first: Sequence[str] = ()) -> None:
    """Write what is different, if anything is; an unreadable source changes no policy."""
    if not specified.fault:
        _policies(writing, specified, first)
    _source(writing, specified)


def in_force(connection: Connection) -> list[Policy]:
    """Every policy that applies, by kind and name."""
    accepted = select(policies).where(policies.c.state == ACCEPTED, CURRENT)
    found = connection.execute(accepted).mappings()
    ordered = sorted(found, key=lambda row: (row["kind"], row["namespace"], row["name"]))
    return [rows.policy(row) for row in ordered]


def _policies(writing: Writing, specified: Specified, first: Sequence[str]) -> None:
    before: dict[Key, Entry] = {}
    for row in writing.connection.execute(select(policies).where(CURRENT)).mappings():
        key = (row["source"], row["kind"], row["namespace"], row["name"], row["slot"])
        before[key] = Entry(*(row[name] for name in Entry.__slots__))
    after = entries(specified, before, first)
    moved = difference(before, after)
    if not moved:
        return
    writing.end(POLICIES, (key for key, _ in moved.left), "left")
    writing.end(POLICIES, (key for key, *_ in moved.altered))
    writing.begin(POLICIES, [_row(key, entry) for key, entry in moved.joined], "joined")
    writing.begin(POLICIES, [_row(key, entry) for key, _, entry in moved.altered], "changed")
    for key, entry in moved.joined:
        writing.tell("policy", _told(key), _word(entry, "joined"), key[0])
    for key, _, entry in moved.altered:
        writing.tell("policy", _told(key), _word(entry, "changed"), key[0])
    for key, entry in moved.left:
        word = "no longer rejected" if entry.state == REJECTED else "left"
        writing.tell("policy", _told(key), word, key[0])
    if _applied(before) != _applied(after):
        _expand(writing.connection)
        writing.shape_moved()


def _applied(all_of_them: Mapping[Key, Entry]) -> set[tuple[Any, ...]]:
    return {(k[1:4], e.document) for k, e in all_of_them.items() if e.state == ACCEPTED}


def _row(key: Key, entry: Entry) -> Row:
    return (*key, *(getattr(entry, name) for name in Entry.__slots__))


def _told(key: Key) -> str:
    _, kind, namespace, name, _ = key
    return f"{kind or 'object'} {namespace}/{name}" if name else "an object without a name"


def _word(entry: Entry, word: str) -> str:
    return word if entry.state == ACCEPTED else entry.state


def _expand(connection: Connection) -> None:
    """Bring the tables behind mesh_access and mesh_splits to the policies in force."""
    applied = in_force(connection)
    _become(connection, grants, (row._asdict() for row in grant_rows(applied)))
    _become(connection, shares, (row._asdict() for row in share_rows(applied)))


def _become(connection: Connection, table: Table, wanted: Iterable[dict[str, Any]]) -> None:
    before = {tuple(row) for row in connection.execute(select(table))}
    names = [column.name for column in table.columns]
    after = {tuple(row[name] for name in names) for row in wanted}
    for gone in before - after:
        same = zip(table.columns, gone, strict=True)
        connection.execute(delete(table).where(*(column == value for column, value in same)))
    new = [dict(zip(names, row, strict=True)) for row in sorted(after - before)]
    if new:
        connection.execute(insert(table), new)


def _source(writing: Writing, specified: Specified) -> None:
    """How the source itself fares, as one more row of mesh_providers."""
    doubt = specified.fault or specified.doubt
    mine = and_(scopes.c.provider == specified.source, scopes.c.scope == specified.source)
    before = writing.connection.execute(select(scopes).where(mine)).mappings().one_or_none()
    said: dict[str, Any] = {
        "type": "specification",
        "state": "doubted" if doubt else "good",
        "doubt": doubt,
    }
    if before is None:
        new = {"provider": specified.source, "scope": specified.source}
        writing.connection.execute(insert(scopes).values(new))
    if before is None or any(before[name] != value for name, value in said.items()):
        word = f"doubted: {doubt}" if doubt else "believed again" if before else "first seen"
        writing.tell("provider", specified.source, word, specified.source)
    elif not writing.begun:
        return
    if not specified.fault:
        said["last_good"] = writing.now
    if writing.begun:
        said["revision"] = writing.allocate()
    writing.connection.execute(update(scopes).where(mine).values(said))
    stood(writing, specified.source, [specified.source])
