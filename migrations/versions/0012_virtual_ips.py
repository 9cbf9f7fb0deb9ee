"""Addresses of the mesh's own for services to which no platform gives one."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ADDED = {"state": "virtual_ranges", "services": "virtual_ips"}


def upgrade() -> None:
    for table, name in ADDED.items():
        op.add_column(table, sa.Column(name, WORDS, nullable=False, server_default=""))
    for table in ("statements", "services"):
        no = sa.text("false")
        op.add_column(table, sa.Column("headless", sa.Boolean(), nullable=False, server_default=no))
    op.create_table(
        "virtual_ips",
        sa.Column("service", WORDS, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("left_at", WORDS, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("service"),
    )
    op.create_index("virtual_ips_number", "virtual_ips", ["number"], unique=True)


def downgrade() -> None:
    op.drop_table("virtual_ips")
    for table in ("statements", "services"):
        op.drop_column(table, "headless")
    for table, name in ADDED.items():
        op.drop_column(table, name)
