"""What providers, operators, proxies and certificates report: rows that are simply replaced."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, text, update

from meshfed.catalog.attachments import attached
from meshfed.catalog.database import seconds, stamp
from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.orders import Orders
from meshfed.catalog.plain import Plain
from meshfed.catalog.reports import CertificateState, ProxyState, Reach, Receipt
from meshfed.catalog.schema import (
    acceptances,
    authority,
    certificates,
    orders,
    proxy_clusters,
    scopes,
)
from meshfed.catalog.standing import all_stood, condition, stood
from meshfed.catalog.writing import Writing

AT_ONCE = 400  # proxies in one question
SETTLED = Plain(
    "select scope, fault from scopes where provider = :provider and scope $among(scopes)"
    " and state = 'good' and fault <> ''"
)
UNOBSERVED = ("specification", "registered")  # types of what no provider looks at


class UnknownScope(ValueError):
    """No provider has reported that; the message names what there is."""


def seen(writing: Writing, provider: str, kind: str, scope: str, fault: str) -> None:
    """A provider was heard of: it answered, or it could not."""
    mine = and_(scopes.c.provider == provider, scopes.c.scope == scope)
    before = writing.connection.execute(select(scopes).where(mine)).mappings().one_or_none()
    if before is None:
        new = {"provider": provider, "scope": scope, "state": "good"}
        writing.connection.execute(insert(scopes).values(new))
    doubt = before["doubt"] if before else ""
    accepted = before is not None and before["state"] == "good" and before["fault"] == fault
    state = condition(fault, doubt, accepted=accepted)
    said: dict[str, Any] = {"type": kind, "fault": fault, "state": state}
    if state == "good":
        said["last_good"] = writing.now
    writing.connection.execute(update(scopes).where(mine).values(said))
    if fault != (before["fault"] if before else ""):
        writing.tell("provider", scope, f"failing: {fault}" if fault else "answers again", provider)
    stood(writing, provider, [scope])


# Operators


def ordered(connection: Connection, provider: str, of: Sequence[str] = ()) -> Orders:
    """What operators asked; which faults are settled, of these scopes alone."""
    paused = select(orders.c.paused).where(orders.c.provider == provider)
    accepted = select(acceptances.c.scope).where(acceptances.c.provider == provider)
    return Orders(
        paused=bool(connection.execute(paused).scalar()),
        accepted=frozenset(connection.execute(accepted).scalars()),
        settled=frozenset(SETTLED.rows(connection, provider=provider, scopes=list(of))),
        attached=attached(connection),
    )


def scopes_of(connection: Connection, provider: str) -> frozenset[str]:
    """What a provider was ever told of."""
    told = select(scopes.c.scope).where(scopes.c.provider == provider)
    return frozenset(connection.execute(told).scalars())


def pause(writing: Writing, provider: str, who: str, *, paused: bool) -> None:
    _known(writing.connection, "provider", provider)
    if ordered(writing.connection, provider).paused == paused:
        return
    writing.connection.execute(delete(orders).where(orders.c.provider == provider))
    told = {"provider": provider, "paused": paused, "who": who, "at": writing.now}
    writing.connection.execute(insert(orders).values(told))
    writing.tell("provider", provider, "paused" if paused else "resumed", provider)
    writing.allocate()  # followers wake by revision
    all_stood(writing, provider)


def accept(writing: Writing, scope: str, who: str) -> None:
    provider = _known(writing.connection, "scope", scope)
    if scope in ordered(writing.connection, provider).accepted:
        return
    told = {"provider": provider, "scope": scope, "who": who, "at": writing.now}
    writing.connection.execute(insert(acceptances).values(told))
    writing.tell("provider", scope, "accepted", provider)
    writing.allocate()


def _known(connection: Connection, what: str, name: str) -> str:
    """The provider of a scope or provider that has been heard of. Raises UnknownScope."""
    there = select(scopes.c.provider, scopes.c[what]).where(scopes.c.type.not_in(UNOBSERVED))
    found: dict[str, str] = {named: provider for provider, named in connection.execute(there)}
    if name not in found:
        raise UnknownScope(
            f"{name!r} is no {what} of this catalog; there is "
            + (", ".join(sorted(found)) or "none yet: has `serve` run?")
        )
    return found[name]


# Proxies


def record(
    writing: Writing,
    replica: str,
    evaluated: int,
    states: Iterable[ProxyState],
    gone: Iterable[str],
    receipts: Iterable[Receipt],
) -> None:
    """What one replica knows of its proxies. Proxies that went to another replica stay its own."""
    there, left, synced = list(states), list(gone), _folded(receipts)
    _each(writing, REPLICA, [{"replica": replica, "evaluated": evaluated, "seen_at": writing.now}])
    _each(writing, PROXY, [_proxy(replica, one) for one in there if not one.stands])
    _clusters(writing.connection, [one for one in there if one.clusters is not None])
    _each(writing, SYNC, synced)
    for table in ("proxy_sync", "proxy_clusters", "proxies"):
        mine = "select proxy from proxies where proxy = :proxy and replica = :replica"
        forget = text(f"delete from {table} where proxy in ({mine})")
        _each(writing, forget, [{"proxy": one, "replica": replica} for one in left])


def _proxy(replica: str, one: ProxyState) -> dict[str, Any]:
    return {
        "proxy": one.proxy,
        "replica": replica,
        "identity": str(one.identity),
        "workload": one.workload,
        "connected_since": stamp(one.connected_since),
        "state": one.state,
        "reason": one.reason,
        "envoy_version": one.envoy_version,
        "behind": one.behind,
    }


def _clusters(connection: Connection, states: list[ProxyState]) -> None:
    """Only what differs: mostly one row of a hundred, for each of a thousand proxies."""
    unsure = [one for one in states if one.before is None]
    told = {(one.proxy, *cluster) for one in unsure for cluster in one.clusters or ()}
    stood = set(_stood(connection, [one.proxy for one in unsure])) if unsure else set()
    gone, new, moves = [*(stood - told)], [*(told - stood)], Moves()
    for one in states:
        if one.before is not None:
            less, more = moves.of(one.before, one.clusters or frozenset())
            gone += [(one.proxy, *cluster) for cluster in less]
            new += [(one.proxy, *cluster) for cluster in more]
    if gone:
        keys = [{"one": row[0], "called": row[1], "at": row[3]} for row in gone]
        connection.execute(GONE, keys)
    if new:
        names = [column.name for column in CLUSTER]
        rows = [dict(zip(names, row, strict=True)) for row in new]
        connection.execute(insert(proxy_clusters), rows)


class Moves:
    """What goes from what is recorded, and what comes; of the same two objects worked out once."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], tuple[Reach, Reach]] = {}

    def of(self, before: Reach, after: Reach) -> tuple[Reach, Reach]:
        at = id(before), id(after)
        if at not in self._found:
            self._found[at] = before - after, after - before
        return self._found[at]


