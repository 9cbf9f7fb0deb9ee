"""SMI from a cluster: what is told and refused of it, with which rights, and the catalog of it."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from applied import (
    BROKEN,
    CRDS,
    PATIENCE,
    Object,
    crds,
    group,
    prepared,
    route,
    source,
    split,
    telling,
)
from clusters import namespace
from kube.cluster import Cluster, kubeconfig, running
from structlog.testing import capture_logs

from meshfed.catalog.model import ObjectName, Specified, TcpRoute
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.providers.kubernetes.options import Monitored


@pytest.fixture
def shop(cluster: Cluster) -> Cluster:
    return prepared(cluster)


# What is told


async def test_what_kubectl_applies_changes_and_deletes_is_told(shop: Cluster) -> None:
    shop.put(route("a", 1))
    async with telling(source(shop)) as told:
        first = await told.until(lambda t: t.ports == {"a": [1]})
        assert first == told.all[0]
        assert first.policies[0][1] == "tcproutes/shop/a"
        shop.put(route("a", 2))
        shop.put(route("b", 3))
        await told.until(lambda t: t.ports == {"a": [2], "b": [3]})
        shop.delete(route("a"))
        await told.until(lambda t: t.ports == {"b": [3]})


async def test_what_changes_nothing_for_the_mesh_is_not_told(shop: Cluster) -> None:
    shop.put(route("a", 1))
    async with telling(source(shop)) as told:
        await told.until(lambda t: t.ports == {"a": [1]})
        shop.patch(route("a"), {"metadata": {"labels": {"seen": "today"}}})
        shop.put(route("b", 2))
        await told.until(lambda t: t.ports == {"a": [1], "b": [2]})
        assert len(told.all) == 2


async def test_only_the_namespaces_in_the_mesh_are_read(shop: Cluster) -> None:
    shop.put(namespace("secret", labels={}))
    shop.put(route("hidden", 9, home="secret"))
    shop.put(route("a", 1))
    async with telling(source(shop)) as told:
        await told.until(lambda t: t.ports == {"a": [1]})
        shop.put(namespace("secret"))
        both = {"a": [1], "hidden": [9]}
        await told.until(lambda t: t.ports == both and not t.newest.unread)
        shop.put(namespace("secret", labels={}))
        await told.until(lambda t: t.ports == {"a": [1]})


async def test_namespaces_by_name_are_not_even_listed(shop: Cluster) -> None:
    shop.put(route("a", 1))
    async with telling(source(shop, Monitored(names=("shop",)))) as told:
        await told.until(lambda t: t.ports == {"a": [1]})
    asked = {call.resource for call in shop.server.calls if call.verb in ("list", "watch")}
    assert asked == {"traffictargets", "httproutegroups", "tcproutes", "trafficsplits"}


@pytest.mark.parametrize("version", ["v1alpha4", "v1alpha3", "v1alpha2"])
async def test_a_split_may_be_written_in_any_version(shop: Cluster, version: str) -> None:
    shop.put(split(version, a=1, b=3))
    async with telling(source(shop)) as told:
        seen = await told.until(lambda t: t.newest.policies)
    ((policy, _),) = seen.policies
    assert [each.weight for each in policy.backends] == [1, 3]  # type: ignore[union-attr]


async def test_an_older_meshs_crds_are_read_in_the_version_they_have(cluster: Cluster) -> None:
    """As Open Service Mesh's are: a TrafficSplit has only v1alpha2."""
    cluster.put(namespace())
    for crd in crds():
        old = crd["spec"]["versions"][-1]
        crd["spec"]["versions"] = [{**old, "storage": True}]
        cluster.create(crd)
        cluster.established(crd)
    cluster.put(split("v1alpha2", a=1, b=3))
    async with telling(source(cluster)) as told:
        seen = await told.until(lambda t: t.newest.policies)
        assert not seen.doubt
        for crd in crds("TrafficSplit"):  # an upgrade
            cluster.put(crd)
            await asyncio.to_thread(cluster.established, crd)
        cluster.put(split("v1alpha4", a=2))
        seen = await told.until(lambda t: [len(p.backends) for p, _ in t.newest.policies] == [1])


# What is refused


