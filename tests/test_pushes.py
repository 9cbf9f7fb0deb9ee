"""What `proxy config --at` says a proxy was sent is what a client was sent."""

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import live
import pytest
import yaml
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from remembering import Client

from meshfed.catalog import pushes
from meshfed.catalog.model import (
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Known,
    ObjectName,
    Port,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    Specified,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.past import looked
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation import publish
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.keys import Seal
from meshfed.federation.cli.main import main
from meshfed.federation.demo.folder import replace as edit
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.sections import Certificates
from meshfed.federation.subscriber import Subscriber
from meshfed.federation.wanted import identities
from meshfed.xds.peer import Peer
from meshfed.xds.resource import Type
from meshfed.xds.stream import Stream

DOMAIN = "shop.example"
BUYER, STORE, THIEF = (Identity(name, "shop") for name in ("buyer", "store", "thief"))
SERVICES = tuple(ServiceName(name, "shop") for name in ("a", "b", "c"))
CALLER = Workload("caller-1", "rack", "rack/list", identity=BUYER)
STORES = tuple(Workload(f"store-{n}", "rack", "rack/list", identity=STORE) for n in range(3))


# A control plane without sockets


class Served:
    def __init__(self, catalog: Catalog, publisher: Publisher, account: Account, url: str) -> None:
        self.catalog = catalog
        self.publisher = publisher
        self.url = url
        self.client = Client()
        self._account = account
        self._stream: Stream
        self._subscriber: Subscriber | None = None

    async def connect(self, client: Client) -> None:
        if self._subscriber:
            self._subscriber.close()
        assert CALLER.identity
        names = ((CALLER.identity.uri(DOMAIN),), (f"{CALLER.id}.workload.{DOMAIN}",))
        peer = Peer(*names, None, "x", "1.40.0", "ipv4:127.0.0.1:1")
        self._subscriber = await self.publisher.open(peer)
        self._stream = Stream(delta=True, recording=True)
        self.client = client
        self._stream.offer(self._subscriber.world)
        for request in client.hello():
            self._stream.receive(request, 0)
        self.converse()

    def converse(self) -> None:
        """Until neither has anything to say."""
        assert self._subscriber
        self._stream.offer(self._subscriber.world)
        while responses := self._stream.outgoing(0):
            for response in responses:
                message = DeltaDiscoveryResponse.FromString(response.body)
                for request in self.client.takes(message):
                    self._stream.receive(request, 0)
        holdings, self._stream.holdings = self._stream.holdings, []
        for each in holdings:
            self._subscriber.pushed(each.type, each.revision, each.versions)

    async def caught_up(self, revision: int | None) -> int:
        """The publisher has evaluated everything, and the client has it."""
        async with asyncio.timeout(20):
            while self._account.evaluated < (revision or 0):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        self.converse()
        return self._account.evaluated

    def recorded(self, revision: int) -> dict[tuple[str, str], str]:
        found = looked(self.url, lambda c: pushes.sent(c, CALLER.id, revision))
        return {(row["type"], row["name"]): row["version"] for row in found}


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    url = f"sqlite:///{folder}/meshfed.db"
    with closing(Catalog(url)) as catalog:
        await catalog.configure(DOMAIN, permissive=False)
        await catalog.believe(believed(0), kind="test", cause="")
        await catalog.specify(specified(0))
        issuer = await LocalAuthority.open(
            trust_domain=DOMAIN, safe=catalog, seal=Seal(folder / "meshfed.key")
        )
        custody = Custody(issuer, DOMAIN, Certificates().workload_lifetime)
        mesh = await catalog.read()
        custody.keep(identities(mesh))
        await custody.check()
        metrics = Metrics(CollectorRegistry())
        account = Account(mesh.revision, metrics)
        publisher = Publisher(mesh, catalog, custody, account, metrics, Presence(metrics), "here")
        await publisher.begin()
        running = asyncio.create_task(publisher.run())
        yield Served(catalog, publisher, account, url)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# What happens to the mesh: numbers stand for its states


def believed(number: int) -> Known:
    """Which stores answer for which services, how heavy and healthy, in all sorts of ways."""
    declared = {
        Service(name, (Port(80), *((Port(81),) if number % 5 == 4 else ()))) for name in SERVICES
    }
    endpoints = {
        Endpoint(
            service, 80, f"10.0.{n}.{m}", 8080, store.id, "rack", "rack/list",
            identity=THIEF if (number + n) % 7 == 6 else STORE,
            weight=1 + (number + m) % 3,
            health=Health.UNHEALTHY if (number * n) % 4 == 3 else Health.HEALTHY,
        )
        for n, service in enumerate(SERVICES)
        for m, store in enumerate(STORES)
        if (number >> n) % 3 != m
    }  # fmt: skip
    there = frozenset({CALLER, *STORES})
    return Known("rack", "rack/list", frozenset(declared), there, frozenset(endpoints))


def specified(number: int) -> Specified:
    every = RouteGroup(ObjectName("shop", "all"), (HttpMatch("all"),))
    rules = (Rule("HTTPRouteGroup", "all"),)
    targets = [
        TrafficTarget(ObjectName("shop", f"to-{to.account}"), to, frozenset({BUYER}), rules)
        for n, to in enumerate((STORE, THIEF))
        if number % 4 != n + 1
    ]
    placed = tuple((policy, "p.yaml:1") for policy in (every, *targets))
    return Specified("files:p", placed)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("believe"), st.integers(0, 31)),
        st.tuples(st.just("specify"), st.integers(0, 3)),
        st.tuples(st.just("permit"), st.integers(0, 1)),
        st.tuples(st.just("hurry"), st.integers(0, 31)),  # two at once
        st.tuples(st.just("reject"), st.integers(0, 4)),
        st.tuples(st.just("come back"), st.just(0)),
        st.tuples(st.just("start anew"), st.just(0)),
    ),
    max_size=8,
)
Steps = list[tuple[str, int]]


