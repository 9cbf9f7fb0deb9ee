"""How providers stood and what proxies were sent, by version; since when history is kept."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")
CURRENT = {
    "sqlite_where": sa.text("valid_to_revision is null"),
    "postgresql_where": sa.text("valid_to_revision is null"),
}

# How scopes stand is known from now on.
SEEDED = """
insert into scope_states (provider, scope, type, state, doubt, fault, left_out, paused, last_good,
  valid_from_revision, valid_from)
select s.provider, s.scope, s.type, s.state, s.doubt, s.fault, s.left_out,
  coalesce(o.paused, false), s.last_good, n.revision, n.at
from scopes s join state n on n.id = 1 left join orders o on o.provider = s.provider
"""


def words(name: str) -> sa.Column[Any]:
    return sa.Column(name, WORDS, nullable=False, server_default="")


def validity() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("valid_from_revision", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", WORDS, nullable=False),
        sa.Column("valid_to_revision", sa.BigInteger(), nullable=True),
        sa.Column("valid_to", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def upgrade() -> None:
    horizon = sa.Column("horizon", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    op.add_column("state", horizon)
    op.add_column("state", words("horizon_at"))
    op.create_table(
        "scope_states",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        *map(words, ("provider", "scope", "type", "state", "doubt", "fault", "left_out")),
        sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("last_good", WORDS, nullable=True),
        *map(words, ("change", "cause", "ended")),
        *validity(),
    )
    op.create_index("scope_states_began", "scope_states", ["valid_from_revision"])
    op.create_index(
        "scope_states_current", "scope_states", ["provider", "scope"], unique=True, **CURRENT
    )
    op.create_index("scope_states_ended", "scope_states", ["valid_to_revision"])
    op.create_table(
        "pushes",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        *map(words, ("proxy", "type", "name", "version")),
        *validity(),
    )
    op.create_index("pushes_proxy", "pushes", ["proxy", "type", "name"])
    op.create_index("pushes_ended", "pushes", ["valid_to_revision"])
    op.execute(SEEDED)


def downgrade() -> None:
    op.drop_table("pushes")
    op.drop_table("scope_states")
    op.drop_column("state", "horizon_at")
    op.drop_column("state", "horizon")
