"""One index of workloads less: the one of their keys in force begins alike."""

import sqlalchemy as sa
from alembic import op

revision = "0007c"
down_revision = "0007b"

CURRENT = sa.text("valid_to_revision is null")


def upgrade() -> None:
    op.drop_index("workloads_scope", "workloads")


def downgrade() -> None:
    op.create_index(
        "workloads_scope",
        "workloads",
        ["provider", "scope"],
        sqlite_where=CURRENT,
        postgresql_where=CURRENT,
    )
