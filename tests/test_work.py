"""What a change costs, counted: pushes, bytes, views, load assignments; `meshfed bench` times it.

A publisher over a catalog on SQLite, and clients that speak to state machines without a network.
"""

import asyncio
import gc
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from msgspec import structs
from prometheus_client import CollectorRegistry

from meshfed.catalog.model import Known, Mesh, Observation, Workload
from meshfed.catalog.reach import Assignment
from meshfed.catalog.reading import in_order
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.bench import given
from meshfed.federation.bench.asked import wanted
from meshfed.federation.bench.given import DOMAIN, Size
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.keys import Seal
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.sections import Certificates
from meshfed.federation.subscriber import Subscriber, admitted
from meshfed.federation.wanted import identities
from meshfed.federation.worlds import sizes
from meshfed.xds import assembled, endpoints
from meshfed.xds.peer import Peer
from meshfed.xds.resource import SHORT, Type, resource
from meshfed.xds.secrets import OWN
from meshfed.xds.stream import Stream, assignment

SIZE = Size(services=24, endpoints=240, proxies=40, identities=8, clusters=12)
ENVELOPE = 200  # bytes of a response beside its resources: type, version, nonce


@dataclass
class Client:
    """Asks for what an Envoy asks for, and acknowledges all that it is told."""

    subscriber: Subscriber
    held: dict[Type, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in Type})
    told: Counter[str] = field(default_factory=Counter)  # resources, by type
    sizes: list[int] = field(default_factory=list)

    def connect(self) -> None:
        self.stream = Stream(delta=True)
        self.stream.offer(self.subscriber.world)
        first = {Type.CLUSTER: {"*"}, Type.LISTENER: {"*"}, Type.SECRET: {OWN}}
        for kind in Type:
            if names := first.get(kind, set()) | self.held[kind].keys():
                self.ask(kind, names, self.held[kind])
        self.subscriber.listen(self.moved)
        self.take()

    def ask(self, kind: Type, names: set[str], held: dict[str, str]) -> None:
        request = DeltaDiscoveryRequest(
            type_url=kind, resource_names_subscribe=sorted(names), initial_resource_versions=held
        )
        self.stream.receive(request, time.monotonic())

    def moved(self) -> None:
        self.stream.offer(self.subscriber.world)
        self.take()

    def take(self) -> None:
        while responses := self.stream.outgoing(time.monotonic()):
            for response in responses:
                self.sizes.append(len(response.body))
                self.answer(DeltaDiscoveryResponse.FromString(response.body))
        if self.stream.settled:
            self.subscriber.settled(self.stream.settled, time.time())

    def answer(self, said: DeltaDiscoveryResponse) -> None:
        kind = Type(said.type_url)
        self.told[SHORT[kind]] += len(said.resources) + len(said.removed_resources)
        self.held[kind] |= {each.name: each.version for each in said.resources}
        acknowledgement = DeltaDiscoveryRequest(type_url=kind, response_nonce=said.nonce)
        self.stream.receive(acknowledgement, time.monotonic())
        for asked, name in wanted(kind, [each.resource.value for each in said.resources]):
            if name not in self.held[asked]:
                self.ask(asked, {name}, {})

    def forget(self) -> None:
        self.told, self.sizes = Counter(), []


@dataclass
class Counted:
    """A mesh with everyone connected, and what was done since it was asked last."""

    publisher: Publisher
    catalog: Catalog
    account: Account
    registry: CollectorRegistry
    clients: list[Client]
    assembled: list[str]

    @property
    def views(self) -> int:
        return int(self.registry.get_sample_value("meshfed_views_built_total") or 0)

    async def after(self, change: Callable[[], object]) -> tuple[list[Client], int]:
        """Those who were told something of a change, and the views that were worked out for it."""
        for client in self.clients:
            client.forget()
        self.assembled.clear()
        before = self.views
        revision = await change()
        async with asyncio.timeout(20):
            assert await self.account.settled(revision, 20) is not None
        return [client for client in self.clients if client.told], self.views - before

    async def observe(self, seen: Observation) -> int:
        known = Known(given.PROVIDER, seen.scope, seen.services, seen.workloads, seen.endpoints)
        revision = await self.catalog.believe(known, kind=given.KIND, cause="")
        assert revision is not None
        return revision

    async def specify(self, **differently: bool) -> int:
        revision = await self.catalog.specify(given.specified(SIZE, **differently))
        assert revision is not None
        return revision


