"""How each scope stood, version by version: what `get providers` says of any moment."""

from collections.abc import Iterable

from sqlalchemy import Connection, or_, select

from meshfed.catalog.plain import Into, Plain
from meshfed.catalog.schema import scopes
from meshfed.catalog.writing import Writing

COUNTS = ("type", "state", "doubt", "fault", "left_out", "paused")

THESE = "provider = :provider and scope $among(scopes)"
NOW = Plain(
    "select s.scope, s.type, s.state, s.doubt, s.fault, s.left_out, coalesce(o.paused, false),"
    " s.last_good from scopes s left join orders o on o.provider = s.provider"
    " where s.provider = :provider and s.scope $among(scopes) order by s.scope"
)
BEFORE = Plain(
    f"select scope, {', '.join(COUNTS)} from scope_states"
    f" where {THESE} and valid_to_revision is null"
)
OVER = Plain(
    "update scope_states set valid_to_revision = :revision, valid_to = :at"
    f" where {THESE} and valid_to_revision is null"
)
BEGAN = Into(
    "scope_states",
    ("provider", "scope", *COUNTS, "last_good", "valid_from_revision", "valid_from", "cause"),
)


def observed(connection: Connection) -> frozenset[str]:
    """The providers and sources of policies that were believed, or read without fault, once."""
    ever = or_(scopes.c.revision.is_not(None), scopes.c.last_good.is_not(None))
    return frozenset(connection.execute(select(scopes.c.provider).where(ever)).scalars())


def condition(fault: str, doubt: str, *, accepted: bool) -> str:
    """The state of a scope; that it is paused stands beside it.

    `accepted`: somebody said that what this fault leaves is true.
    """
    if fault and not (accepted and not doubt):
        return "failing"
    return "doubted" if doubt else "good"


def stood(writing: Writing, provider: str, scopes: Iterable[str]) -> None:
    """Begin versions of how scopes stand, if that became different; no revision is made."""
    these = {"provider": provider, "scopes": list(scopes)}
    now = {scope: stands for scope, *stands in NOW.rows(writing.connection, **these)}
    before = {scope: stands for scope, *stands in BEFORE.rows(writing.connection, **these)}
    moved = {
        scope: stands for scope, stands in now.items() if before.get(scope) != stands[: len(COUNTS)]
    }
    if not moved:
        return
    revision, at = writing.present()
    if over := [scope for scope in moved if scope in before]:
        OVER.run(writing.connection, provider=provider, scopes=over, revision=revision, at=at)
    since = (revision, at, writing.cause)
    BEGAN.on(
        writing.connection,
        [(provider, scope, *stands, *since) for scope, stands in moved.items()],
    )


def all_stood(writing: Writing, provider: str) -> None:
    """The same for every scope of a provider: an order concerns them all."""
    theirs = select(scopes.c.scope).where(scopes.c.provider == provider)
    stood(writing, provider, writing.connection.execute(theirs).scalars().all())