def _stood(connection: Connection, proxies: list[str]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(proxies), AT_ONCE):
        some = proxy_clusters.c.proxy.in_(proxies[start : start + AT_ONCE])
        yield from (tuple(row) for row in connection.execute(select(*CLUSTER).where(some)))


def _folded(receipts: Iterable[Receipt]) -> list[dict[str, Any]]:
    """Per proxy and type the newest answers; nulls where the batch says nothing new."""
    folded: dict[tuple[str, str], dict[str, Any]] = {}
    for receipt in sorted(receipts, key=lambda r: r.answered_at):
        acked = {"acked_version": None, "acked_at": None}
        row = folded.setdefault((receipt.proxy, receipt.type), acked)
        answered = stamp(receipt.answered_at)
        row |= {
            "proxy": receipt.proxy,
            "type": receipt.type,
            "sent_version": receipt.version,
            "sent_at": stamp(receipt.sent_at),
            "nack": receipt.rejected or None,
            "nack_at": answered if receipt.rejected else None,
        }
        if not receipt.rejected:
            row |= {"acked_version": receipt.version, "acked_at": answered}
    return list(folded.values())


def _each(writing: Writing, statement: Any, values: list[dict[str, Any]]) -> None:
    if values:
        writing.connection.execute(statement, values)


