"""Until when machines that joined are taken for alive, and what people say of a workload."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ADDED = {
    "tokens": ("probes",),
    "joined": ("lease_until", "silence", "not_after", "machine", "word"),
    "endpoints": ("said", "said_reason"),
}


def _words(name: str) -> sa.Column[str]:
    return sa.Column(name, WORDS, nullable=False, server_default="")


def upgrade() -> None:
    for table, names in ADDED.items():
        for name in names:
            op.add_column(table, _words(name))
    op.create_table(
        "overrides",
        sa.Column("workload", WORDS, nullable=False),
        *(_words(name) for name in ("state", "reason", "who", "at")),
        sa.PrimaryKeyConstraint("workload"),
    )


def downgrade() -> None:
    op.drop_table("overrides")
    for table, names in ADDED.items():
        for name in names:
            op.drop_column(table, name)
