"""A cluster in the catalog: what is known of it outlives it, and what is gone from it goes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import SOON, namespace, provider, serve, service, slices
from kube.cluster import Cluster
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine, text

from meshfed.catalog.store import Catalog, migrate
from meshfed.federation import feed
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence

FASTER = 1000  # the feed's clock: half a minute of doubt is over in 30 ms
ENDPOINTS = "select service, address from mesh_endpoints order by 1, 2"


class Fed:
    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = create_engine(url)
        self.catalog = Catalog(url)

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(30.0):
            async for _ in self.catalog.follow():
                if what():
                    return

    async def has(self, *rows: tuple[str, str]) -> None:
        await self.until(lambda: self.ask(ENDPOINTS) == sorted(rows))


@pytest.fixture
async def fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fed]:
    monkeypatch.setattr(feed, "BACKOFF", (0.05,))
    url = f"sqlite:///{tmp_path}/catalog.db"
    migrate(url)
    made = Fed(url)
    await made.catalog.configure("shop.example", permissive=False)
    yield made
    made.catalog.close()
    made.engine.dispose()


@asynccontextmanager
async def feeding(fed: Fed, cluster: Cluster) -> AsyncIterator[Feed]:
    presence = Presence(Metrics(CollectorRegistry()))
    seeing = provider(cluster, replace(SOON, idle=0.5, headers=0.5))
    made = Feed(seeing, "kubernetes", fed.catalog, presence, lambda: FASTER * time.monotonic())
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_cluster_that_is_away_leaves_its_endpoints_stale_and_says_why(
    fed: Fed, cluster: Cluster
) -> None:
    cluster.put(namespace())
    serve(cluster, "10.0.0.1")
    state = "select state, doubt from mesh_providers where scope = 'aks/shop/web'"
    stale = "select stale from mesh_endpoints"
    async with feeding(fed, cluster):
        await fed.has(("web.shop", "10.0.0.1"))
        cluster.server.stop()
        await fed.until(lambda: fed.ask(stale) == [(1,)])
        ((condition, doubt),) = fed.ask(state)
        assert condition != "good"
        assert "Cannot connect to host" in str(doubt)
        cluster.server.start()
        await fed.until(lambda: fed.ask(stale) == [(0,)])
        while fed.ask(state) != [("good", "")]:  # noqa: ASYNC110  # which moves no revision
            await asyncio.sleep(0.01)


async def test_a_service_that_was_deleted_while_nobody_looked_goes_in_the_end(
    fed: Fed, cluster: Cluster
) -> None:
    cluster.put(namespace())
    serve(cluster, "10.0.0.1")
    serve(cluster, "10.0.0.2", of="store")
    async with feeding(fed, cluster):
        await fed.has(("store.shop", "10.0.0.2"), ("web.shop", "10.0.0.1"))
    cluster.delete(service())
    cluster.delete(slices())
    async with feeding(fed, cluster):
        await fed.has(("store.shop", "10.0.0.2"))


SERVICES = [f"s{n}" for n in range(8)]


@pytest.mark.parametrize(
    "steps", [15, pytest.param(400, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
async def test_after_whatever_happens_to_it_the_catalog_is_the_cluster(
    fed: Fed, cluster: Cluster, steps: int
) -> None:
    chance = random.Random(7)
    truth: dict[str, set[str]] = {}
    cluster.put(namespace())

    def change() -> None:
        name = chance.choice(SERVICES)
        if name in truth and chance.random() < 0.3:
            cluster.delete(service(name))
            cluster.delete(slices(of=name))
            del truth[name]
            return
        at = {f"10.{SERVICES.index(name)}.0.{chance.randrange(1, 9)}" for _ in range(4)}
        serve(cluster, *sorted(at), of=name)
        truth[name] = at

    def trouble() -> None:
        faults = cluster.server.faults
        match chance.randrange(7):
            case 0:
                cluster.server.restart()
            case 1:
                faults.compact()
                faults.drop_watches()
            case 2:
                faults.expire_watches()
            case 3:
                faults.drop_watches(abruptly=True)
            case 4:
                faults.fail(chance.randrange(5), 500, verb="watch")
            case 5:
                faults.fail(2, 429, verb="watch", retry_after=1)
            case 6:
                faults.say(b'{"type": "ADDED"\n')

    async with feeding(fed, cluster):
        for _ in range(steps):
            await asyncio.to_thread(change)
            if chance.random() < 0.4:
                await asyncio.to_thread(trouble)
            await asyncio.sleep(chance.random() * 0.1)
        expected = [(f"{name}.shop", each) for name, at in truth.items() for each in at]
        await fed.has(*expected)
        assert fed.ask("select count(*) from mesh_endpoints where health <> 'healthy'") == [(0,)]
