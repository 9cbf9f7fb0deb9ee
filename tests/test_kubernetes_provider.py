"""What the provider `kubernetes` tells of a cluster, and what it survives."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from clusters import OURS, SOON, endpoint, namespace, pod, provider, serve, service, slices
from kube.cluster import Cluster

from meshfed.catalog.model import Evidence, Observation
from meshfed.demo.kube.http import Call
from meshfed.providers.kubernetes.provider import KubernetesProvider

PATIENCE = 10.0


def calls(cluster: Cluster) -> list[Call]:
    """What the provider asked: the tests themselves neither list nor watch."""
    return [call for call in cluster.server.api.calls if call.verb in ("list", "watch")]


class Told:
    """All that a provider told, the newest of each scope."""

    def __init__(self, provider: KubernetesProvider) -> None:
        self.provider = provider
        self.newest: dict[str, Observation] = {}
        self.all: list[Observation] = []
        self._moved = asyncio.Event()

    async def run(self) -> None:
        async for seen in self.provider.observe():
            self.newest[seen.scope] = seen
            self.all.append(seen)
            self._moved.set()

    def at(self, scope: str = "aks/shop/web") -> list[str]:
        seen = self.newest.get(scope)
        return sorted(each.address for each in seen.endpoints) if seen else []

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                self._moved.clear()
                await self._moved.wait()

    async def has(self, *addresses: str, scope: str = "aks/shop/web") -> Observation:
        await self.until(lambda: scope in self.newest and self.at(scope) == sorted(addresses))
        return self.newest[scope]


@asynccontextmanager
async def telling(provider: KubernetesProvider) -> AsyncIterator[Told]:
    told = Told(provider)
    running = asyncio.create_task(told.run())
    try:
        yield told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def shop(cluster: Cluster) -> Cluster:
    """A monitored namespace with a service of two pods."""
    await asyncio.to_thread(cluster.put, namespace())
    await asyncio.to_thread(serve, cluster, "10.0.0.1", "10.0.0.2")
    return cluster


# What is told


async def test_each_service_is_a_scope(shop: Cluster) -> None:
    serve(shop, "10.0.0.3", of="store")
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        seen = await told.has("10.0.0.3", scope="aks/shop/store")
    assert seen.evidence is Evidence.LISTED


async def test_what_happens_is_stated_and_touches_its_service_alone(shop: Cluster) -> None:
    serve(shop, "10.0.0.3", of="store")
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.3", scope="aks/shop/store")
        await told.has("10.0.0.1", "10.0.0.2")
        before = len(told.all)
        shop.delete(slices())
        seen = await told.has()
        assert seen.evidence is Evidence.STATED
        assert [each.scope for each in told.all[before:] if each.endpoints] == []


async def test_what_changes_nothing_for_the_mesh_is_not_told(shop: Cluster) -> None:
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        before = len(told.all)
        shop.patch(service(), {"metadata": {"annotations": {"seen": "today"}}})
        serve(shop, "10.0.0.3", of="store")
        await told.has("10.0.0.3", scope="aks/shop/store")
        assert "aks/shop/web" not in {each.scope for each in told.all[before:]}


async def test_a_service_that_is_deleted_is_gone(shop: Cluster) -> None:
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        shop.delete(service())
        seen = await told.has()
    assert not seen.services
    assert seen.evidence is Evidence.STATED


async def test_a_pod_is_a_workload_before_it_answers_and_stays_one(shop: Cluster) -> None:
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        starting = shop.put(pod("web-c", "10.0.0.3"))
        await told.until(lambda: "aks/shop" in told.newest)
        (workload,) = told.newest["aks/shop"].workloads
        shop.put(slices(endpoint("10.0.0.3", starting)))
        seen = await told.has("10.0.0.3")
        assert workload.id in {each.id for each in seen.workloads}
        assert workload.id in {each.id for each in told.newest["aks/shop"].workloads}  # a while


# Which namespaces


async def test_other_namespaces_are_never_read(shop: Cluster) -> None:
    shop.put(namespace("secret", labels={}))
    serve(shop, "10.9.9.9", of="hidden", namespace="secret")
    async with telling(provider(shop)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
    asked = calls(shop)
    assert {call.namespace for call in asked} == {"", "shop"}
    assert {call.resource for call in asked if not call.namespace} == {"namespaces", "nodes"}
    assert not [each for each in told.all if "secret" in each.scope]


@pytest.mark.parametrize(
    "labels", [OURS, {"openservicemesh.io/monitored-by": "osm"}], ids=["ours", "OSM's"]
)
async def test_a_label_lets_a_namespace_in_and_out(
    cluster: Cluster, labels: dict[str, str]
) -> None:
    cluster.put(namespace(labels={}))
    serve(cluster, "10.0.0.1")
    async with telling(provider(cluster)) as told:
        await told.until(lambda: told.all)  # that there is nothing
        cluster.patch(namespace(), {"metadata": {"labels": labels}})
        await told.has("10.0.0.1")
        cluster.patch(namespace(), {"metadata": {"labels": dict.fromkeys(labels)}})
        seen = await told.has()
    assert seen.evidence is Evidence.STATED


async def test_namespaces_by_name_need_no_right_to_see_others(shop: Cluster) -> None:
    async with telling(provider(shop, namespaces=["shop"])) as told:
        await told.has("10.0.0.1", "10.0.0.2")
    assert not [call for call in calls(shop) if call.resource == "namespaces"]


async def test_only_the_label_that_is_asked_for_counts(shop: Cluster) -> None:
    shop.put(namespace("other", labels={"meshfed.io/mesh": "other"}))
    serve(shop, "10.0.0.9", namespace="other")
    chosen = {"label": "meshfed.io/mesh=shop"}
    async with telling(provider(shop, namespaces=chosen)) as told:
        await told.has("10.0.0.1", "10.0.0.2")
        assert {each.scope for each in told.all} == {"aks/shop/web"}


async def test_the_rights_that_the_docs_ask_for_are_those_that_are_used(shop: Cluster) -> None:
    """Lists are for servers that cannot list by a watch."""
    for pages in (False, True):
        shop.server.faults.without_watchlist = pages
        async with telling(provider(shop)) as told:
            await told.has("10.0.0.1", "10.0.0.2")
    used = {(call.group, call.resource, call.verb) for call in calls(shop)}
    written = (Path(__file__).parents[1] / "docs" / "kubernetes.md").read_text()
    _, first, more = written.partition("apiVersion: rbac")
    roles = yaml.safe_load_all(first + more.partition("```")[0])
    asked = {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used == asked


# What it survives


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


# Looking again


async def test_a_scope_that_is_asked_for_is_listed_again(shop: Cluster) -> None:
    async with telling(provider(shop)) as told:
        before = await told.has("10.0.0.1", "10.0.0.2")
        asked = len(told.all)
        await told.provider.refresh("aks/shop/web")
        await told.until(lambda: len(told.all) > asked)
    assert told.all[-1] == before


async def test_a_scope_of_which_nothing_is_left_is_told_as_empty(shop: Cluster) -> None:
    gone = provider(shop)
    await gone.refresh("aks/shop/long-gone")
    await gone.refresh("aks/unmonitored/web")
    async with telling(gone) as told:
        await told.until(lambda: {"aks/shop/long-gone", "aks/unmonitored/web"} <= set(told.newest))
    for scope in ("aks/shop/long-gone", "aks/unmonitored/web"):
        assert told.newest[scope] == Observation(scope)


# How it is reached


async def test_a_kubeconfig_in_a_secret_reaches_a_cluster_through_another(shop: Cluster) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "remote", "namespace": "default"},
        "stringData": {"kubeconfig": shop.kubeconfig.read_text()},
    }
    shop.put(secret)
    async with telling(provider(shop, secret="default/remote")) as told:
        await told.has("10.0.0.1", "10.0.0.2")


async def test_a_kubeconfig_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    options = {"kubeconfig": "none.yaml", "context": "a", "namespaces": ["shop"]}
    made = KubernetesProvider(name="aks", options=options, base=tmp_path, pace=SOON)
    async with telling(made) as told:
        await told.until(lambda: told.all)
    assert told.all[0].fault == f"services: {tmp_path}/none.yaml: No such file or directory"


async def test_a_context_that_is_none_is_a_fault(shop: Cluster) -> None:
    made = provider(shop, namespaces=["shop"])
    written = yaml.safe_load(shop.kubeconfig.read_text())
    written["contexts"] = written["contexts"][:0]
    shop.kubeconfig.write_text(yaml.safe_dump(written))
    async with telling(made) as told:
        await told.until(lambda: told.all)
    assert told.all[0].fault == (
        f"services: context: 'tests' is none of {shop.kubeconfig}; there are none"
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param({}, "context: missing: ", id="no way to it"),
        pytest.param({"contxt": "a"}, "contxt: unknown key; did you mean context", id="a slip"),
        pytest.param({"context": 7}, "context: 7 is not a name", id="a number"),
        pytest.param({"in_cluster": "yes"}, "in_cluster: 'yes' is neither", id="no flag"),
        pytest.param({"in_cluster": True, "context": "a"}, "in_cluster: this or context", id="two"),
        pytest.param({"secret": "remote"}, "secret: 'remote' is not <namespace>/<name>", id="half"),
        pytest.param({"context": "a", "network": "a b"}, "network: 'a b' is no name", id="network"),
        pytest.param({"context": "a", "namespaces": "shop"}, "namespaces: 'shop' is", id="a word"),
        pytest.param({"context": "a", "namespaces": []}, "namespaces: empty", id="no names"),
        pytest.param({"context": "a", "namespaces": ["A"]}, "namespaces: 'A' is no", id="a name"),
        pytest.param(
            {"context": "a", "namespaces": {"label": "a=b c"}}, "namespaces.label: ", id="label"
        ),
        pytest.param({"context": "a", "namespaces": {"lable": "a"}}, "namespaces: ", id="a key"),
    ],
)
def test_wrong_options_are_refused_by_key(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why.replace('(', '[(]')}"):
        KubernetesProvider(name="aks", options=options, base=Path())
