"""Machines of a platform that people attached to services."""

import sqlalchemy as sa
from alembic import op

revision = "0007b"
down_revision = "0007"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "attachments",
        sa.Column("resource", WORDS, nullable=False),
        sa.Column("service", WORDS, nullable=False),
        sa.Column("port", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("identity", WORDS, nullable=False, server_default=""),
        sa.Column("interception", WORDS, nullable=False, server_default=""),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("resource", "service", "port"),
    )


def downgrade() -> None:
    op.drop_table("attachments")
