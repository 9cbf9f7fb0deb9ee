"""What the provider `kubernetes` survives: restarts, refusals, silence and nonsense."""

import asyncio
from dataclasses import replace

import pytest
from clusters import SOON, endpoint, namespace, provider, serve, slices
from kube.cluster import Cluster
from observing import calls, telling

from meshfed.catalog.model import Evidence


@pytest.fixture
async def shop(cluster: Cluster) -> Cluster:
    """A monitored namespace with a service of two pods."""
    await asyncio.to_thread(cluster.put, namespace())
    await asyncio.to_thread(serve, cluster, "10.0.0.1", "10.0.0.2")
    return cluster


async def test_an_api_server_that_restarts_is_no_news(shop: Cluster) -> None:
    patient = replace(SOON, grace=5.0)
    async with telling(provider(shop, patient)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        before = len(told.all)
        await asyncio.to_thread(shop.server.restart)
        await asyncio.to_thread(serve, shop, "10.0.0.1", "10.0.0.2", "10.0.0.3")
        await told.has("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert not [each for each in told.all[before:] if each.fault]


@pytest.mark.parametrize("how", ["expire_watches", "compact"])
async def test_a_history_that_is_over_tells_the_difference_alone(shop: Cluster, how: str) -> None:
    serve(shop, "10.0.0.3", of="store")
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        await told.has("10.0.0.3", scope="aks/shop/store")
        before = len(told.all)
        getattr(shop.server.faults, how)()
        shop.server.faults.drop_watches()
        serve(shop, "10.0.0.1")
        await told.has("10.0.0.1")
        await asyncio.sleep(0.1)
    assert "aks/shop/store" not in {each.scope for each in told.all[before:]}


async def test_what_is_missing_from_a_list_is_not_stated_nor_what_is_then(shop: Cluster) -> None:
    shop.put(slices(endpoint("10.0.0.3"), endpoint("10.0.0.4"), name="web-2"))
    async with telling(provider(shop, replace(SOON, idle=0.2, headers=0.2))) as told:
        await told.has("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
        with shop.server.faults.half_open():  # what happens now is said to nobody
            lose(shop, "web-2")
        shop.server.faults.compact()
        seen = await told.has("10.0.0.1", "10.0.0.2")
        assert seen.evidence is Evidence.LISTED
        serve(shop, "10.0.0.1")
        seen = await told.has("10.0.0.1")
        assert seen.evidence is Evidence.LISTED  # while those others are in doubt


def lose(cluster: Cluster, name: str) -> None:
    """Deletes a slice, without asking."""
    store = cluster.server.store
    kind = store.kind("discovery.k8s.io", "v1", "endpointslices")

    def lost() -> None:
        before = store.get(kind, ("shop", name))
        assert before
        store.write(kind, "DELETED", before.object, before)

    cluster.server.call(lost)


async def test_a_half_open_connection_is_found_out(shop: Cluster) -> None:
    impatient = replace(SOON, idle=0.3, headers=0.3)
    async with telling(provider(shop, impatient)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        with shop.server.faults.half_open():
            await told.until(lambda: told.newest["aks/shop/web"].fault)
        await told.has("10.0.0.1", "10.0.0.2")
    assert not [each for each in told.all if each.services and not each.endpoints]


@pytest.mark.parametrize("status", [500, 503, 429, 403])
async def test_answers_that_say_no_are_waited_out(shop: Cluster, status: int) -> None:
    shop.server.faults.fail(4, status, plural="endpointslices")
    async with telling(provider(shop)) as told:
        seen = await told.has("10.0.0.1", "10.0.0.2")
    assert seen.evidence is Evidence.LISTED


async def test_a_server_that_wants_to_be_left_alone_is(shop: Cluster) -> None:
    shop.server.faults.fail(1, 429, retry_after=1, plural="endpointslices")
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
    assert len([call for call in calls(shop) if call.resource == "endpointslices"]) == 2


async def test_a_server_that_lists_by_pages_only_is_read(shop: Cluster) -> None:
    shop.server.faults.without_watchlist = True
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        serve(shop, "10.0.0.1")
        await told.has("10.0.0.1")


async def test_a_token_that_was_rotated_is_read_again(shop: Cluster) -> None:
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        old = shop.token
        shop.token = shop.server.rotate()
        shop.kubeconfig.write_text(shop.kubeconfig.read_text().replace(old, shop.token))
        shop.server.faults.drop_watches(abruptly=True)
        await asyncio.to_thread(serve, shop, "10.0.0.1")
        await told.has("10.0.0.1")


async def test_a_malformed_object_is_refused_alone_and_what_was_known_of_it_stays(
    shop: Cluster,
) -> None:
    broken = slices()
    broken["endpoints"] = [{"addresses": "10.0.0.1"}]
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        shop.server.plant(broken)
        serve(shop, "10.0.0.3", of="store")
        await told.has("10.0.0.3", scope="aks/shop/store")
        await told.until(lambda: "aks/shop" in told.newest and told.newest["aks/shop"].rejected)
        (why,) = told.newest["aks/shop"].rejected
        assert str(why) == (
            "endpointslices/shop/web-1: endpoints[0].addresses: Expected `array | null`, got `str`"
        )
        assert told.at() == ["10.0.0.1", "10.0.0.2"]
        serve(shop, "10.0.0.1")
        await told.has("10.0.0.1")
        await told.until(lambda: not told.newest["aks/shop"].rejected)


async def test_without_the_right_to_see_nodes_it_says_so_and_goes_on(shop: Cluster) -> None:
    shop.server.faults.fail(1000, 403, plural="nodes")
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        await told.until(lambda: "aks/*" in told.newest)
    assert "regions are not known" in str(told.newest["aks/*"].rejected[0])


async def test_a_fault_of_one_namespace_is_not_the_others(shop: Cluster) -> None:
    shop.put(namespace("other"))
    serve(shop, "10.0.0.9", namespace="other")
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        await told.has("10.0.0.9", scope="aks/other/web")
        before = len(told.all)
        shop.server.faults.fail(1000, 503, plural="pods", verb="watch")
        shop.server.faults.drop_watches()
        await told.until(lambda: told.newest["aks/shop/web"].fault)
    assert {each.evidence for each in told.all[before:]} == {Evidence.FAULT}


async def test_a_cluster_that_was_away_for_an_hour_is_asked_seldom_and_comes_back(
    shop: Cluster,
) -> None:
    hour = Hour()
    pace = replace(SOON, first=0.2, longest=30.0, grace=3.0, rest=hour.rest, clock=hour.clock)
    async with telling(provider(shop, pace)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        await asyncio.to_thread(shop.server.stop)
        await told.until(lambda: told.newest["aks/shop/web"].fault)
        while hour.now < 3600:  # noqa: ASYNC110  # time passes in the reflectors
            await asyncio.sleep(0.01)
        attempts = hour.rests
        about = [each for each in told.all if each.scope == "aks/shop/web"]
        assert not [each for each in about if not each.fault and not each.endpoints]
        await asyncio.to_thread(shop.server.start)
        await told.has("10.0.0.1", "10.0.0.2")
    # Six reflectors, half a minute apart, give or take half.
    assert attempts < 6 * 3600 / 15 + 60


class Hour:
    """Time that passes only where somebody rests, for all at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rests = 0
        self._due: list[float] = []

    def clock(self) -> float:
        return self.now

    async def rest(self, seconds: float) -> None:
        self.rests += 1
        until = self.now + seconds
        self._due.append(until)
        try:
            while self.now < until:
                await asyncio.sleep(0.001)
                self.now = max(self.now, min(self._due))
        finally:
            self._due.remove(until)
