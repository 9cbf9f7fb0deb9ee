"""Indexes that are really used: no row in force stands in the index of what has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

VERSIONED = ("endpoints", "policies", "scope_states", "services", "statements", "workloads")
ENDPOINT = ["service", "port", "address", "target"]


def where(condition: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


CURRENT = where("valid_to_revision is null")
ENDED = where("valid_to_revision is not null")
CONTESTED = where("valid_to_revision is null and conflict <> ''")


def upgrade() -> None:
    for table in VERSIONED:
        op.drop_index(f"{table}_ended", table)
        op.create_index(f"{table}_ended", table, ["valid_to_revision"], **ENDED)
    op.create_index("statements_service", "statements", ["service"], **CURRENT)
    op.drop_index("endpoints_key", "endpoints")
    op.drop_index("endpoints_current", "endpoints")
    key = [*ENDPOINT, "provider", "scope"]
    op.create_index("endpoints_current", "endpoints", key, unique=True, **CURRENT)
    op.create_index("endpoints_scope", "endpoints", ["provider", "scope"], **CURRENT)
    op.create_index("endpoints_contested", "endpoints", ["id"], **CONTESTED)
    op.create_index("workloads_name", "workloads", ["name"], **CURRENT)


def downgrade() -> None:
    op.drop_index("workloads_name", "workloads")
    op.drop_index("endpoints_contested", "endpoints")
    op.drop_index("endpoints_scope", "endpoints")
    op.drop_index("endpoints_current", "endpoints")
    key = ["provider", "scope", *ENDPOINT]
    op.create_index("endpoints_current", "endpoints", key, unique=True, **CURRENT)
    op.create_index("endpoints_key", "endpoints", ENDPOINT, **CURRENT)
    op.drop_index("statements_service", "statements")
    for table in VERSIONED:
        op.drop_index(f"{table}_ended", table)
        op.create_index(f"{table}_ended", table, ["valid_to_revision"])
