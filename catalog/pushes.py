"""Which versions each proxy was sent, revision by revision, for those who want to know."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, update

from meshfed.catalog.reports import Pushed
from meshfed.catalog.schema import CURRENT, pushes, workloads
from meshfed.catalog.writing import Writing

Row = Mapping[str, Any]


def push(writing: Writing, pushed: Iterable[Pushed]) -> None:
    """Keep what these proxies have now; of several states at one revision the last."""
    for one in pushed:
        # One that left the mesh meanwhile would stand here for ever.
        if _there(writing.connection, one.proxy):
            _push(writing, one)


def forget(writing: Writing, proxies: Iterable[str]) -> None:
    """These have left the mesh, and what they were sent counts no longer."""
    theirs = and_(pushes.c.proxy == bindparam("left"), CURRENT)
    ended = {"valid_to_revision": writing.allocate(), "valid_to": writing.at}
    left = [{"left": proxy} for proxy in proxies]
    writing.connection.execute(update(pushes).where(theirs).values(ended), left)


def sent(connection: Connection, proxy: str, revision: int) -> list[Row]:
    """What a proxy had been sent at a revision, by type and name, and since when."""
    begun = pushes.c.valid_from_revision <= revision
    ended = pushes.c.valid_to_revision
    stood = and_(pushes.c.proxy == proxy, begun, or_(ended.is_(None), ended > revision))
    asked = select(pushes).where(stood).order_by(pushes.c.type, pushes.c.name)
    return [dict(row) for row in connection.execute(asked).mappings()]


def _there(connection: Connection, proxy: str) -> bool:
    known = select(workloads.c.id).where(workloads.c.workload == proxy, CURRENT)
    return connection.execute(known).first() is not None


def _push(writing: Writing, one: Pushed) -> None:
    mine = and_(pushes.c.proxy == one.proxy, pushes.c.type == one.type, CURRENT)
    found = writing.connection.execute(select(pushes).where(mine)).mappings()
    before = {row["name"]: dict(row) for row in found}
    # A version that is not known is of something rejected: what was sent before it stands.
    moved = {n: v for n, v in one.versions.items() if v and _version(before, n) != v}
    gone = before.keys() - one.versions.keys()
    ending = [before[name] for name in (*moved, *gone) if name in before]
    _end(writing, [row for row in ending if row["valid_from_revision"] < one.revision], one)
    _undo(writing, [row for row in ending if row["valid_from_revision"] >= one.revision])
    began = {"valid_from_revision": one.revision, "valid_from": writing.now}
    new = [
        {"proxy": one.proxy, "type": one.type, "name": name, "version": version, **began}
        for name, version in moved.items()
    ]
    if new:
        writing.connection.execute(insert(pushes), new)


def _version(before: Mapping[str, Row], name: str) -> str:
    return str(before[name]["version"]) if name in before else ""


def _end(writing: Writing, ending: list[Row], one: Pushed) -> None:
    ended = update(pushes).where(pushes.c.id == bindparam("row"))
    ended = ended.values(valid_to_revision=one.revision, valid_to=writing.now)
    if ending:
        writing.connection.execute(ended, [{"row": row["id"]} for row in ending])


def _undo(writing: Writing, ending: list[Row]) -> None:
    """What was sent earlier at this same revision: only the last of it is kept."""
    if ending:
        undone = delete(pushes).where(pushes.c.id == bindparam("row"))
        writing.connection.execute(undone, [{"row": row["id"]} for row in ending])
