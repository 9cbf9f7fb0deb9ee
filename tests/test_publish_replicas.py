"""One proxy with two live streams, mostly at two replicas: what is recorded is of the newer one."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from publishing import BUYING, KNOWN, SELLER, SELLING, Published, peer

from meshfed.catalog.model import Endpoint, Port, Protocol, Service, ServiceName
from meshfed.federation.publish import Publisher
from meshfed.federation.subscriber import Subscriber

BOOKS = ServiceName("books", "shop")
MORE = replace(
    KNOWN,
    services=KNOWN.services | {Service(BOOKS, (Port(3307, protocol=Protocol.TCP, local=13307),))},
    endpoints=KNOWN.endpoints
    | {Endpoint(BOOKS, 3307, "10.0.0.1", 3307, SELLING.id, "rack", "rack/list", identity=SELLER)},
)
ROWS = "select replica, cluster from proxies left join mesh_clusters using (proxy) order by 2"


@pytest.fixture
async def published(tmp_path: Path) -> AsyncIterator[Published]:
    made = Published(tmp_path)
    yield made
    made.catalog.close()


async def settled(publisher: Publisher, stream: Subscriber) -> None:
    """It has everything, and that is written."""
    stream.settled(stream.world, 1.0)
    await publisher._write()


async def alive(publisher: Publisher) -> None:
    """It is time for a sign of life."""
    publisher._alive = 0.0
    await publisher._write()


@pytest.fixture
async def both(published: Published) -> list[tuple[Publisher, Subscriber]]:
    """The stream at the second is the newer one; the first has not noticed that its own is dead."""
    found = []
    for replica in ("one", "two"):
        publisher = await published.open(replica)
        await publisher.begin()
        stream = await publisher.open(peer(BUYING))
        stream._since += len(found)
        await settled(publisher, stream)
        found.append((publisher, stream))
    return found


async def test_what_changes_is_recorded_by_the_newer_and_the_other_goes_on(
    published: Published, both: list[tuple[Publisher, Subscriber]]
) -> None:
    await published.catalog.believe(MORE, kind="test", cause="")
    for publisher, stream in reversed(both):
        await publisher._advance()
        publisher._shape()
        await settled(publisher, stream)
    assert published.rows(ROWS) == [("two", "books.shop|3307"), ("two", "ledger.shop|3306")]


async def test_when_the_newer_ends_the_older_is_recorded_again_though_nothing_of_it_moved(
    published: Published, both: list[tuple[Publisher, Subscriber]]
) -> None:
    (one, _), (two, gone) = both
    await alive(one)  # it learns that its row is another's
    gone.close()
    await two._write()
    assert published.rows(ROWS) == []
    await alive(one)
    assert published.rows(ROWS) == [("one", "ledger.shop|3306")]


async def test_at_one_replica_the_older_is_recorded_again_when_the_newer_ends(
    published: Published,
) -> None:
    publisher = await published.open()
    await publisher.begin()
    for version in ("1.40.0", "1.41.0"):
        stream = await publisher.open(peer(BUYING, envoy_version=version))
        await settled(publisher, stream)
        assert published.rows("select envoy_version from proxies") == [(version,)]
    stream.close()
    await publisher._write()
    assert published.rows("select envoy_version from proxies") == [("1.40.0",)]


@pytest.mark.parametrize("then", ["nothing", "a change of its view", "a change of its state"])
async def test_a_stream_that_another_had_for_a_moment_is_recorded_whole(
    published: Published, then: str
) -> None:
    """The newer one came and went between two writes of the replica that has the older."""
    one, two = await published.open("one"), await published.open("two")
    await one.begin()
    await two.begin()
    stays = await one.open(peer(BUYING))
    stays.receipt("CDS", "v1", 1.0, 1.0, "")
    await settled(one, stays)
    passing = await two.open(peer(BUYING))
    passing._since = stays._since + 1
    await two._write()
    passing.close()
    await two._write()
    if then == "a change of its view":
        await published.catalog.believe(MORE, kind="test", cause="")
        await one._advance()
        one._shape()
    if then == "a change of its state":
        stays.receipt("LDS", "v2", 1.0, 2.0, "no such filter")
    for _ in range(2):
        await alive(one)
    reached = {("one", row[0]) for row in one._worlds.reach(stays.kind)}
    assert {*published.rows(ROWS)} == reached
    answered = published.rows("select sent_version from proxy_sync where type = 'CDS'")
    assert answered == [("v1",)]
