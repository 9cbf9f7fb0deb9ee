"""The life of an installation: in, up, back and out again, against an API server."""

import io
import tarfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import yaml
from charted import archive
from installing import HOOK, Run, everything, run
from kube.cluster import Cluster
from kube.given import configmap, namespace, thing
from waiting import until

from meshfed.demo.kube.kubeconfig import data
from meshfed.federation.install import release
from meshfed.federation.install.chart import FOLDER, RELEASE, Object
from meshfed.providers.kubernetes.access import Line
from meshfed.providers.kubernetes.messages import Answer

__all__ = ["run"]

HELM = release.helm  # which runs what is on the PATH
CONFIGURATION = configmap(RELEASE, RELEASE)
DEPLOYMENT = thing("apps/v1", "Deployment", RELEASE, RELEASE)
VOLUME = thing("v1", "PersistentVolumeClaim", RELEASE, RELEASE)
SPLITS = yaml.safe_load((FOLDER / "definitions" / "trafficsplits.yaml").read_text())
SPLIT = thing(
    "split.smi-spec.io/v1alpha4", "TrafficSplit", "a", "default",
    spec={"service": "a", "backends": [{"service": "b", "weight": 1}]},
)  # fmt: skip


def changed(before: dict[str, Object], after: dict[str, Object]) -> set[str]:
    """What was written between two looks, beside what Helm and the API server write themselves."""
    paths = {each for each in before | after if before.get(each) != after.get(each)}
    own = ("/secrets/sh.helm.release", "/endpointslices/kubernetes")
    return {path for path in paths if not any(each in path for each in own)}


def finished(cluster: Cluster) -> None:
    """As controllers would: volumes that nobody uses go, and namespaces with nothing in them."""
    for each in (VOLUME, namespace(RELEASE)):
        if cluster.has(each) and "deletionTimestamp" in cluster.get(each)["metadata"]:
            if each is VOLUME:
                cluster.patch(each, {"metadata": {"finalizers": None}})
            else:
                empty = {**cluster.get(each), "spec": {"finalizers": []}}
                cluster.request("PUT", f"{cluster.path(each)}/finalize", empty)


def test_in_and_out_again_leaves_nothing(cluster: Cluster, run: Run) -> None:
    before = everything(cluster)
    assert run("install") == (
        0,
        [
            "namespace meshfed made, for pods of the level `restricted`",
            "installed: kubectl -n meshfed rollout status deployment/meshfed",
        ],
    )
    assert cluster.get(DEPLOYMENT)["spec"]["replicas"] == 1
    assert len(everything(cluster)) == len(before) + 15
    assert run("uninstall") == (
        0, ["namespace meshfed deleted, which install had made", "uninstalled"],
    )  # fmt: skip
    finished(cluster)
    until(lambda: changed(before, everything(cluster)) == set())
    assert run("uninstall") == (1, ["meshfed: nothing of meshfed is installed there"])


def test_the_webhook_goes_before_who_answers_it(cluster: Cluster, run: Run) -> None:
    run("install")
    cluster.server.forget_calls()
    run("uninstall")
    deleted = [call.resource for call in cluster.server.calls if call.verb == "delete"]
    assert deleted[0] == "mutatingwebhookconfigurations"
    assert "deployments" in deleted


