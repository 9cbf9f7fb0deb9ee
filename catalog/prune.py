"""What is older than anyone wants to know, taken away a little at a time."""

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, select, update

from meshfed.catalog.schema import (
    changes,
    endpoints,
    policies,
    pushes,
    scope_states,
    services,
    state,
    statements,
    workloads,
)

MOST = 200  # rows in one transaction: a writer waits for it a few milliseconds
VERSIONED = (endpoints, workloads, services, statements, policies, pushes)


def prune(connection: Connection, before: str, most: int = MOST) -> int:
    """Take away some of what ended before this time; how many rows it was, 0 when all is done.

    What was in force at that time stays: any moment since can be asked for.
    """
    horizon = _horizon(connection, before)
    gone = 0
    for table, old in _old(horizon, before):
        if gone < most:
            some = select(table.c.id).where(old).limit(most - gone)
            ended = delete(table).where(table.c.id.in_(some.scalar_subquery()))
            gone += connection.execute(ended).rowcount
    if gone:
        moved = update(state).values(horizon=horizon, horizon_at=before)
        connection.execute(moved.where(state.c.horizon_at < before))
    return gone


def _horizon(connection: Connection, before: str) -> int:
    """The revision that was in force at that time."""
    last = select(changes.c.revision).where(changes.c.at <= before)
    last = last.order_by(changes.c.at.desc(), changes.c.id.desc()).limit(1)
    kept = connection.execute(select(state.c.horizon)).scalar() or 0
    return max(connection.execute(last).scalar() or 0, kept)


def _old(horizon: int, before: str) -> list[tuple[Table, ColumnElement[bool]]]:
    # How scopes stood is told by time. The mesh's own settings stand in lines alone, and are few.
    # By the first line of the revision that stands, followers know that it is the one they have.
    stands = changes.c.revision == select(state.c.revision).scalar_subquery()
    first = select(func.min(changes.c.id)).where(stands).scalar_subquery()
    left = changes.c.id.is_distinct_from(first)
    told = and_(changes.c.at <= before, changes.c.what != "mesh", left)
    return [
        *((table, table.c.valid_to_revision <= horizon) for table in VERSIONED),
        (scope_states, scope_states.c.valid_to <= before),
        (changes, told),
    ]
