"""A workload may be told by several scopes: a pod that answers for several services."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    key(["provider", "scope", "workload"])


def downgrade() -> None:
    op.execute(
        "delete from workloads where valid_to_revision is null and id not in"
        " (select max(id) from workloads where valid_to_revision is null group by workload)"
    )
    key(["workload"])


def key(columns: list[str]) -> None:
    current = sa.text("valid_to_revision is null")
    op.drop_index("workloads_current", "workloads")
    op.create_index(
        "workloads_current",
        "workloads",
        columns,
        unique=True,
        sqlite_where=current,
        postgresql_where=current,
    )