def test_without_helm_or_of_another_namespace_nothing_goes(
    cluster: Cluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install")
    before = everything(cluster)
    for asked in ((), ("--crds",)):
        assert run("uninstall", "-n", "meshfde", *asked) == (
            1, ["meshfde: nothing of meshfed is installed there"],
        )  # fmt: skip
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(release, "helm", HELM)
    code, said = run("uninstall", "--crds")
    assert (code, len(said)) == (1, 1)
    assert said[0].startswith("there is no `helm` here")
    assert everything(cluster) == before


def test_a_webhook_of_the_same_name_is_left_to_whom_it_belongs(cluster: Cluster, run: Run) -> None:
    run("install", "--set", "injector.enabled=false", "-n", "own")
    cluster.create(HOOK)
    assert run("uninstall", "-n", "own")[0] == 0
    assert cluster.has(HOOK)


def test_what_an_uninstall_left_goes_with_the_next_one(cluster: Cluster, run: Run) -> None:
    run("install")
    cluster.established(SPLITS)
    cluster.create(SPLIT)
    run("uninstall")
    assert run("uninstall", "--crds")[:1] == (0,)
    assert _definitions(cluster) == set()


def test_an_upgrade_to_the_same_changes_nothing_however_often(cluster: Cluster, run: Run) -> None:
    run("install", "--set", "settings.mesh.trust_domain=shop.example")
    before = everything(cluster)
    for _ in range(2):
        assert run("upgrade") == (0, ["upgraded: nothing is different"])
    assert changed(before, everything(cluster)) == set()


def test_an_upgrade_changes_what_is_said_and_rolls_back(cluster: Cluster, run: Run) -> None:
    run("install", "--set", "settings.mesh.trust_domain=shop.example")
    before, first = everything(cluster), cluster.get(CONFIGURATION)["data"]
    assert run("upgrade", "--set", "settings.mesh.permissive=true") == (0, ["upgraded"])
    assert changed(before, everything(cluster)) == {cluster.path(CONFIGURATION)}
    assert yaml.safe_load(cluster.get(CONFIGURATION)["data"]["meshfed.yaml"])["mesh"] == {
        "trust_domain": "shop.example",
        "permissive": True,
    }
    assert release.helm(["rollback", RELEASE, "--namespace", RELEASE]).code == 0
    assert cluster.get(CONFIGURATION)["data"] == first


def test_the_certificate_that_serve_wrote_outlives_upgrades(cluster: Cluster, run: Run) -> None:
    run("install")
    hooks = cluster.get(HOOK)["webhooks"]
    bundle = data(cluster.authority)
    patch = [
        {"op": "add", "path": f"/webhooks/{n}/clientConfig/caBundle", "value": bundle}
        for n in range(len(hooks))
    ]
    path = cluster.path(HOOK)
    cluster.request("PATCH", f"{path}?fieldManager=meshfed", patch, "application/json-patch+json")
    assert run("upgrade", "--set", "injector.failurePolicy=Ignore")[0] == 0
    after = cluster.get(HOOK)["webhooks"]
    assert [each["clientConfig"]["caBundle"] for each in after] == [bundle] * len(hooks)
    assert {each["failurePolicy"] for each in after} == {"Ignore"}


def test_an_upgrade_brings_newer_definitions(cluster: Cluster, run: Run, tmp_path: Path) -> None:
    older = tmp_path / "older"
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        tar.extractall(older, filter="data")
    file = older / RELEASE / "definitions" / "trafficsplits.yaml"
    said = yaml.safe_load(file.read_text())
    for version in said["spec"]["versions"]:
        version.pop("additionalPrinterColumns")
    file.write_text(yaml.safe_dump(said))
    cluster.create(namespace(RELEASE))
    old = ["install", RELEASE, str(older / RELEASE), "--namespace", RELEASE]
    assert release.helm(old).code == 0
    cluster.established(SPLITS)
    cluster.create(SPLIT)
    assert run("upgrade")[0] == 0
    versions = cluster.get(SPLITS)["spec"]["versions"]
    assert all(each["additionalPrinterColumns"] for each in versions)
    assert cluster.get(SPLIT)["spec"] == SPLIT["spec"]


def test_definitions_with_objects_stay_until_they_are_asked_away(
    cluster: Cluster, run: Run
) -> None:
    run("install")
    cluster.established(SPLITS)
    for name in ("a", "b", "c"):
        cluster.create({**SPLIT, "metadata": {**SPLIT["metadata"], "name": name}})
    _, said = run("uninstall")
    assert (
        "kept: trafficsplits.split.smi-spec.io, of which there are 3; --crds deletes them" in said
    )
    finished(cluster)
    assert cluster.has(SPLIT)
    assert _definitions(cluster) == {"trafficsplits.split.smi-spec.io"}
    assert run("install")[0] == 0, "the same release takes them up again"
    assert len(_definitions(cluster)) == 4
    assert run("uninstall", "--crds")[0] == 0
    cluster.gone(SPLIT)
    assert _definitions(cluster) == set()


def _definitions(cluster: Cluster) -> set[str]:
    root = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    return {
        each["metadata"]["name"]
        for each in cluster.request("GET", root)["items"]
        if "deletionTimestamp" not in each["metadata"]
    }


def test_a_definition_that_is_not_served_yet_is_waited_for(cluster: Cluster, run: Run) -> None:
    run("install")
    cluster.established(SPLITS)
    cluster.create(SPLIT)
    cluster.faults.fail(2, 429, verb="list", plural="trafficsplits")
    assert "kept: trafficsplits" in run("uninstall")[1][0]


def test_of_many_objects_one_is_read(
    cluster: Cluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install")
    cluster.established(SPLITS)
    asked, get = {}, Line.get

    def noted(api: Line, path: str, query: dict[str, str]) -> AbstractAsyncContextManager[Answer]:
        asked[path.rpartition("/")[2]] = query
        return get(api, path, query)

    monkeypatch.setattr(Line, "get", noted)
    run("uninstall")
    assert asked["trafficsplits"] == {"limit": "1"}


def test_a_definition_of_which_no_version_is_served_is_kept(cluster: Cluster, run: Run) -> None:
    run("install")
    cluster.established(SPLITS)
    versions = [{**each, "served": False} for each in cluster.get(SPLITS)["spec"]["versions"]]
    cluster.patch(SPLITS, {"spec": {"versions": versions}})
    code, said = run("uninstall")
    assert code == 0
    assert (
        "kept: trafficsplits.split.smi-spec.io, of which no version is served; --crds deletes them"
        in said
    )
    assert _definitions(cluster) == {"trafficsplits.split.smi-spec.io"}


def test_definitions_that_somebody_else_brought_are_left_alone(cluster: Cluster, run: Run) -> None:
    cluster.create(SPLITS)
    cluster.established(SPLITS)
    before = cluster.get(SPLITS)
    assert run("install")[0] == 0
    assert run("upgrade")[0] == 0
    assert run("uninstall", "--crds")[0] == 0
    assert cluster.get(SPLITS) == before


def test_a_namespace_that_was_there_stays_with_what_is_in_it(cluster: Cluster, run: Run) -> None:
    cluster.create(namespace("own"))
    cluster.create(configmap("mine", "own"))
    assert run("install", "-n", "own") == (
        0, ["installed: kubectl -n own rollout status deployment/meshfed"],
    )  # fmt: skip
    assert run("uninstall", "-n", "own") == (0, ["uninstalled"])
    assert cluster.has(configmap("mine", "own"))


def test_who_is_still_labelled_for_the_mesh_is_named(cluster: Cluster, run: Run) -> None:
    run("install")
    for name in ("shop", "cafe"):
        cluster.create(namespace(name))
    run("namespace", "add", "shop", "cafe")
    assert "still labelled for a mesh: cafe, shop: restart their pods" in run("uninstall")[1]


def test_values_come_from_a_file_and_from_words_over_it(
    cluster: Cluster, run: Run, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("settings: {mesh: {trust_domain: shop.example, permissive: true}}\n")
    assert run("install", "-f", str(values), "--set", "settings.mesh.permissive=false")[0] == 0
    made = yaml.safe_load(cluster.get(CONFIGURATION)["data"]["meshfed.yaml"])
    assert made["mesh"] == {"trust_domain": "shop.example", "permissive": False}
