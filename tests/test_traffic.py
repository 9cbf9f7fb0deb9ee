"""Reports of load, from the sidecars of a mesh into its catalog."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from publishing import (
    ALLOWED,
    BUYER,
    BUYING,
    KNOWN,
    LEDGER,
    SELLING,
    Published,
    answers,
    host,
    offered,
    opened,
    peer,
)

from meshfed.catalog.model import (
    Backend,
    Known,
    ObjectName,
    ServiceName,
    Specified,
    TrafficSplit,
)
from meshfed.catalog.store import Away
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.demo.control import until
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.traffic import Traffic
from meshfed.xds.feed import Refusal, Unready
from meshfed.xds.loads import Calls

ASKED = "select source_identity, service, platform, requests, failed, in_flight from mesh_traffic"


def said(service: str = "ledger.shop", begun: int = 5, in_flight: int = 0) -> list[Calls]:
    return [Calls(f"{service}|3306", "", "", "host", 0, 0, begun, in_flight)]


def deaf() -> None:
    """Nobody is to be told that clusters moved."""


@pytest.fixture
async def published(tmp_path: Path) -> AsyncIterator[Published]:
    made = Published(tmp_path)
    yield made
    made.catalog.close()


@pytest.fixture
async def publisher(published: Published) -> AsyncIterator[Publisher]:
    made = await published.open()
    await made.begin()
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def traffic(published: Published, publisher: Publisher) -> Traffic:
    metrics = Metrics(CollectorRegistry())
    return Traffic(publisher, published.catalog, metrics, Presence(metrics), "here")


async def test_the_source_is_who_the_certificate_says(
    traffic: Traffic, published: Published
) -> None:
    sidecar = traffic.report(peer(BUYING, node_id=SELLING.id), deaf)
    sidecar.take(said(begun=5, in_flight=2))
    await traffic.write()
    assert published.rows(ASKED) == [(str(BUYER), "ledger.shop", "host", 5, 0, 2)]
    sidecar.close()  # what it had under way it has no longer, or tells another replica
    await traffic.write()
    assert published.rows(ASKED) == [(str(BUYER), "ledger.shop", "host", 5, 0, 0)]


async def test_who_is_not_of_the_mesh_reports_nothing(traffic: Traffic) -> None:
    with pytest.raises(Refusal, match="no provider knows"):
        traffic.report(peer(host("thief", BUYER)), deaf)


async def test_who_leaves_the_mesh_reports_no_more(
    traffic: Traffic, publisher: Publisher, published: Published
) -> None:
    sidecar = traffic.report(peer(BUYING), deaf)
    subscriber = await opened(publisher, peer(BUYING))
    alone = Known("rack", "rack/list", KNOWN.services, frozenset({SELLING}), KNOWN.endpoints)
    await published.catalog.believe(alone, kind="test", cause="it left")
    await offered(subscriber)
    with pytest.raises(Refusal, match="no provider knows"):
        sidecar.take(said())


async def test_a_replica_that_has_not_seen_every_source_hears_whom_it_knew_before(
    published: Published,
) -> None:
    publisher = await published.open()  # and never begun
    metrics = published.metrics
    traffic = Traffic(publisher, published.catalog, metrics, Presence(metrics), "here")
    traffic.report(peer(BUYING), deaf).take(said())
    await traffic.write()
    assert len(published.rows(ASKED)) == 1
    with pytest.raises(Unready, match="not every source"):
        traffic.report(peer(host("new", BUYER)), deaf)


async def test_what_it_should_count_is_what_it_is_told_to_call(
    traffic: Traffic, publisher: Publisher, published: Published
) -> None:
    moved = asyncio.Event()
    sidecar = traffic.report(peer(BUYING), moved.set)
    assert sidecar.clusters is None  # connected to another replica, for all that is known
    subscriber = await opened(publisher, peer(BUYING))
    assert moved.is_set()
    assert set(sidecar.clusters or ()) == {"ledger.shop|3306"}
    await split_the_ledger(published)
    await offered(subscriber)
    assert set(sidecar.clusters or ()) == {
        "ledger.shop|3306",
        "books.shop>ledger.shop|3306",
    }
    subscriber.close()

    async def forgotten() -> bool:  # with the next record of proxies
        return sidecar.clusters is None

    await until("the end of its stream", forgotten)
    sidecar.close()


async def split_the_ledger(published: Published) -> None:
    split = TrafficSplit(
        ObjectName("shop", "s"), ServiceName("books", "shop"), (Backend(LEDGER, 1),)
    )
    await published.catalog.specify(
        Specified("files:policy", (*ALLOWED.policies, (split, "split.yaml:1")))
    )


async def test_nothing_else_wakes_it(
    traffic: Traffic, publisher: Publisher, published: Published
) -> None:
    subscriber = await opened(publisher, peer(BUYING))
    moved = asyncio.Event()
    sidecar = traffic.report(peer(BUYING), moved.set)
    two = Known("rack", "rack/list", KNOWN.services, KNOWN.workloads,
                frozenset({*KNOWN.endpoints, answers(SELLING, 2)}))  # fmt: skip
    await published.catalog.believe(two, kind="test", cause="one more endpoint")
    await offered(subscriber)
    assert not moved.is_set()
    sidecar.close()


async def test_while_the_catalog_is_away_nothing_is_lost(
    traffic: Traffic, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = traffic.report(peer(BUYING), deaf)
    sidecar.take(said(begun=5))
    published.file.rename(published.file.with_suffix(".gone"))
    with pytest.raises(Away):
        await traffic.write()
    sidecar.take(said(begun=2))
    published.file.with_suffix(".gone").rename(published.file)
    await traffic.write()
    assert published.rows("select sum(requests) from mesh_traffic") == [(7,)]


async def test_a_sidecar_that_goes_to_another_replica_is_counted_once(
    traffic: Traffic, publisher: Publisher, published: Published
) -> None:
    metrics = Metrics(CollectorRegistry())
    other = Traffic(publisher, published.catalog, metrics, Presence(metrics), "there")
    before = traffic.report(peer(BUYING), deaf)
    before.take(said(begun=5, in_flight=3))
    await traffic.write()
    before.close()
    after = other.report(peer(BUYING), deaf)
    after.take(said(begun=2, in_flight=3))
    for replica in (traffic, other, traffic):
        await replica.write()
    assert published.rows("select sum(requests), sum(in_flight) from mesh_traffic") == [(7, 3)]


async def test_who_leads_is_nothing_to_it(traffic: Traffic, published: Published) -> None:
    sidecar = traffic.report(peer(BUYING), deaf)
    for replica in ("there", "here", "there"):
        assert await published.catalog.take(replica, at_once=True)
        sidecar.take(said(begun=1))
        await traffic.write()
    assert published.rows("select sum(requests) from mesh_traffic") == [(3,)]
