"""The catalog's first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")
CURRENT = {
    "sqlite_where": sa.text("valid_to_revision is null"),
    "postgresql_where": sa.text("valid_to_revision is null"),
}


def words(name: str) -> sa.Column[Any]:
    return sa.Column(name, WORDS, nullable=False, server_default="")


def flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.text("false"))


def upgrade() -> None:

    op.create_table(
        "acceptances",
        sa.Column("provider", WORDS, nullable=False),
        sa.Column("scope", WORDS, nullable=False),
        words("who"),
        words("at"),
        sa.PrimaryKeyConstraint("provider", "scope"),
    )
    op.create_table(
        "authority",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        words("certificate"),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        words("made_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "certificates",
        sa.Column("identity", WORDS, nullable=False),
        sa.Column("service", WORDS, nullable=False),
        words("issuer"),
        words("state"),
        words("serial"),
        words("not_before"),
        words("not_after"),
        sa.PrimaryKeyConstraint("identity", "service"),
    )
    op.create_table(
        "changes",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("at", WORDS, nullable=False),
        words("what"),
        words("object"),
        words("change"),
        words("provider"),
        words("who"),
        words("cause"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("changes_at", "changes", ["at"])
    op.create_index("changes_revision", "changes", ["revision"])
    op.create_table(
        "endpoints",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        words("provider"),
        words("scope"),
        words("service"),
        words("address"),
        words("workload"),
        words("platform"),
        words("identity"),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        words("interception"),
        words("region"),
        words("zone"),
        words("health"),
        words("health_reason"),
        words("cluster"),
        words("network"),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        words("doubt"),
        words("conflict"),
        flag("stale"),
        flag("outranked"),
        words("change"),
        words("cause"),
        words("ended"),
        sa.Column("valid_from_revision", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", WORDS, nullable=False),
        sa.Column("valid_to_revision", sa.BigInteger(), nullable=True),
        sa.Column("valid_to", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("endpoints_began", "endpoints", ["valid_from_revision"])
    op.create_index(
        "endpoints_current",
        "endpoints",
        ["provider", "scope", "service", "port", "address", "target"],
        unique=True,
        **CURRENT,
    )
    op.create_index("endpoints_ended", "endpoints", ["valid_to_revision"])
    op.create_index("endpoints_identity", "endpoints", ["identity", "service", "port"], **CURRENT)
    op.create_index(
        "endpoints_key", "endpoints", ["service", "port", "address", "target"], **CURRENT
    )
    op.create_index("endpoints_workload", "endpoints", ["workload"], **CURRENT)
    op.create_table(
        "grants",
        sa.Column("policy", WORDS, nullable=False),
        sa.Column("source", WORDS, nullable=False),
        sa.Column("destination", WORDS, nullable=False),
        sa.Column("layer", WORDS, nullable=False),
        sa.Column("port", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("methods", WORDS, nullable=False),
        sa.Column("path", WORDS, nullable=False),
        sa.Column("headers", WORDS, nullable=False),
        sa.PrimaryKeyConstraint(
            "policy", "source", "destination", "layer", "port", "methods", "path", "headers"
        ),
    )
    op.create_table(
        "orders",
        sa.Column("provider", WORDS, nullable=False),
        flag("paused"),
        words("who"),
        words("at"),
        sa.PrimaryKeyConstraint("provider"),
    )
    op.create_table(
        "policies",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        words("source"),
        words("kind"),
        words("namespace"),
        words("name"),
        words("slot"),
        words("file"),
        words("state"),
        words("field"),
        words("reason"),
        words("document"),
        words("change"),
        words("cause"),
        words("ended"),
        sa.Column("valid_from_revision", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", WORDS, nullable=False),
        sa.Column("valid_to_revision", sa.BigInteger(), nullable=True),
        sa.Column("valid_to", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("policies_began", "policies", ["valid_from_revision"])
    op.create_index(
        "policies_current",
        "policies",
        ["source", "kind", "namespace", "name", "slot"],
        unique=True,
        **CURRENT,
    )
    op.create_index("policies_ended", "policies", ["valid_to_revision"])
    op.create_table(
        "ports",
        sa.Column("service", WORDS, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        words("name"),
        words("protocol"),
        sa.PrimaryKeyConstraint("service", "number"),
    )
    op.create_table(
        "proxies",
        sa.Column("proxy", WORDS, nullable=False),
        words("replica"),
        words("identity"),
        words("workload"),
        words("connected_since"),
        words("state"),
        words("reason"),
        words("envoy_version"),
        sa.Column("behind", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("proxy"),
    )
    op.create_table(
        "proxy_clusters",
        sa.Column("proxy", WORDS, nullable=False),
        sa.Column("cluster", WORDS, nullable=False),
        sa.Column("priority", sa.Integer(), autoincrement=False, nullable=False),
        words("service"),
        sa.Column("endpoints", sa.Integer(), nullable=False),
        words("version"),
        sa.PrimaryKeyConstraint("proxy", "cluster", "priority"),
    )
    op.create_table(
        "proxy_sync",
        sa.Column("proxy", WORDS, nullable=False),
        sa.Column("type", WORDS, nullable=False),
        words("sent_version"),
        sa.Column("acked_version", WORDS, nullable=True),
        words("sent_at"),
        sa.Column("acked_at", WORDS, nullable=True),
        sa.Column("nack", WORDS, nullable=True),
        sa.Column("nack_at", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("proxy", "type"),
    )
    op.create_table(
        "replicas",
        sa.Column("replica", WORDS, nullable=False),
        sa.Column("evaluated", sa.BigInteger(), nullable=False),
        words("seen_at"),
        sa.PrimaryKeyConstraint("replica"),
    )
    op.create_table(
        "scopes",
        sa.Column("provider", WORDS, nullable=False),
        sa.Column("scope", WORDS, nullable=False),
        words("type"),
        words("state"),
        words("doubt"),
        words("fault"),
        words("left_out"),
        words("rejected"),
        sa.Column("last_good", WORDS, nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("provider", "scope"),
    )
    op.create_table(
        "services",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        words("service"),
        words("ports"),
        words("vip"),
        flag("plaintext"),
        words("change"),
        words("cause"),
        words("ended"),
        sa.Column("valid_from_revision", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", WORDS, nullable=False),
        sa.Column("valid_to_revision", sa.BigInteger(), nullable=True),
        sa.Column("valid_to", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("services_began", "services", ["valid_from_revision"])
    op.create_index("services_current", "services", ["service"], unique=True, **CURRENT)
    op.create_index("services_ended", "services", ["valid_to_revision"])
    op.create_table(
        "shares",
        sa.Column("policy", WORDS, nullable=False),
        sa.Column("service", WORDS, nullable=False),
        sa.Column("backend", WORDS, nullable=False),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        words("matches"),
        sa.PrimaryKeyConstraint("policy", "service", "backend"),
    )
    op.create_table(
        "state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("at", WORDS, nullable=False),
        sa.Column("shape_revision", sa.BigInteger(), nullable=False),
        words("trust_domain"),
        flag("permissive"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "statements",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        words("provider"),
        words("scope"),
        words("service"),
        words("ports"),
        words("vip"),
        flag("plaintext"),
        words("change"),
        words("cause"),
        words("ended"),
        sa.Column("valid_from_revision", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", WORDS, nullable=False),
        sa.Column("valid_to_revision", sa.BigInteger(), nullable=True),
        sa.Column("valid_to", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("statements_began", "statements", ["valid_from_revision"])
    op.create_index(
        "statements_current", "statements", ["provider", "scope", "service"], unique=True, **CURRENT
    )
    op.create_index("statements_ended", "statements", ["valid_to_revision"])
    op.create_table(
        "workloads",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        words("workload"),
        words("name"),
        words("provider"),
        words("scope"),
        words("platform"),
        words("identity"),
        words("addresses"),
        words("interception"),
        words("bind"),
        words("application"),
        words("network"),
        words("region"),
        words("zone"),
        words("labels"),
        words("resource_id"),
        words("change"),
        words("cause"),
        words("ended"),
        sa.Column("valid_from_revision", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", WORDS, nullable=False),
        sa.Column("valid_to_revision", sa.BigInteger(), nullable=True),
        sa.Column("valid_to", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("workloads_began", "workloads", ["valid_from_revision"])
    op.create_index("workloads_current", "workloads", ["workload"], unique=True, **CURRENT)
    op.create_index("workloads_ended", "workloads", ["valid_to_revision"])
    op.create_index("workloads_scope", "workloads", ["provider", "scope"], **CURRENT)
    op.create_index("workloads_workload", "workloads", ["workload"])

    op.execute("insert into state (id, revision, at, shape_revision) values (1, 0, '', 0)")


def downgrade() -> None:
    op.drop_table("workloads")
    op.drop_table("statements")
    op.drop_table("state")
    op.drop_table("shares")
    op.drop_table("services")
    op.drop_table("scopes")
    op.drop_table("replicas")
    op.drop_table("proxy_sync")
    op.drop_table("proxy_clusters")
    op.drop_table("proxies")
    op.drop_table("ports")
    op.drop_table("policies")
    op.drop_table("orders")
    op.drop_table("grants")
    op.drop_table("endpoints")
    op.drop_table("changes")
    op.drop_table("certificates")
    op.drop_table("authority")
    op.drop_table("acceptances")
