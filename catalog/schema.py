"""The tables of the catalog.

People read the `mesh_…` views (views.py); these tables are meshfed's own and may change.
Times are ISO-8601 text in UTC: they sort, and read the same in both databases.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

# Sorting by bytes, so that "the first by name" is the same one in both databases.
WORDS = Text().with_variant(Text(collation="C"), "postgresql")
SERIAL = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys by itself
CURRENT = text("valid_to_revision is null")
ENDED = text("valid_to_revision is not null")
CONTESTED = text("valid_to_revision is null and conflict <> ''")

NEW = "new"  # its agent was never heard
MISSED = "missed"  # it was not heard for a lease
GONE = "gone"  # and its endpoints were taken away

metadata = MetaData()


def _words(*names: str, **options: Any) -> Iterator[Column[str]]:
    return (Column(name, WORDS, nullable=False, server_default="", **options) for name in names)


def _key(*names: str) -> Iterator[Column[str]]:
    return (Column(name, WORDS, primary_key=True) for name in names)


def _flags(*names: str) -> Iterator[Column[bool]]:
    return (Column(name, Boolean, nullable=False, server_default=text("false")) for name in names)


def _versioned(name: str, key: Iterable[str], *columns: Column[Any]) -> Table:
    """A table whose rows are never edited: a change ends one version and begins the next."""
    return Table(
        name,
        metadata,
        Column("id", SERIAL, primary_key=True, autoincrement=True),
        *columns,
        Column("change", WORDS, nullable=False, server_default=""),  # how this version began
        Column("cause", WORDS, nullable=False, server_default=""),
        Column("ended", WORDS, nullable=False, server_default=""),  # `left`, when none followed
        Column("valid_from_revision", BigInteger, nullable=False),
        Column("valid_from", WORDS, nullable=False),
        Column("valid_to_revision", BigInteger),
        Column("valid_to", WORDS),
        Index(
            f"{name}_current",
            *key,
            unique=True,
            sqlite_where=CURRENT,
            postgresql_where=CURRENT,
        ),
        Index(f"{name}_began", "valid_from_revision"),
        # Without the rows in force: asked for those, SQLite would take this index before their own.
        Index(f"{name}_ended", "valid_to_revision", sqlite_where=ENDED, postgresql_where=ENDED),
    )


state = Table(
    "state",
    metadata,
    # One row: the lock under which revisions are made.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("at", WORDS, nullable=False),
    Column("shape_revision", BigInteger, nullable=False),  # the last one that moved the shape
    # History is whole from this revision on, and from this moment: what ended before is pruned.
    Column("horizon", BigInteger, nullable=False, server_default=text("0")),
    *_words("horizon_at"),
    *_words("trust_domain"),
    *_flags("permissive"),
    *_words("federation"),  # its rules, as JSON (preferences.py)
    *_words("virtual_ranges"),
)

changes = Table(
    "changes",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("revision", BigInteger, nullable=False),
    Column("at", WORDS, nullable=False),
    *_words("what", "object", "change", "provider", "who", "cause"),
    Index("changes_revision", "revision"),
    Index("changes_at", "at"),
)

scopes = Table(
    "scopes",
    metadata,
    *_key("provider", "scope"),
    *_words("type", "state", "doubt", "fault", "left_out"),
    *_words("rejected"),  # left_out again, as JSON
    Column("last_good", WORDS),
    Column("revision", BigInteger),  # the last that changed it; null: never believed
)

scope_states = _versioned(  # how each scope stood; the newest version is what `scopes` says
    "scope_states",
    ("provider", "scope"),
    *_words("provider", "scope", "type", "state", "doubt", "fault", "left_out"),
    *_flags("paused"),
    Column("last_good", WORDS),
)

statements = _versioned(  # what each provider says of a service
    "statements",
    ("provider", "scope", "service"),
    *_words("provider", "scope", "service", "ports", "vip"),
    *_flags("plaintext", "headless"),
)
Index("statements_service", statements.c.service, sqlite_where=CURRENT, postgresql_where=CURRENT)

services = _versioned(  # the union of what they all say
    "services",
    ("service",),
    *_words("service", "ports", "vip", "virtual_ips"),
    *_flags("plaintext", "headless"),
)

virtual_ips = Table(  # the number of each service in the mesh's ranges (virtual.py)
    "virtual_ips",
    metadata,
    *_key("service"),
    Column("number", BigInteger, nullable=False),
    *_words("left_at"),  # '': the service is there
    Index("virtual_ips_number", "number", unique=True),
)

ports = Table(  # the ports of the current services, one row each, for joins
    "ports",
    metadata,
    Column("service", WORDS, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    *_words("name", "protocol"),
)

workloads = _versioned(
    "workloads",
    ("provider", "scope", "workload"),
    *_words("workload", "name", "provider", "scope", "platform", "identity", "addresses"),
    *_words("interception", "bind", "application", "network", "region", "zone"),
    *_words("labels", "resource_id", "cluster"),
)
Index("workloads_workload", workloads.c.workload)
Index("workloads_name", workloads.c.name, sqlite_where=CURRENT, postgresql_where=CURRENT)

endpoints = _versioned(
    "endpoints",
    ("service", "port", "address", "target", "provider", "scope"),
    *_words("provider", "scope", "service", "address", "workload", "platform", "identity"),
    Column("port", Integer, nullable=False),
    Column("target", Integer, nullable=False),
    *_words("interception", "region", "zone", "health", "health_reason", "cluster", "network"),
    Column("weight", BigInteger, nullable=False),
    *_words("doubt", "conflict"),
    *_words("said", "said_reason"),  # its health by its provider, where people said otherwise
    *_flags("stale", "outranked"),  # outranked: the same endpoint, of another provider, stands
)
Index("endpoints_scope", endpoints.c.provider, endpoints.c.scope, sqlite_where=CURRENT,
      postgresql_where=CURRENT)  # fmt: skip
Index("endpoints_identity", endpoints.c.identity, endpoints.c.service, endpoints.c.port,
      sqlite_where=CURRENT, postgresql_where=CURRENT)  # fmt: skip
Index("endpoints_workload", endpoints.c.workload, sqlite_where=CURRENT, postgresql_where=CURRENT)
Index("endpoints_contested", endpoints.c.id, sqlite_where=CONTESTED, postgresql_where=CONTESTED)

policies = _versioned(
    "policies",
    ("source", "kind", "namespace", "name", "slot"),
    *_words("source", "kind", "namespace", "name"),
    *_words("slot"),  # "" for the object itself; else tells several rejections of it apart
    *_words("file", "state", "field", "reason", "document"),
)

grants = Table(  # TrafficTargets in force, one row per source and match, for `mesh_access`
    "grants",
    metadata,
    *_key("policy", "source", "destination", "layer"),
    Column("port", Integer, primary_key=True, autoincrement=False),  # 0: any
    *_key("methods", "path", "headers"),
)

shares = Table(  # TrafficSplits in force, one row per backend
    "shares",
    metadata,
    *_key("policy", "service", "backend"),
    Column("weight", BigInteger, nullable=False),
    *_words("matches"),
)

preferences = Table(  # the lists `prefer` in force, a row a term: the priority in mesh_endpoints
    "preferences",
    metadata,
    *_key("service"),  # '': every service that has no list of its own
    Column("position", Integer, primary_key=True, autoincrement=False),  # -1: there is a list
    *_words("term"),
)

orders = Table(
    "orders",
    metadata,
    *_key("provider"),
    *_flags("paused"),
    *_words("who", "at"),
)

acceptances = Table(
    "acceptances",
    metadata,
    *_key("provider", "scope"),
    *_words("who", "at"),
)

attachments = Table(  # machines of a platform that people attached to services
    "attachments",
    metadata,
    *_key("resource", "service"),
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("target", Integer, nullable=False),
    *_words("identity", "interception"),
    Column("weight", BigInteger, nullable=False),
)

tokens = Table(  # with which machines join (tokens.py)
    "tokens",
    metadata,
    *_key("token"),
    *_words("hash", "identity", "services", "made_at", "made_by", "ends_at", "revoked_at"),
    *_words("probes"),  # what its bearers' agents look at
    *(Column(name, Integer, nullable=False) for name in ("uses", "used")),
)

joined = Table(  # the machines that joined, and the certificates that each of them may renew by
    "joined",
    metadata,
    *_key("workload"),
    *_words("token", "joined_at", "serial", "former"),
    *_words("machine"),  # which its platform attests that it is
    *_words("not_after"),  # when the last of its certificates ends
    *_words("word"),  # what its agent says; '': all is well
    *_words("lease_until"),  # '': it joined before there were leases
    *_words("silence"),  # '': its lease is good; else NEW, MISSED or GONE
)

machines = Table(  # all that platforms list, in the mesh or not, where policies of joining ask
    "machines",
    metadata,
    *_key("provider", "machine"),  # which its platform attests that it is
    *_words("resource", "name", "scale_set", "subnet", "address"),
    *_words("tags"),  # as JSON
    Index("machines_machine", "machine"),
)

overrides = Table(  # what people say of a workload, over whoever else speaks of its health
    "overrides",
    metadata,
    *_key("workload"),
    *_words("state", "reason", "who", "at"),
)

replicas = Table(
    "replicas",
    metadata,
    *_key("replica"),
    Column("evaluated", BigInteger, nullable=False),
    *_words("seen_at"),
)

leadership = Table(  # one row, once anyone has led
    "leadership",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    *_words("replica"),
    # Seconds since the epoch by the database's clock, which alone they are compared with.
    Column("until", Double, nullable=False),
)

proxies = Table(
    "proxies",
    metadata,
    *_key("proxy"),
    *_words("replica", "identity", "workload", "connected_since", "state", "reason"),
    *_words("envoy_version"),
    Column("behind", BigInteger),  # the oldest revision not yet acknowledged
    Column("class", BigInteger),  # as its replica counts; null: a replica of schema 0012c does not
)

proxy_sync = Table(
    "proxy_sync",
    metadata,
    *_key("proxy", "type"),
    *_words("sent_version"),
    Column("acked_version", WORDS),
    *_words("sent_at"),
    Column("acked_at", WORDS),
    Column("nack", WORDS),
    Column("nack_at", WORDS),
)

pushes = Table(  # with history.record_pushes: what each proxy was sent, and until when
    "pushes",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    *_words("proxy", "type", "name", "version"),
    Column("valid_from_revision", BigInteger, nullable=False),
    Column("valid_from", WORDS, nullable=False),
    Column("valid_to_revision", BigInteger),
    Column("valid_to", WORDS),
    Index("pushes_proxy", "proxy", "type", "name"),
    Index("pushes_ended", "valid_to_revision"),
)

class_clusters = Table(  # what the proxies of a class can reach: of a thousand the same few rows
    "class_clusters",
    metadata,
    *_key("replica"),
    Column("class", BigInteger, primary_key=True, autoincrement=False),
    *_key("cluster"),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    *_words("service"),
    Column("endpoints", Integer, nullable=False),
    *_words("version"),
)

proxy_clusters = Table(  # replicas of schema 0012c write it; it goes with the next release's
    "proxy_clusters",
    metadata,
    *_key("proxy", "cluster"),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    *_words("service"),
    Column("endpoints", Integer, nullable=False),
    *_words("version"),
)

traffic = Table(  # what each replica heard from its sidecars (traffic.py)
    "traffic",
    metadata,
    *_key("minute", "replica", "source_identity", "service", "version", "platform", "zone"),
    *(Column(name, BigInteger, nullable=False) for name in ("requests", "failed", "in_flight")),
    sqlite_with_rowid=False,  # the key is most of a row, and would be there twice
)

certificates = Table(
    "certificates",
    metadata,
    *_key("identity", "service"),
    *_words("issuer", "state", "serial", "not_before", "not_after"),
)

authority = Table(
    "authority",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    *_words("certificate"),
    Column("sealed_key", LargeBinary, nullable=False),  # encrypted before it gets here
    *_words("made_at"),
)
