"""What the provider `kubernetes` tells of a cluster, and how it is reached."""

import asyncio
from pathlib import Path

import pytest
import yaml
from clusters import OURS, SOON, endpoint, namespace, pod, provider, serve, service, slices
from kube.cluster import Cluster
from observing import calls, telling

from meshfed.catalog.model import Evidence, Observation
from meshfed.providers.kubernetes.provider import KubernetesProvider


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
