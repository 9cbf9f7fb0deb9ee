"""From a Resource Manager to proxies: a provider, its feed, the catalog, and a publisher.

On a loop of skipping.py, in whose time Azure is asked every 30 s.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any
from prometheus_client import CollectorRegistry

from arm.direct import Direct
from meshfed.catalog.model import Identity, Known, Workload
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.demo.arm.resources import SUBSCRIPTION
from meshfed.demo.arm.world import World
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.keys import Seal
from meshfed.federation.explain.asked import why
from meshfed.federation.explain.facts import gathered
from meshfed.federation.explain.step import State
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.sections import Certificates
from meshfed.federation.subscriber import Subscriber
from meshfed.federation.wanted import identities
from meshfed.providers.azure.lists import Answer
from meshfed.providers.azure.pace import Pace
from meshfed.providers.azure.provider import AzureProvider
from meshfed.xds.peer import Peer
from meshfed.xds.resource import Type

DOMAIN = "shop.example"
SOLD = "bookstore.shop|8080|"  # how the names of its load assignments begin
GROUP = f"weu/{SUBSCRIPTION}/rg-1"
REFRESH = 30.0  # seconds
LONG = 600.0  # seconds, for what should take a look or two
CALLERS = [
    Workload(f"buyer-{n}", "rack", "rack/list", identity=Identity("buyer", "shop"), network="shop")
    for n in range(2)
]


@dataclass
class Proxy:
    """One that calls the bookstore, and all that it was ever told."""

    subscriber: Subscriber
    sold: list[dict[str, int]] = field(default_factory=list)  # addresses and their health, in turn
    told: set[str] = field(default_factory=set)  # the names of what changed meanwhile

    def __post_init__(self) -> None:
        self._seen = self._versions()
        self.sold.append(self._sold())
        self._moved = asyncio.Event()
        self.subscriber.listen(self._moved.set)

    @property
    def addresses(self) -> list[set[str]]:
        """Whom it could call, each time that was somebody else."""
        every = [set(each) for each in self.sold]
        return [each for n, each in enumerate(every) if n == 0 or each != every[n - 1]]

    async def listen(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            assert not self.subscriber.ended
            before, self._seen = self._seen, self._versions()
            moved = {each for each, _ in before.items() ^ self._seen.items()}
            self.told |= moved
            if any(each.startswith(SOLD) for each in moved):
                self.sold.append(self._sold())

    def _versions(self) -> dict[str, str]:
        world = self.subscriber.world
        return {name: each.version for kind in Type for name, each in world.of(kind).items()}

    def _sold(self) -> dict[str, int]:
        assignment = ClusterLoadAssignment()
        for name, each in self.subscriber.world.of(Type.ENDPOINTS).items():
            if name.startswith(SOLD):  # else nobody sells
                Any.FromString(each.any).Unpack(assignment)
        return {
            each.endpoint.address.socket_address.address: each.health_status
            for locality in assignment.endpoints
            for each in locality.lb_endpoints
        }


class Timed(Direct):
    """What a provider asks, with a note of when."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.at: list[float] = []

    async def get(self, url: str) -> Answer:
        self.at.append(asyncio.get_running_loop().time())
        return await super().get(url)


class Meshed:
    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.url = f"sqlite:///{folder}/catalog.db"
        self.arm = Timed(world)
        self.metrics = Metrics(CollectorRegistry())
        self.proxies: list[Proxy] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From the start of a control plane, with two proxies, to its end."""
        self.catalog = Catalog(self.url)
        await self.catalog.configure(DOMAIN, permissive=True)
        rack = Known("rack", "rack/list", workloads=frozenset(CALLERS))
        await self.catalog.believe(rack, kind="hosts", cause="")
        feed = self._feed()
        tasks = [asyncio.create_task(feed.run())]
        try:
            async with asyncio.timeout(LONG):
                await feed.observed.wait()
            publisher = await self._publisher()
            await publisher.begin()
            tasks.append(asyncio.create_task(publisher.run()))
            self.proxies = [Proxy(await publisher.open(peer(each))) for each in CALLERS]
            tasks += [asyncio.create_task(each.listen()) for each in self.proxies]
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self.catalog.close()
        assert {type(each) for each in ended} == {asyncio.CancelledError}, ended

    def _feed(self) -> Feed:
        clock = asyncio.get_running_loop().time
        provider = AzureProvider(
            name="weu",
            options={"subscriptions": [SUBSCRIPTION], "network": "shop"},
            base=Path(),
            pace=Pace(REFRESH, clock=clock, chance=lambda: 0.5),
            arm=self.arm,
        )
        return Feed(provider, "azure", self.catalog, Presence(self.metrics), clock)

    async def _publisher(self) -> Publisher:
        seal = Seal(self.folder / "meshfed.key")
        issuer = await LocalAuthority.open(trust_domain=DOMAIN, safe=self.catalog, seal=seal)
        custody = Custody(issuer, DOMAIN, Certificates().workload_lifetime)
        mesh = await self.catalog.read()
        custody.keep(identities(mesh))
        await custody.check()
        account = Account(mesh.revision, self.metrics)
        presence = Presence(self.metrics)
        return Publisher(mesh, self.catalog, custody, account, self.metrics, presence, "here")

    # What anyone can ask

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in query(self.url, sql).rows]

    @property
    def addresses(self) -> set[object]:
        sql = "select address from mesh_endpoints where service = 'bookstore.shop'"
        return {address for (address,) in self.rows(sql)}

    @property
    def revision(self) -> object:
        ((found,),) = self.rows("select max(revision) from mesh_changes")
        return found

    @property
    def standing(self) -> tuple[str, str]:
        """Of the group: its state, and the reason for it."""
        sql = f"select state, doubt, reason from mesh_providers where scope = '{GROUP}'"
        ((state, doubt, reason),) = self.rows(sql)
        return str(state), str(reason or doubt)

    async def failing(self, of: str) -> list[str]:
        """What `why` says is wrong with an address."""
        steps = await asyncio.to_thread(lambda: why(gathered(self.url), self.url, of))
        return [step.what for step in steps if step.state is not State.OK]

    def calls(self, since: float, until: float) -> int:
        return sum(since < each <= until for each in self.arm.at)


def peer(workload: Workload) -> Peer:
    assert workload.identity is not None
    return Peer(
        uris=(workload.identity.uri(DOMAIN),),
        dns=(f"{workload.id}.workload.{DOMAIN}",),
        not_after=None,
        node_id=workload.id,
        envoy_version="1.40.0",
        address="ipv4:127.0.0.1:1",
    )