def peer(workload: Workload) -> Peer:
    assert workload.identity is not None
    dns = f"{workload.id}.workload.{DOMAIN}"
    return Peer((workload.identity.uri(DOMAIN),), (dns,), None, "node", "1.40.0", "here")


@pytest.fixture
async def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counted]:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    migrate(url)
    catalog = Catalog(url)
    await catalog.configure(DOMAIN, permissive=False)
    for seen in given.observed(SIZE):
        known = Known(given.PROVIDER, seen.scope, seen.services, seen.workloads, seen.endpoints)
        await catalog.believe(known, kind=given.KIND, cause="")
    await catalog.specify(given.specified(SIZE))
    seal = Seal(tmp_path / "meshfed.key")
    issuer = await LocalAuthority.open(trust_domain=DOMAIN, safe=catalog, seal=seal)
    custody = Custody(issuer, DOMAIN, Certificates().workload_lifetime)
    there = await catalog.read()
    custody.keep(identities(there))
    await custody.check()
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    account, presence = Account(there.revision, metrics), Presence(metrics)
    publisher = Publisher(there, catalog, custody, account, metrics, presence, "here")
    made: list[str] = []
    build = assembled.assembled

    def counted(assignment, *others):  # the real one, counted
        made.append(str(assignment.service))
        return build(assignment, *others)

    monkeypatch.setattr("meshfed.federation.worlds.assembled", counted)
    await publisher.begin()
    workloads = {each.name: each for each in there.workloads.values()}
    clients = [Client(await publisher.open(peer(workloads[name]))) for name in SIZE.names()]
    for client in clients:
        client.connect()
    running = asyncio.create_task(publisher.run())
    yield Counted(publisher, catalog, account, registry, clients, made)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    catalog.close()


async def test_an_endpoint_costs_one_assignment_and_one_push_to_each_who_holds_it(mesh: Counted):
    told, views = await mesh.after(
        lambda: mesh.observe(given.observation(SIZE, SIZE.hot, weight=7))
    )
    assert len(told) == SIZE.proxies
    assert {tuple(client.told.items()) for client in told} == {(("EDS", 1),)}
    assert (mesh.assembled, views) == ([str(given.named(SIZE.hot))], 0)
    name = f"{given.named(SIZE.hot)}|{given.PORT}"
    whole = len(told[0].subscriber.world.of(Type.ENDPOINTS)[name].delta)
    assert max(size for client in told for size in client.sizes) < whole + ENVELOPE


async def test_an_endpoint_that_few_hold_costs_the_others_nothing(mesh: Counted):
    told, views = await mesh.after(
        lambda: mesh.observe(given.observation(SIZE, SIZE.rare, weight=7))
    )
    assert len(told) == SIZE.holders
    assert {client.subscriber.kind.identity for client in told} == {given.identity(0)}
    assert (mesh.assembled, views) == ([str(given.named(SIZE.rare))], 0)


async def test_streams_of_a_class_share_one_comparison(mesh: Counted, monkeypatch):
    from meshfed.xds.resource import differences

    before = differences.made
    await mesh.after(lambda: mesh.observe(given.observation(SIZE, SIZE.hot, weight=7)))
    assert differences.made - before == SIZE.identities


async def test_replacing_a_host_works_out_no_view(mesh: Counted):
    told, views = await mesh.after(lambda: mesh.observe(given.observation(SIZE, SIZE.hot, first=1)))
    assert len(told) == SIZE.proxies
    assert {tuple(client.told.items()) for client in told} == {(("EDS", 1),)}
    assert views == 0
    assert set(mesh.assembled) == {str(given.named(SIZE.hot))}