async def act(served: Served, what: str, number: int) -> int | None:
    catalog = served.catalog
    match what:
        case "believe":
            return await catalog.believe(believed(number), kind="test", cause="")
        case "specify":
            return await catalog.specify(specified(number))
        case "permit":
            return await catalog.configure(DOMAIN, permissive=bool(number))
        case "hurry":
            await catalog.believe(believed(number), kind="test", cause="")
            return await catalog.believe(believed(number + 1), kind="test", cause="")
        case "reject":
            served.client.rejects.add(tuple(Type)[number])
        case "come back":
            await served.connect(served.client.again())
        case _:
            await served.connect(Client())
    return None


async def lived(folder: Path, steps: Steps) -> None:
    async with served(folder) as mesh:
        await mesh.connect(Client())
        expected: dict[int, Mapping[tuple[str, str], str]] = {}
        for what, number in steps:
            revision = await mesh.caught_up(await act(mesh, what, number))
            expected[revision] = mesh.client.told()
        await mesh.publisher._keep()
        for revision, wanted in expected.items():
            assert mesh.recorded(revision) == wanted


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "meshfed.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module", autouse=True)
def at_once() -> Iterator[None]:
    """Shapes without a pause between them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publish, "BETWEEN_SHAPES", 0.0)
        patched.setattr(publish, "FLUSH", 0.02)
        yield


def check(template: Path, steps: Steps) -> None:
    with TemporaryDirectory() as name:
        shutil.copy(template, Path(name) / "meshfed.db")
        asyncio.run(lived(Path(name), steps))


@given(steps=STEPS)
@settings(max_examples=15, deadline=None)
def test_whatever_happens_each_revision_has_what_the_client_was_sent(
    template: Path, steps: Steps
) -> None:
    check(template, steps)


@pytest.mark.soak
@given(steps=STEPS)
@settings(derandomize=False, max_examples=500, deadline=None)
def test_whatever_happens_five_hundred_times(template: Path, steps: Steps) -> None:
    check(template, steps)


# With a real Envoy

HOSTS = """\
services:
  web.live: {ports: {http: 8080}}
hosts:
  - {name: caller, identity: caller.live,
     address: 127.0.12.1, bind: 127.0.12.1, application: 127.0.12.1}
  - {name: server, identity: server.live, service: web.live,
     address: 127.0.12.2, bind: 127.0.12.2, application: 127.0.12.2}
"""


@pytest.fixture
async def recording(tmp_path: Path) -> AsyncIterator[live.Mesh]:
    mesh = live.Mesh(tmp_path, HOSTS, {})
    written = {"mesh": {"trust_domain": "shop.example", "permissive": True}}
    history = {"history": {"record_pushes": True}}
    edit(mesh.config, yaml.safe_dump({**mesh.written, **written, **history}))
    try:
        await mesh.serve()
        await mesh.start("caller")
        yield mesh
    finally:
        mesh.end()


def tried(*arguments: object) -> tuple[list[dict[str, str]], str]:
    """The rows, or why there are none."""
    out, why = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(why), pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "-o", "json"])
    return ([], why.getvalue()) if ended.value.code else (json.loads(out.getvalue()), "")


def ran(*arguments: object) -> list[dict[str, str]]:
    found, why = tried(*arguments)
    assert not why, why
    return found


async def test_what_an_envoy_has_is_what_it_was_sent(recording: live.Mesh) -> None:
    config = ("--config", recording.config)

    async def now() -> dict[tuple[str, str], str]:
        """What the Envoy says it has; of its secrets and endpoints it tells no versions."""
        told = await asyncio.to_thread(ran, "proxy", "config", "caller", *config)
        return {(row["type"], row["name"]): row["live"] for row in told if row["live"]}

    async def then(revision: int) -> dict[tuple[str, str], str]:
        asked = ("proxy", "config", "caller", "--at", revision, *config)
        told, why = await asyncio.to_thread(tried, *asked)
        assert not why or "nothing is recorded" in why, why  # not yet: that comes after the push
        return {(row["type"], row["name"]): row["version"] for row in told}

    async def kept(revision: int, has: dict[tuple[str, str], str]) -> bool:
        sent = await then(revision)
        return has.items() <= sent.items() and {k for k in sent if k[0] == "CDS"} <= has.keys()

    async def newest() -> int:
        asked = ("sql", "select max(revision) as revision from mesh_changes")
        (row,) = await asyncio.to_thread(ran, *asked, *config)
        return int(row["revision"])

    first, before = await newest(), await now()
    assert {kind for kind, _ in before} >= {"CDS", "LDS", "RDS"}
    more = HOSTS.replace("http: 8080}", "http: 8080, more: 8081}")
    await recording.change(lambda: edit(recording.hosts, more))
    second, after = await newest(), await now()
    assert after != before
    await live.until("what was sent is recorded", lambda: kept(second, after))
    assert await kept(first, before)
