"""Which replica leads, in terms that are numbered: what is left of an earlier term is refused.

A lease in the database, by the database's clock, and no session lock: the lock of a process that is
stopped, or whose machine hangs, stays with it for as long as its kernel answers for it.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, text, update

from meshfed.catalog.plain import Plain
from meshfed.catalog.replicas import forget
from meshfed.catalog.schema import leadership

LEASE = 3.0  # seconds without a word from the leader until another may take over

# In seconds, now and not when the transaction began: it may have waited long for its turn.
NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "cast(extract(epoch from clock_timestamp()) as double precision)",
}


# A lease that would last for longer than any does is of a clock that was set back since.
HELD = "select epoch, replica, until > {now} and until <= {now} + {lease} from leadership"
LEADER = Plain(
    HELD.format(now=NOW["sqlite"], lease=LEASE),
    postgresql=HELD.format(now=NOW["postgresql"], lease=LEASE),
)
TERM = Plain("select epoch, replica from leadership")


class Deposed(Exception):
    """Another term began: what would be written is of one that is over."""


@dataclass(frozen=True, slots=True)
class Term:
    """Whose it is counts too: a standby that is promoted may not know the last epochs."""

    epoch: int
    replica: str


NEVER = Term(0, "")


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, or led last."""

    term: Term = NEVER
    held: bool = False  # the lease is good


NOBODY = Leader()


def leader(connection: Connection) -> Leader:
    found = LEADER.row(connection)
    return NOBODY if found is None else Leader(Term(*found[:2]), bool(found[2]))


def take(connection: Connection, replica: str, *, at_once: bool = False) -> Term | None:
    """Begin a term, unless another replica's lease is good.

    It is done in the writers' turn: no write of the term before is under way meanwhile, and none
    can come after. `at_once`: whoever leads is over, whatever its lease says.
    """
    before = leader(connection)
    if before.held and not at_once:
        return None
    term = Term(before.term.epoch + 1, replica)
    until = text(f"{_now(connection)} + {LEASE}")
    written = insert(leadership) if before is NOBODY else update(leadership)
    connection.execute(written.values(epoch=term.epoch, replica=replica, until=until))
    if before.term.replica:  # it is gone, or it writes all of this again
        forget(connection, [before.term.replica])
    return term


def renew(connection: Connection, term: Term) -> None:
    """Keep leading. Raises Deposed."""
    fence(connection, term)
    connection.execute(update(leadership).values(until=text(f"{_now(connection)} + {LEASE}")))


def leave(connection: Connection, replica: str) -> None:
    """A replica ends: another may lead at once, if it did."""
    connection.execute(update(leadership).where(leadership.c.replica == replica).values(until=0))
    forget(connection, [replica])


def fence(connection: Connection, term: Term) -> None:
    """Of a term that is over nothing may be written. Raises Deposed."""
    found = TERM.row(connection)
    now = NEVER if found is None else Term(*found)
    if now != term:
        raise Deposed(f"{now.replica} leads, since epoch {now.epoch}")


def _now(connection: Connection) -> str:
    return NOW[connection.dialect.name]
