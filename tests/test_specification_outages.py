"""SMI from a cluster: what it survives."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from applied import crds, group, prepared, route, source, split, telling
from clusters import SOON, namespace
from kube.cluster import Cluster

from meshfed.federation.specification.cluster import Cluster as Reading
from meshfed.providers.kubernetes.options import OURS, Monitored
from meshfed.providers.kubernetes.reflect import Pace


@pytest.fixture
def shop(cluster: Cluster) -> Cluster:
    return prepared(cluster)


async def test_a_cluster_that_is_away_keeps_what_is_known(shop: Cluster) -> None:
    shop.put(route("a", 1))
    async with telling(source(shop)) as told:
        await told.until(lambda t: t.ports == {"a": [1]})
        await asyncio.to_thread(shop.server.stop)
        away = await told.until(lambda t: t.newest.doubt)
        assert told.ports == {"a": [1]}
        assert away.doubt.startswith("namespaces: ")
        await asyncio.to_thread(shop.server.start)
        await told.until(lambda t: not t.newest.doubt)
        shop.put(route("a", 2))
        await told.until(lambda t: t.ports == {"a": [2]})


async def test_a_cluster_that_was_never_reached_is_a_fault(shop: Cluster) -> None:
    shop.put(route("a", 1))
    shop.server.stop()
    async with telling(source(shop)) as told:
        first = await told.until(lambda t: t.all)
        assert first.fault.startswith("namespaces: ")
        await asyncio.to_thread(shop.server.start)
        await told.until(lambda t: not t.newest.fault and t.ports == {"a": [1]})


class Unreachable:
    """A cluster of which namespaces are given up two seconds later than kinds."""

    def __init__(self) -> None:
        self.now = 0.0

    @asynccontextmanager
    async def get(self, path: str, query: object) -> AsyncIterator[Any]:
        self.now = 2.0 if path.endswith("/namespaces") else 0.0
        raise TimeoutError
        yield

    async def rest(self, seconds: float) -> None:
        await asyncio.Event().wait()


async def test_nothing_is_told_of_a_cluster_while_a_part_of_it_may_yet_be_reached() -> None:
    api: Any = Unreachable()
    pace = Pace(grace=3.0, rest=api.rest, clock=lambda: api.now)
    reading = Reading("kubernetes:away", Monitored(labels=(OURS,)), api, pace)
    reading.begin()
    try:
        await reading.news()
        api.now = 3.0
        assert reading.look() is None
        api.now = 5.0
        told = reading.look()
        assert told
        assert told.fault.startswith("namespaces: ")
    finally:
        await reading.end()


async def test_a_namespace_that_may_not_be_read_keeps_its_own_alone(shop: Cluster) -> None:
    shop.put(namespace("stock"))
    shop.put(route("a", 1))
    async with telling(source(shop)) as told:
        await told.until(lambda t: t.ports == {"a": [1]})
        shop.faults.fail(10**6, 403, plural="tcproutes")
        shop.faults.drop_watches()
        seen = await told.until(lambda t: t.newest.doubt)
        assert told.ports == {"a": [1]}
        assert seen.doubt == "tcproutes in shop: 403: the tests say 403"
        shop.put(group("books", "/books"))
        await told.until(lambda t: len(t.newest.policies) == 2)
        shop.faults.failing.clear()
        await told.until(lambda t: not t.newest.doubt)


async def test_a_kind_that_is_not_there_yet_is_noticed_when_it_is(cluster: Cluster) -> None:
    cluster.put(namespace())
    for crd in crds("TCPRoute", "HTTPRouteGroup", "TrafficTarget"):
        cluster.create(crd)
        cluster.established(crd)
    cluster.put(route("a", 1))
    async with telling(source(cluster)) as told:
        seen = await told.until(lambda t: t.ports == {"a": [1]})
        assert seen.doubt.startswith("trafficsplits.split.smi-spec.io: the cluster does not know")
        assert seen.unread == {("TrafficSplit", "shop")}
        for crd in crds("TrafficSplit"):
            cluster.create(crd)
            await asyncio.to_thread(cluster.established, crd)
        cluster.put(split("v1alpha4", a=1))
        seen = await told.until(lambda t: len(t.newest.policies) == 2)
        assert (seen.doubt, seen.unread) == ("", frozenset())


async def test_a_crd_that_is_deleted_takes_its_objects_and_may_come_back(shop: Cluster) -> None:
    shop.put(route("a", 1))
    shop.put(split("v1alpha4", a=1))
    async with telling(source(shop)) as told:
        await told.until(lambda t: len(t.newest.policies) == 2)
        (crd,) = crds("TrafficSplit")
        shop.delete(crd)
        seen = await told.until(lambda t: t.newest.doubt)
        assert told.ports == {"a": [1]}
        await asyncio.to_thread(shop.gone, crd)
        shop.create(crd)
        await asyncio.to_thread(shop.established, crd)
        shop.put(split("v1alpha4", a=1))
        seen = await told.until(lambda t: len(t.newest.policies) == 2 and not t.newest.doubt)
        assert not seen.unread


async def test_history_that_was_compacted_is_listed_again(shop: Cluster) -> None:
    shop.put(route("a", 1))
    async with telling(source(shop, pace=replace(SOON, grace=5.0))) as told:
        await told.until(lambda t: t.ports == {"a": [1]})
        await asyncio.to_thread(shop.server.restart)
        shop.put(route("b", 2))
        await told.until(lambda t: t.ports == {"a": [1], "b": [2]})
    assert not any(each.doubt for each in told.all)


async def test_an_object_without_a_name_keeps_what_may_be_it(shop: Cluster) -> None:
    shop.put(route("a", 1))
    async with telling(source(shop)) as told:
        await told.until(lambda t: t.ports == {"a": [1]})
        strange = {**route("b", 2), "metadata": {"annotations": 5}}
        line = json.dumps({"type": "MODIFIED", "object": strange}) + "\n"
        shop.faults.say(line.encode())
        await told.until(lambda t: ("TCPRoute", "shop") in t.newest.unread)
        assert told.ports == {"a": [1]}
