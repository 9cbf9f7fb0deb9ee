"""What proxies reach is kept once for each class of them.

The table before stays for replicas of 0012c, which write it; the next release drops it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012d"
down_revision = "0012c"

VIEWS = "fe465b4347b703ec"  # what they came to: tests/catalog/test_migrations.py
WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("proxies", sa.Column("class", sa.BigInteger(), nullable=True))
    op.create_table(
        "class_clusters",
        sa.Column("replica", WORDS, nullable=False),
        sa.Column("class", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cluster", WORDS, nullable=False),
        sa.Column("priority", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("service", WORDS, nullable=False, server_default=""),
        sa.Column("endpoints", sa.Integer(), nullable=False),
        sa.Column("version", WORDS, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("replica", "class", "cluster", "priority"),
    )


def downgrade() -> None:
    op.drop_table("class_clusters")
    op.drop_column("proxies", "class")