def _upsert(table: str, key: str, columns: str, kept: str = "", when: str = "1 = 1") -> Any:
    """Insert or replace; a null in one of the `kept` columns leaves what stands there."""
    names = columns.split()
    into = ", ".join([*key.split(), *names])
    values = ", ".join(f":{name}" for name in (*key.split(), *names))
    sets = ", ".join(
        f"{name} = coalesce(excluded.{name}, {table}.{name})"
        if name in kept.split()
        else f"{name} = excluded.{name}"
        for name in names
    )
    at = ", ".join(key.split())
    return text(
        f"insert into {table} ({into}) values ({values})"
        f" on conflict ({at}) do update set {sets} where {when}"
    )


CLUSTER = tuple(
    proxy_clusters.c[name]
    for name in ("proxy", "cluster", "service", "priority", "endpoints", "version")
)
GONE = delete(proxy_clusters).where(
    proxy_clusters.c.proxy == bindparam("one"),
    proxy_clusters.c.cluster == bindparam("called"),
    proxy_clusters.c.priority == bindparam("at"),
)
REPLICA = _upsert("replicas", "replica", "evaluated seen_at")
PROXY = _upsert(
    "proxies",
    "proxy",
    "replica identity workload connected_since state reason envoy_version behind",
    # A replica that was stopped does not take back a proxy that went to another meanwhile.
    when="proxies.replica = excluded.replica"
    " or proxies.connected_since <= excluded.connected_since",
)
SYNC = _upsert(
    "proxy_sync",
    "proxy type",
    "sent_version acked_version sent_at acked_at nack nack_at",
    kept="acked_version acked_at",
)
CERTIFICATE = _upsert(
    "certificates", "identity service", "issuer state serial not_before not_after"
)
AUTHORITY = text(
    "insert into authority (id, certificate, sealed_key, made_at)"
    " values (1, :certificate, :sealed_key, :now) on conflict (id) do nothing"
)


# Certificates


def certify(writing: Writing, states: Iterable[CertificateState]) -> None:
    said = [
        {
            "identity": str(one.identity),
            "service": str(one.service),
            "issuer": one.issuer,
            "state": one.state,
            "serial": one.serial,
            "not_before": stamp(one.not_before),
            "not_after": stamp(one.not_after),
        }
        for one in states
    ]
    _each(writing, CERTIFICATE, said)


def certified(connection: Connection) -> tuple[CertificateState, ...]:
    """The certificates that are in use, as far as anyone has said."""
    there = select(certificates).where(certificates.c.state != "retired")
    return tuple(
        CertificateState(
            identity=Identity.parse(row["identity"]),
            service=ServiceName.parse(row["service"]),
            issuer=row["issuer"],
            state=row["state"],
            serial=row["serial"],
            not_before=seconds(row["not_before"]),
            not_after=seconds(row["not_after"]),
        )
        for row in connection.execute(there).mappings()
    )


def authority_of(connection: Connection) -> tuple[str, bytes] | None:
    row = connection.execute(select(authority.c.certificate, authority.c.sealed_key)).first()
    return None if row is None else (row.certificate, bytes(row.sealed_key))


def keep_authority(writing: Writing, certificate: str, sealed_key: bytes) -> tuple[str, bytes]:
    """The first that is kept stands; what stands."""
    told = {"certificate": certificate, "sealed_key": sealed_key, "now": writing.now}
    writing.connection.execute(AUTHORITY, told)
    stands = authority_of(writing.connection)
    assert stands is not None
    return stands