def events(cluster: Cluster, home: str = "shop") -> list[Object]:
    return cluster.request("GET", f"/api/v1/namespaces/{home}/events")["items"]


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not so():  # noqa: ASYNC110  # of another process, in a real cluster
            await asyncio.sleep(0.02)


async def test_what_is_refused_is_told_and_has_an_event_once_for_each_change(
    shop: Cluster,
) -> None:
    thing = shop.put(group("books", BROKEN))
    async with telling(source(shop)) as told:
        seen = await told.until(lambda t: t.newest.rejected)
        ((name, kind, why),) = seen.rejected
        assert (name, kind) == (ObjectName("shop", "books"), "HTTPRouteGroup")
        assert (why.where, why.field) == ("httproutegroups/shop/books", "spec.matches[0].pathRegex")
        await until(lambda: len(events(shop)) == 1)
        (event,) = events(shop)
        assert event["involvedObject"]["uid"] == thing["metadata"]["uid"]
        assert event["message"] == f"{why.field}: {why.why}"
        assert (event["type"], event["reason"]) == ("Warning", "Rejected")
        shop.patch(thing, {"metadata": {"labels": {"seen": "today"}}})
        shop.put(group("books", "(?!still"))
        await until(lambda: len(events(shop)) == 2)
        shop.put(group("books", "/books"))
        mended = await told.until(lambda t: t.newest.policies)
        assert not mended.rejected
    async with telling(source(shop)) as told:  # another leader
        await told.until(lambda t: t.newest.policies)
    assert len(events(shop)) == 2


async def test_kubectl_describe_shows_what_is_wrong(shop: Cluster) -> None:
    shop.put(group("books", BROKEN))
    async with telling(source(shop)) as told:
        await told.until(lambda t: t.newest.rejected)
        await until(lambda: len(events(shop)) == 1)
        shown = await asyncio.to_thread(
            shop.kubectl, "describe", "httproutegroups.specs.smi-spec.io", "-n", "shop", "books"
        )
    assert "Warning  Rejected" in shown
    assert "spec.matches[0].pathRegex: '(?=never' is not an RE2 expression" in shown


async def test_an_event_that_cannot_be_written_is_logged_and_written_later(
    shop: Cluster,
) -> None:
    shop.faults.fail(3, 500, verb="create", plural="events")
    shop.put(route("a", 1))
    shop.put(group("books", BROKEN))
    with capture_logs() as logs:
        async with telling(source(shop)) as told:
            await told.until(lambda t: t.newest.rejected and t.ports == {"a": [1]})
            await until(lambda: len(events(shop)) == 1)
    failed = [each for each in logs if each["event"] == "event not written"]
    assert [each["object"] for each in failed] == ["HTTPRouteGroup shop/books"]


async def test_an_event_that_may_not_be_written_is_logged_and_nothing_is_lost(
    shop: Cluster,
) -> None:
    shop.faults.fail(1, 403, verb="create", plural="events")
    shop.put(group("books", BROKEN))
    with capture_logs() as logs:
        async with telling(source(shop)) as told:
            await told.until(lambda t: t.newest.rejected)
            await until(lambda: any(each["event"] == "event not written" for each in logs))
            shop.put(route("a", 1))
            await told.until(lambda t: t.newest.rejected and t.ports == {"a": [1]})
    assert events(shop) == []


# What it may


async def test_the_rights_that_the_docs_ask_for_are_enough_and_all_are_used(
    shop: Cluster, tmp_path: Path
) -> None:
    shop.put(route("a", 1))
    shop.put(group("books", BROKEN))
    roles = [role for role in written_roles() if role["metadata"]["name"] != "meshfed-endpoints"]
    limited = await asyncio.to_thread(bound, shop, roles, tmp_path / "kubeconfig.yaml")
    shop.server.forget_calls()
    for pages in (False, True):
        shop.faults.without_watchlist = pages
        async with telling(source(limited)) as told:
            seen = await told.until(lambda t: t.newest.rejected and t.ports == {"a": [1]})
            assert not seen.doubt
            await until(lambda: any(each.resource == "events" for each in shop.server.calls))
    used = {(call.group, call.resource, call.verb) for call in shop.server.calls}
    asked = {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used == asked - {("", "nodes", "list"), ("", "nodes", "watch")}


def written_roles() -> list[Object]:
    _, *blocks = (CRDS.parents[1] / "docs/kubernetes.md").read_text().split("```yaml\n")
    read = [yaml.safe_load_all(block.partition("```")[0]) for block in blocks if "rbac" in block]
    return [role for roles in read for role in roles]


def bound(cluster: Cluster, roles: list[Object], file: Path) -> Cluster:
    """The cluster as an account with these roles sees it."""
    account = {"name": "meshfed", "namespace": "default"}
    cluster.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    for role in roles:
        cluster.put(role)
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
        cluster.put({
            "apiVersion": role["apiVersion"],
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role["metadata"]["name"]},
            "roleRef": {**reference, "name": role["metadata"]["name"]},
            "subjects": [{"kind": "ServiceAccount", **account}],
        })  # fmt: skip
    path = "/api/v1/namespaces/default/serviceaccounts/meshfed/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster.request("POST", path, request)["status"]["token"]
    limited = replace(cluster, token=token, kubeconfig=file)
    file.write_text(json.dumps(kubeconfig(limited)))
    return limited


