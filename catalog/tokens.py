"""Tokens with which machines join: what the catalog knows of them, which is not the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, update

from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.plain import Plain, Row
from meshfed.catalog.schema import tokens
from meshfed.catalog.writing import Writing

# One statement: of two that come with the last use at once, the second finds none left.
SPENT = Plain(
    "update tokens set used = used + 1 where token = :token and used < uses"
    " and revoked_at = '' and ends_at > :now returning used"
)
COLUMNS = (
    "token, hash, identity, services, uses, ends_at, used, made_at, made_by, revoked_at, probes"
)
THESE = Plain(f"select {COLUMNS} from tokens where token $among(ids)")
EVERY = Plain(f"select {COLUMNS} from tokens where hash <> '' order by made_at desc, token")


class UnknownToken(ValueError):
    """There is no such token, or none that stands."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token: as whom and as what its bearers join. Times as `stamp` writes them."""

    id: str  # no secret: people name it by this
    hash: str = field(repr=False)  # of the secret, SHA-256 in hex
    identity: Identity
    services: tuple[str, ...]  # <name>.<namespace>:<port>
    uses: int
    ends_at: str
    used: int = 0
    made_at: str = ""
    made_by: str = ""
    revoked_at: str = ""
    probes: tuple[str, ...] = ()  # what its bearers' agents look at

    @property
    def served(self) -> tuple[ServiceName, ...]:
        return tuple(ServiceName.parse(each.rpartition(":")[0]) for each in self.services)

    def ended(self, now: str) -> str:
        """Why nobody may join with it any more; nothing while somebody may."""
        if self.revoked_at:
            return f"was revoked at {self.revoked_at}"
        if self.ends_at <= now:
            return f"ended at {self.ends_at}"
        return f"was used {self.used} of {self.uses} times" if self.used >= self.uses else ""


def create(writing: Writing, token: Token, who: str) -> None:
    row = {
        "token": token.id,
        "hash": token.hash,
        "identity": str(token.identity),
        "services": " ".join(token.services),
        "made_at": writing.now,
        "made_by": who,
        "ends_at": token.ends_at,
        "uses": token.uses,
        "used": 0,
        "probes": " ".join(token.probes),
    }
    writing.connection.execute(insert(tokens).values(row))
    serves = f" for {', '.join(token.services)}" if token.services else ""
    said = f"{token.identity}{serves}, {token.uses} uses, until {token.ends_at}"
    writing.tell("token", token.id, f"made: {said}")


def stand(writing: Writing, policy: Token) -> None:
    """Note what a policy says: no secret is its, so that nobody joins with it as with a token."""
    assert not policy.hash
    writing.connection.execute(delete(tokens).where(tokens.c.token == policy.id))
    row = {
        "token": policy.id,
        "identity": str(policy.identity),
        "services": " ".join(policy.services),
        "probes": " ".join(policy.probes),
        "uses": 0,
        "used": 0,
    }
    writing.connection.execute(insert(tokens).values(row))


def revoke(writing: Writing, id_: str) -> None:
    """Raises UnknownToken."""
    mine = tokens.c.token == id_
    standing = update(tokens).where(mine, tokens.c.revoked_at == "")
    if not writing.connection.execute(standing.values(revoked_at=writing.now)).rowcount:
        known = find(writing.connection, id_)
        raise UnknownToken(f"{id_} {known.ended(writing.now)}" if known else f"no token {id_}")
    writing.tell("token", id_, "revoked")


def spend(writing: Writing, id_: str) -> str:
    """Count one use of it; why there was none left, or nothing."""
    if SPENT.rows(writing.connection, token=id_, now=writing.now):
        return ""
    return ended(writing, id_)


def ended(writing: Writing, id_: str) -> str:
    """Why nobody may join with it any more; nothing while somebody may."""
    known = find(writing.connection, id_)
    return known.ended(writing.now) if known else "is unknown"


def find(connection: Connection, id_: str) -> Token | None:
    return next(iter(these(connection, [id_])), None)


def these(connection: Connection, ids: Sequence[str]) -> list[Token]:
    """Those of them that there are."""
    return list(map(_token, THESE.rows(connection, ids=[*ids])))


def every(connection: Connection) -> tuple[Token, ...]:
    """All of them, the newest first."""
    return tuple(map(_token, EVERY.rows(connection)))


def _token(row: Row) -> Token:
    """From the values of COLUMNS."""
    id_, hash_, identity, services, uses, ends_at, used, made_at, made_by, revoked_at, probes = row
    who, serves = Identity.parse(identity), tuple(services.split())
    told = (used, made_at, made_by, revoked_at, tuple(probes.split()))
    return Token(id_, hash_, who, serves, uses, ends_at, *told)
