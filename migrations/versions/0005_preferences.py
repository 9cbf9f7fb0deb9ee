"""The federation's rules: what the configuration says, what of it views join, and clusters."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("state", sa.Column("federation", WORDS, nullable=False, server_default=""))
    op.add_column("workloads", sa.Column("cluster", WORDS, nullable=False, server_default=""))
    op.create_table(
        "preferences",
        sa.Column("service", WORDS, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("term", WORDS, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("service", "position"),
    )


def downgrade() -> None:
    op.drop_table("preferences")
    op.drop_column("workloads", "cluster")
    op.drop_column("state", "federation")
