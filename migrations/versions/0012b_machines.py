"""Machines that platforms list, for policies of joining."""

import sqlalchemy as sa
from alembic import op

revision = "0012b"
down_revision = "0012"

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KEY = ("provider", "machine")


def upgrade() -> None:
    op.create_table(
        "machines",
        *(sa.Column(name, WORDS, nullable=False) for name in KEY),
        *(
            sa.Column(name, WORDS, nullable=False, server_default="")
            for name in ("resource", "name", "scale_set", "subnet", "address", "tags")
        ),
        sa.PrimaryKeyConstraint(*KEY),
        sa.Index("machines_machine", "machine"),
    )


def downgrade() -> None:
    op.drop_table("machines")
