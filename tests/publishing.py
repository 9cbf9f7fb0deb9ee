"""A publisher over a catalog of one caller and one server, without a socket."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Known,
    ObjectName,
    Port,
    Rule,
    Service,
    ServiceName,
    Specified,
    TcpRoute,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.model import Protocol as Spoken
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.keys import Seal
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.sections import Certificates
from meshfed.federation.subscriber import Subscriber
from meshfed.federation.wanted import identities
from meshfed.xds.peer import Peer

DOMAIN = "shop.example"
LEDGER = ServiceName("ledger", "shop")
BUYER, SELLER = Identity("buyer", "shop"), Identity("ledger", "shop")


def host(name: str, identity: Identity) -> Workload:
    return Workload(name, "rack", "rack/list", identity=identity)


BUYING, SELLING = host("buyer-1", BUYER), host("ledger-1", SELLER)


def answers(workload: Workload, number: int) -> Endpoint:
    address = f"10.0.0.{number}"
    return Endpoint(
        LEDGER, 3306, address, 3306, workload.id, "rack", "rack/list", identity=workload.identity
    )


KNOWN = Known(
    "rack",
    "rack/list",
    services=frozenset({Service(LEDGER, (Port(3306, protocol=Spoken.TCP, local=13306),))}),
    workloads=frozenset({BUYING, SELLING}),
    endpoints=frozenset({answers(SELLING, 1)}),
)
ALLOWED = Specified(
    "files:policy",
    policies=(
        (TcpRoute(ObjectName("shop", "mysql")), "policy.yaml:1"),
        (
            TrafficTarget(
                ObjectName("shop", "buyers"),
                SELLER,
                frozenset({BUYER}),
                (Rule("TCPRoute", "mysql"),),
            ),
            "policy.yaml:9",
        ),
    ),
)


def peer(workload: Workload, **differently: object) -> Peer:
    assert workload.identity is not None
    honest = Peer(
        uris=(workload.identity.uri(DOMAIN),),
        dns=(f"{workload.id}.workload.{DOMAIN}",),
        not_after=None,
        node_id=workload.id,
        envoy_version="1.40.0",
        address="ipv4:127.0.0.1:1",
    )
    return replace(honest, **differently)


class Published:
    """A publisher that runs over a catalog on SQLite, with a real authority."""

    def __init__(self, path: Path) -> None:
        self.file = path / "catalog.db"
        migrate(f"sqlite:///{self.file}")
        self.catalog = Catalog(f"sqlite:///{self.file}")
        self.metrics = Metrics(CollectorRegistry())
        self.account: Account
        self.seal = Seal(path / "meshfed.key")

    async def open(self, replica: str = "here") -> Publisher:
        await self.catalog.configure(DOMAIN, permissive=False)
        await self.catalog.believe(KNOWN, kind="test", cause="")
        await self.catalog.specify(ALLOWED)
        issuer = await LocalAuthority.open(trust_domain=DOMAIN, safe=self.catalog, seal=self.seal)
        custody = Custody(issuer, DOMAIN, Certificates().workload_lifetime)
        mesh = await self.catalog.read()
        custody.keep(identities(mesh))
        await custody.check()
        self.account = Account(mesh.revision, self.metrics)
        presence = Presence(self.metrics)
        return Publisher(mesh, self.catalog, custody, self.account, self.metrics, presence, replica)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.file) as connection:
            return connection.execute(sql).fetchall()


async def opened(publisher: Publisher, there: Peer) -> Subscriber:
    """It tells when it is offered something."""
    subscriber = await publisher.open(there)
    subscriber.moved = asyncio.Event()
    subscriber.listen(subscriber.moved.set)
    return subscriber


async def offered(subscriber: Subscriber) -> None:
    async with asyncio.timeout(5):
        await subscriber.moved.wait()
    subscriber.moved.clear()
