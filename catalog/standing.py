"""How each scope stood, version by version: what `get providers` says of any moment."""

from sqlalchemy import Connection, or_, select

from meshfed.catalog.plain import Into, Plain
from meshfed.catalog.schema import scopes
from meshfed.catalog.writing import Writing

COUNTS = ("type", "state", "doubt", "fault", "left_out", "paused")

MINE = "provider = :provider and scope = :scope"
NOW = Plain(
    "select s.type, s.state, s.doubt, s.fault, s.left_out, coalesce(o.paused, false), s.last_good"
    " from scopes s left join orders o on o.provider = s.provider"
    " where s.provider = :provider and s.scope = :scope"
)
BEFORE = Plain(
    f"select {', '.join(COUNTS)} from scope_states where {MINE} and valid_to_revision is null"
)
OVER = Plain(
    "update scope_states set valid_to_revision = :revision, valid_to = :at"
    f" where {MINE} and valid_to_revision is null"
)
BEGAN = Into(
    "scope_states",
    ("provider", "scope", *COUNTS, "last_good", "valid_from_revision", "valid_from", "cause"),
)


def observed(connection: Connection) -> frozenset[str]:
    """The providers and sources of policies that were believed, or read without fault, once."""
    ever = or_(scopes.c.revision.is_not(None), scopes.c.last_good.is_not(None))
    return frozenset(connection.execute(select(scopes.c.provider).where(ever)).scalars())


def condition(fault: str, doubt: str) -> str:
    """The state of a scope; that it is paused stands beside it."""
    return "failing" if fault else "doubted" if doubt else "good"


def stood(writing: Writing, provider: str, scope: str) -> None:
    """Begin a version of how a scope stands, if that became different; no revision is made."""
    mine = {"provider": provider, "scope": scope}
    now = NOW.rows(writing.connection, **mine)[0]
    before = BEFORE.row(writing.connection, **mine)
    if before and tuple(before) == tuple(now[: len(COUNTS)]):
        return
    revision, at = writing.present()
    if before:
        OVER.run(writing.connection, revision=revision, at=at, **mine)
    began = (provider, scope, *now, revision, at, writing.cause)
    BEGAN.on(writing.connection, [began])


def all_stood(writing: Writing, provider: str) -> None:
    """The same for every scope of a provider: an order concerns them all."""
    theirs = select(scopes.c.scope).where(scopes.c.provider == provider)
    for scope in writing.connection.execute(theirs).scalars().all():
        stood(writing, provider, scope)
