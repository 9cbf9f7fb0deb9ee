"""`meshfed namespace`: labels of namespaces, by kubectl's rules of finding a cluster."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from clusters import namespace
from kube.cluster import Cluster, kubeconfig

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


@contextmanager
def answering(text: str) -> Iterator[str]:
    """A server that says this, whatever it is asked; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing: what the command says is looked at."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param('{"kind": "Page"}', "Object missing required field `items`", id="a page"),
        pytest.param('{"items": [{}]}', "`metadata` - at `$.items[0]`", id="other items"),
        pytest.param("<html>", "JSON is malformed", id="no JSON"),
    ],
)
def test_a_server_that_is_no_kubernetes_is_one_line(
    cluster: Cluster, run: Run, tmp_path: Path, text: str, why: str
) -> None:
    with answering(text) as url:
        other = {
            **kubeconfig(cluster),
            "clusters": [{"name": cluster.name, "cluster": {"server": url}}],
        }
        (tmp_path / "other.yaml").write_text(json.dumps(other))
        code, _, err = run("list", "--kubeconfig", str(tmp_path / "other.yaml"))
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("the cluster does not answer as Kubernetes does: ")
    assert why in err


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
