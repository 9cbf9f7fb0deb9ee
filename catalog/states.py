"""What providers, operators, proxies and certificates report: rows that are simply replaced."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, text, update

from meshfed.catalog.attachments import attached
from meshfed.catalog.database import seconds, stamp
from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.orders import Orders
from meshfed.catalog.plain import Gathered, Listed, Plain, Row
from meshfed.catalog.reports import CertificateState, ProxyState, Reaches, Receipt
from meshfed.catalog.schema import (
    acceptances,
    authority,
    certificates,
    orders,
    scopes,
)
from meshfed.catalog.standing import all_stood, condition, stood
from meshfed.catalog.writing import Writing

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
    classes: Iterable[Reaches],
) -> frozenset[str]:
    """What one replica knows of its proxies; the ids of those of which all of that stands now.

    A proxy that went to another replica is that one's, with all that is recorded of it. Of one
    that came back meanwhile stands what is told whole: the other took all rows away with it.
    """
    there, left, synced = list(states), list(gone), _folded(receipts)
    connection = writing.connection
    REPLICA.on(connection, [(replica, evaluated, writing.now)])
    held = _own(connection, replica)
    PROXY.on(connection, [_proxy(replica, one) for one in there])
    for forget in FORGET:
        forget.on(connection, [(one, replica) for one in left])
    own = _own(connection, replica)
    whole = own & {one.proxy for one in there if one.whole}
    BEFORE.on(connection, [(one,) for one in whole])
    _clusters(connection, replica, classes)
    SYNC.on(connection, [row for row in synced if row[0] in own])
    return own & held | whole


def _own(connection: Connection, replica: str) -> frozenset[str]:
    return frozenset(proxy for (proxy,) in OWN.rows(connection, replica=replica))


def _proxy(replica: str, one: ProxyState) -> Row:
    return (
        one.proxy,
        replica,
        str(one.identity),
        one.workload,
        stamp(one.connected_since),
        one.state,
        one.reason,
        one.envoy_version,
        one.behind,
        one.kind,
    )


def _clusters(connection: Connection, replica: str, classes: Iterable[Reaches]) -> None:
    """Only what differs: mostly one row of a hundred."""
    unknown: list[Row] = []
    gone: list[Row] = []
    new: list[Row] = []
    for one in classes:
        mine = replica, one.number
        if one.before is None:
            unknown.append(mine)
        before = one.before or frozenset()
        come = one.clusters - before
        replaced = {cluster[:2] for cluster in come}
        went = {cluster[:2] for cluster in before - one.clusters} - replaced
        gone += [(*mine, *key) for key in went]
        new += [(*mine, *cluster) for cluster in come]
    UNKNOWN.on(connection, unknown)
    GONE.on(connection, gone)
    CLUSTERS.on(connection, new)


def _folded(receipts: Iterable[Receipt]) -> list[Row]:
    """Per proxy and type the newest answers; nulls where the batch says nothing new."""
    folded: dict[tuple[str, str], Row] = {}
    for receipt in sorted(receipts, key=lambda r: r.answered_at):
        at = receipt.proxy, receipt.type
        sent, answered = stamp(receipt.sent_at), stamp(receipt.answered_at)
        if receipt.rejected:
            acked = folded.get(at, NOTHING)[4:6]  # version and time
            folded[at] = (*at, receipt.version, sent, *acked, receipt.rejected, answered)
        else:
            folded[at] = (*at, receipt.version, sent, receipt.version, answered, None, None)
    return list(folded.values())


def _upsert(
    table: str,
    key: str,
    columns: str,
    *,
    kept: Collection[str] = (),
    numbers: Collection[str] = (),
    when: str = "true",
) -> Listed:
    """Insert or replace; a null in one of the `kept` columns leaves what stands there."""
    names = columns.split()
    into = [*key.split(), *names]
    values = (
        f"cast(k.value ->> {n} as bigint)" if name in numbers else f"k.value ->> {n}"
        for n, name in enumerate(into)
    )
    sets = ", ".join(
        f"{name} = coalesce(excluded.{name}, {table}.{name})"
        if name in kept
        else f"{name} = excluded.{name}"
        for name in names
    )
    return Listed(
        f"insert into {table} ({', '.join(into)}) select {', '.join(values)}"
        f" from $each(rows) as k where true"  # without it SQLite takes `on` for a join's
        f" on conflict ({', '.join(key.split())}) do update set {sets} where {when}"
    )


OWN = Gathered("proxy", "from proxies where replica = :replica")
BEFORE = Listed(  # what replicas of schema 0012c, who had them, wrote: until the next release
    "delete from proxy_clusters where proxy in (select k.value ->> 0 from $each(rows) as k)"
)
UNKNOWN = Listed(
    "delete from class_clusters where (replica, class) in"
    " (select k.value ->> 0, cast(k.value ->> 1 as bigint) from $each(rows) as k)"
)
GONE = Listed(
    "delete from class_clusters where (replica, class, cluster, priority) in"
    " (select k.value ->> 0, cast(k.value ->> 1 as bigint), k.value ->> 2,"
    " cast(k.value ->> 3 as bigint) from $each(rows) as k)"
)
REPLICA = _upsert("replicas", "replica", "evaluated seen_at", numbers=["evaluated"])
PROXY = _upsert(
    "proxies",
    "proxy",
    "replica identity workload connected_since state reason envoy_version behind class",
    numbers=["behind", "class"],
    # A replica that was stopped does not take back a proxy that went to another meanwhile.
    when="proxies.replica = excluded.replica"
    " or proxies.connected_since <= excluded.connected_since",
)
SYNC = _upsert(
    "proxy_sync",
    "proxy type",
    "sent_version sent_at acked_version acked_at nack nack_at",
    kept=["acked_version", "acked_at"],
)
NOTHING: Row = (None,) * 8
# The rows of `proxies` last: they say whose the others are.
FORGET = tuple(
    Listed(
        f"delete from {table} where proxy in (select p.proxy from $each(rows) as k"
        " join proxies p on p.proxy = k.value ->> 0 and p.replica = k.value ->> 1)"
    )
    for table in ("proxy_sync", "proxies")
)
CLUSTERS = _upsert(
    "class_clusters",
    "replica class cluster priority",
    "service endpoints version",
    numbers=["class", "priority", "endpoints"],
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
        (
            str(one.identity),
            str(one.service),
            one.issuer,
            one.state,
            one.serial,
            stamp(one.not_before),
            stamp(one.not_after),
        )
        for one in states
    ]
    CERTIFICATE.on(writing.connection, said)


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
