"""How many calls went where, by the minute."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007c"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KEY = ("minute", "replica", "source_identity", "service", "version", "platform", "zone")
COUNTS = ("requests", "failed", "in_flight")


def upgrade() -> None:
    op.create_table(
        "traffic",
        *(sa.Column(name, WORDS, nullable=False) for name in KEY),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.PrimaryKeyConstraint(*KEY),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("traffic")
