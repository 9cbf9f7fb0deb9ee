"""`meshfed namespace`: labels of namespaces, by kubectl's rules of finding a cluster."""

import json
from collections.abc import Callable

import pytest
from clusters import namespace
from kube.cluster import Cluster

from meshfed.federation.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["namespace", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def labels(cluster: Cluster, name: str = "shop") -> dict[str, str]:
    written = cluster.get(namespace(name))["metadata"]["labels"]
    return {key: value for key, value in written.items() if not key.startswith("kubernetes.io/")}


def test_a_namespace_is_put_into_the_mesh_and_out_again(cluster: Cluster, run: Run) -> None:
    cluster.put(namespace(labels={"team": "a"}))
    assert run("add", "shop") == (0, "", "shop: in the mesh meshfed\n")
    meshed = {"meshfed.io/mesh": "meshfed", "meshfed.io/inject": "enabled"}
    assert labels(cluster) == {"team": "a", **meshed}
    assert run("remove", "shop") == (0, "", "shop: in no mesh\n")
    assert labels(cluster) == {"team": "a"}


def test_what_is_in_a_mesh_is_listed_with_its_label(cluster: Cluster, run: Run) -> None:
    cluster.put(namespace(labels={}))
    cluster.put(namespace("old", labels={"openservicemesh.io/monitored-by": "osm"}))
    run("add", "shop", "--mesh", "shop")
    code, out, _ = run("list", "-o", "json")
    assert code == 0
    assert json.loads(out) == [
        {"namespace": "old", "mesh": "osm", "label": "openservicemesh.io/monitored-by"},
        {"namespace": "shop", "mesh": "shop", "label": "meshfed.io/mesh"},
    ]


def test_a_namespace_of_another_mesh_is_not_taken(cluster: Cluster, run: Run) -> None:
    cluster.put(namespace(labels={"meshfed.io/mesh": "other"}))
    code, _, err = run("add", "shop")
    assert code == 1
    assert err.startswith("shop: is in the mesh other; take it out of that first")
    assert labels(cluster) == {"meshfed.io/mesh": "other"}


def test_of_several_names_none_is_touched_if_one_is_wrong(cluster: Cluster, run: Run) -> None:
    cluster.put(namespace(labels={}))
    assert run("add", "shop", "shpo") == (1, "", "no namespace shpo: did you mean shop?\n")
    assert labels(cluster) == {}


def test_a_cluster_that_is_away_is_one_line(cluster: Cluster, run: Run) -> None:
    cluster.server.stop()
    code, _, err = run("list")
    assert (code, err.count("\n")) == (1, 1)


def test_a_refusal_is_one_line(cluster: Cluster, run: Run) -> None:
    cluster.server.faults.fail(1, 403)
    assert run("list") == (1, "", "403: the tests say 403\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--kubeconfig", "none.yaml"), "none.yaml: No such file or directory"),
        (("--context", "none"), "none"),
    ],
)
def test_no_such_kubeconfig_or_context_is_one_line(
    run: Run, arguments: tuple[str, ...], why: str
) -> None:
    code, _, err = run("list", *arguments)
    assert code == 1
    assert why in err
    assert err.count("\n") == 1