# In the catalog


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path / 'meshfed.db'}"
    migrate(made)
    return made


def policies(url: str) -> list[tuple[object, ...]]:
    answer = query(url, "select source, name, state, reason from mesh_policies order by 1, 2, 3")
    return [tuple(row) for row in answer.rows]


async def test_a_part_that_was_not_read_keeps_what_the_catalog_has(
    cluster: Cluster, url: str
) -> None:
    """After a restart of ours, with a kind that is away."""
    cluster.put(namespace())
    for crd in crds():
        cluster.create(crd)
        cluster.established(crd)
    cluster.put(route("a", 1))
    cluster.put(group("books", "/books"))
    cluster.put(group("wrong", BROKEN))
    with closing(Catalog(url)) as catalog:
        async with telling(source(cluster)) as told:
            await catalog.specify(await told.until(lambda t: len(t.newest.policies) == 2))
        before = policies(url)
        cluster.faults.fail(10**6, 403, plural="httproutegroups")
        cluster.put(route("a", 2))
        async with telling(source(cluster)) as told:
            seen = await told.until(lambda t: t.ports == {"a": [2]})
            assert seen.unread == {("HTTPRouteGroup", "shop")}
            await catalog.specify(seen)
            assert policies(url) == before
            assert query(url, "select state, doubt from mesh_providers").rows == (
                ("doubted", "httproutegroups in shop: 403: the tests say 403"),
            )
            cluster.faults.failing.clear()
            cluster.put(group("wrong", "/right"))
            await catalog.specify(await told.until(lambda t: len(t.newest.policies) == 3))
    assert [row[2] for row in policies(url)] == ["accepted"] * 3


async def test_of_one_object_in_files_and_two_clusters_the_first_cluster_counts(
    shop: Cluster, url: str, tmp_path: Path
) -> None:
    shop.put(route("a", 1))
    first = ("kubernetes:tests", "kubernetes:later")
    with closing(Catalog(url)) as catalog:
        from_file = Specified("files:policy", ((TcpRoute(ObjectName("shop", "a")), "a.yaml:1"),))
        await catalog.specify(from_file, first)
        async with telling(source(shop)) as told:
            seen = await told.until(lambda t: t.ports == {"a": [1]})
        await catalog.specify(replace(seen, source="kubernetes:later"), first)
        await catalog.specify(seen, first)
        why = "kubernetes:tests has the same object and comes first"
        assert policies(url) == [
            ("files:policy", "a", "shadowed", why),
            ("kubernetes:later", "a", "shadowed", why),
            ("kubernetes:tests", "a", "accepted", ""),
        ]
        await catalog.specify(replace(seen, policies=()), first)
        assert [row[2] for row in policies(url)] == ["shadowed", "accepted"]
        await catalog.specify(Specified("kubernetes:later"), first)
        assert [row[2] for row in policies(url)] == ["accepted"]


async def test_two_clusters_are_told_apart(shop: Cluster, tmp_path: Path) -> None:
    shop.put(route("a", 1))
    with running(tmp_path / "other", "other") as other:
        other.put(namespace())
        for crd in crds():
            other.create(crd)
        other.put(route("a", 2))
        async with telling(source(shop)) as told, telling(source(other)) as told_other:
            await told.until(lambda t: t.ports == {"a": [1]})
            await told_other.until(lambda t: t.ports == {"a": [2]})