async def test_replacing_a_host_asks_no_proxy_of_another_who_it_is(mesh: Counted, monkeypatch):
    asked = []

    def counted(there: Mesh, who: Peer) -> Workload:
        asked.append(who)
        return admitted(there, who)

    await mesh.after(lambda: mesh.observe(given.observation(SIZE, SIZE.hot, first=1)))
    monkeypatch.setattr("meshfed.federation.publish.admitted", counted)
    await mesh.after(lambda: mesh.observe(given.observation(SIZE, SIZE.hot, first=2)))
    assert asked == []


async def test_a_policy_of_one_identity_is_worked_out_for_its_class_alone(mesh: Counted):
    told, views = await mesh.after(lambda: mesh.specify(denied=True))
    assert views == 1
    assert {client.subscriber.kind.identity for client in told} == {given.identity(0)}
    assert mesh.assembled == []


async def test_a_split_moves_routes_and_nothing_else(mesh: Counted):
    told, views = await mesh.after(lambda: mesh.specify(shifted=True))
    assert views == SIZE.identities
    assert {tuple(client.told.items()) for client in told} == {(("RDS", 1),)}
    assert mesh.assembled == []


async def test_who_comes_back_is_sent_no_cluster_and_no_listener(mesh: Counted):
    made = list(mesh.assembled)
    views = mesh.views
    for client in mesh.clients:
        client.forget()
        client.connect()
    assert not any(client.told["CDS"] or client.told["LDS"] for client in mesh.clients)
    assert (mesh.views, mesh.assembled) == (views, made)


def test_one_of_ten_thousand_endpoints_costs_one_fragment():
    size = Size(services=3, endpoints=30_000, proxies=1, identities=1, clusters=3)
    before = tuple(given.member(size, 0, n)[1] for n in range(10_000))
    one = assembled.assembled(ASSIGNMENT, before)
    moved = given.observation(size, 0, weight=3).endpoints
    (new,) = [each for each in moved if each.weight == 3]
    asked = endpoints.fragment.cache_info()
    after = tuple(new if each.key == new.key else each for each in before)
    two = assembled.assembled(ASSIGNMENT, after, one)
    now = endpoints.fragment.cache_info()
    assert now.hits + now.misses - asked.hits - asked.misses == 1
    assert two.resource == endpoints.load_assignment(ASSIGNMENT, after)


def test_what_is_kept_in_parts_is_what_would_be_made_at_once():
    size, chance = Size(services=3, endpoints=90, proxies=1, identities=1, clusters=3), Random(6)
    there = {n: given.member(size, 0, n)[1] for n in range(12)}
    one = assembled.assembled(ASSIGNMENT, tuple(there.values()))
    for _ in range(200):
        n = chance.randrange(24)
        if n in there and chance.random() < 0.5:
            del there[n]
        else:  # a second port of a workload is the same place to callers
            port = chance.choice((8080, 8080, 8080, 8081))
            new = given.member(size, 0, n)[1]
            there[n] = structs.replace(new, weight=chance.randrange(3), target=port)
            if chance.random() < 0.1:
                there[100 + n] = structs.replace(new, target=9090)
        now = tuple(sorted(there.values(), key=in_order))
        one = assembled.assembled(ASSIGNMENT, now, one)
        assert one.resource == endpoints.load_assignment(ASSIGNMENT, now)


ASSIGNMENT = Assignment(given.named(0), given.PORT)


def test_what_was_worked_out_of_a_resource_goes_with_it() -> None:
    """Else each version of a large assignment that ever was would stay: 200 kB, 65,536 times."""
    told = resource("web", ClusterLoadAssignment(cluster_name="web"))
    called = resource("web", Cluster(name="web", type=Cluster.EDS))
    assert (sizes(told), assignment(called)) == (((0, 0),), "web")
    left = weakref.ref(told), weakref.ref(called)
    del told, called
    gc.collect()
    assert [each() for each in left] == [None, None]
