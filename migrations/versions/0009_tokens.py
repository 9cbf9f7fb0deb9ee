"""Tokens with which machines join, as far as the catalog may know them, and who joined."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SAID = ("hash", "identity", "services", "made_at", "made_by", "ends_at", "revoked_at")
JOINED = ("token", "joined_at", "serial", "former")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("token", WORDS, nullable=False),
        *(sa.Column(name, WORDS, nullable=False, server_default="") for name in SAID),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("uses", "used")),
        sa.PrimaryKeyConstraint("token"),
    )
    op.create_table(
        "joined",
        sa.Column("workload", WORDS, nullable=False),
        *(sa.Column(name, WORDS, nullable=False, server_default="") for name in JOINED),
        sa.PrimaryKeyConstraint("workload"),
    )


def downgrade() -> None:
    op.drop_table("joined")
    op.drop_table("tokens")
