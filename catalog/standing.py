"""How each scope stood, version by version: what `get providers` says of any moment."""

from typing import Any

from sqlalchemy import Connection, and_, insert, or_, select, update

from meshfed.catalog.schema import CURRENT, orders, scope_states, scopes
from meshfed.catalog.writing import Writing

COUNTS = ("type", "state", "doubt", "fault", "left_out", "paused")


def observed(connection: Connection) -> frozenset[str]:
    """The providers and sources of policies that were believed, or read without fault, once."""
    ever = or_(scopes.c.revision.is_not(None), scopes.c.last_good.is_not(None))
    return frozenset(connection.execute(select(scopes.c.provider).where(ever)).scalars())


def condition(fault: str, doubt: str) -> str:
    """The state of a scope; that it is paused stands beside it."""
    return "failing" if fault else "doubted" if doubt else "good"


def stood(writing: Writing, provider: str, scope: str) -> None:
    """Begin a version of how a scope stands, if that became different; no revision is made."""
    now = _now(writing, provider, scope)
    mine = and_(scope_states.c.provider == provider, scope_states.c.scope == scope, CURRENT)
    before = writing.connection.execute(select(scope_states).where(mine)).mappings().one_or_none()
    if before and all(before[name] == now[name] for name in COUNTS):
        return
    revision, at = writing.present()
    if before:
        ended = update(scope_states).where(scope_states.c.id == before["id"])
        writing.connection.execute(ended.values(valid_to_revision=revision, valid_to=at))
    began = {"valid_from_revision": revision, "valid_from": at, "cause": writing.cause}
    writing.connection.execute(insert(scope_states).values(**now, **began))


def all_stood(writing: Writing, provider: str) -> None:
    """The same for every scope of a provider: an order concerns them all."""
    theirs = select(scopes.c.scope).where(scopes.c.provider == provider)
    for scope in writing.connection.execute(theirs).scalars().all():
        stood(writing, provider, scope)


def _now(writing: Writing, provider: str, scope: str) -> dict[str, Any]:
    mine = and_(scopes.c.provider == provider, scopes.c.scope == scope)
    row = writing.connection.execute(select(scopes).where(mine)).mappings().one()
    paused = select(orders.c.paused).where(orders.c.provider == provider)
    names = ("provider", "scope", "type", "state", "doubt", "fault", "left_out", "last_good")
    return {name: row[name] for name in names} | {
        "paused": bool(writing.connection.execute(paused).scalar())
    }
