"""`meshfed inject`: manifests of every kind, and mistakes with their lines."""

from datetime import UTC, datetime

import pytest
import yaml

from meshfed.federation.certificates.authority import root
from meshfed.federation.certificates.keypair import pem
from meshfed.federation.inject.decide import PROXY

from .conftest import Run

POD = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web"}]}}
KINDS = {
    "ReplicationController": ("v1", {"template": POD}),
    "Deployment": ("apps/v1", {"template": POD}),
    "StatefulSet": ("apps/v1", {"template": POD}),
    "DaemonSet": ("apps/v1", {"template": POD}),
    "ReplicaSet": ("apps/v1", {"template": POD}),
    "Job": ("batch/v1", {"template": POD}),
    "CronJob": ("batch/v1", {"jobTemplate": {"spec": {"template": POD}}}),
}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {}}


def workload(kind: str) -> dict[str, object]:
    version, spec = KINDS[kind]
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec}


@pytest.fixture
def inject(meshfed: Run, tmp_path):
    (tmp_path / "bundle.pem").write_text(pem((root("mesh.local", datetime.now(UTC))[0],)))

    def run(*things: object, text: str = ""):
        (tmp_path / "shop.yaml").write_text(text or yaml.safe_dump_all(things))
        return meshfed("inject", "-f", "shop.yaml", "--roots", "bundle.pem")

    return run


def sidecars(text: str) -> int:
    return text.count(f"name: {PROXY}\n")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_with_pods_is_injected(inject, kind):
    ended = inject(workload(kind))
    assert (ended.code, ended.err) == (0, f"{kind} web: injected\n")
    assert sidecars(ended.out) == 1
    [made] = yaml.safe_load_all(ended.out)
    pod = made["spec"].get("template") or made["spec"]["jobTemplate"]["spec"]["template"]
    assert pod["metadata"]["labels"] == {"app": "web", "meshfed.io/injected": "true"}
    assert "-----BEGIN CERTIFICATE-----" in ended.out


def test_a_list_and_what_has_no_pods_come_out_in_their_order(inject):
    listed = {"apiVersion": "v1", "kind": "List", "items": [SERVICE, workload("Deployment")]}
    pod = {"apiVersion": "v1", "kind": "Pod", **POD, "metadata": {"generateName": "p-"}}
    ended = inject(SERVICE, listed, pod)
    assert ended.err == "Deployment web: injected\nPod p-: injected\n"
    first, second, third = yaml.safe_load_all(ended.out)
    assert first == second["items"][0] == SERVICE
    assert third["spec"]["initContainers"][1]["name"] == PROXY


def test_injected_twice_is_injected_once(inject, meshfed):
    once = inject(workload("Deployment"))
    again = meshfed("inject", "-f", "-", "--roots", "bundle.pem", stdin=once.out)
    assert again.out == once.out
    assert again.err == "Deployment web: left as it is: it has its sidecar already\n"


def test_the_configuration_says_how(inject, tmp_path):
    said = "injection: {sidecar: classic, interception: explicit, image: envoy:9}\n"
    (tmp_path / "meshfed.yaml").write_text(said)
    [made] = yaml.safe_load_all(inject(workload("Deployment")).out)
    spec = made["spec"]["template"]["spec"]
    assert [each["name"] for each in spec["containers"]] == [PROXY, "web"]
    assert spec["containers"][0]["image"] == "envoy:9"
    assert "initContainers" not in spec


def test_the_catalog_s_roots_are_taken_where_none_are_named(inject, meshfed, tmp_path):
    inject(workload("Deployment"))
    ended = meshfed("inject", "-f", "shop.yaml")
    assert (ended.code, ended.out) == (1, "")
    assert "there is no catalog here" in ended.err
    assert meshfed("migrate").code == 0
    ended = meshfed("inject", "-f", "shop.yaml")
    assert ended.code == 0
    assert "-----BEGIN CERTIFICATE-----" in ended.out


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("", "shop.yaml: there is no object in it", id="nothing"),
        pytest.param("a: [}", "shop.yaml:1: not YAML: ", id="no YAML"),
        pytest.param("- 1", "shop.yaml:1: must be a mapping, not a list", id="a list"),
        pytest.param("a: 1", "shop.yaml:1: kind: missing: is this", id="no kind"),
        pytest.param("kind: Pod", "shop.yaml:1: apiVersion: missing", id="no version"),
        pytest.param(
            "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template: [1]\n",
            "shop.yaml:4: spec.template: must be a mapping, not a list",
            id="a template that is none",
        ),
        pytest.param(
            "apiVersion: apps/v1\nkind: Deployment\nspec: {}\n",
            "shop.yaml:3: spec.template.spec: missing",
            id="no template",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
            "  - name: web\n    readinessProbe:\n      httpGet: {port: http}\n",
            "shop.yaml:7: spec.containers[0].readinessProbe.httpGet.port: 'http' is no port of"
            " this container: none has a name",
            id="a port that is none",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n"
            "    meshfed.io/exclude-outbound-ports: 5432\nspec: {containers: [{name: a}]}\n",
            "shop.yaml:5: metadata.annotations[meshfed.io/exclude-outbound-ports]: must be text",
            id="an annotation that is no text",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_printed(inject, text, line):
    ended = inject(text=text or "\n")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(line)
    assert ended.err.count("\n") == 1


def test_each_mistake_has_its_line(inject):
    ended = inject(text="kind: Pod\n---\napiVersion: v1\nkind: Service\n---\napiVersion: v1\n")
    assert [line.split(":")[:3] for line in ended.lines] == [
        ["shop.yaml", "1", " apiVersion"],
        ["shop.yaml", "6", " kind"],
    ]


def test_files_that_are_not_what_they_should_be_are_named(inject, meshfed, tmp_path):
    inject(SERVICE)
    (tmp_path / "no.pem").write_text("no")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    for arguments, line in (
        (("-f", "shop.yaml", "--roots", "no.pem"), "no.pem: no certificates in PEM"),
        (("-f", "none.yaml", "--roots", "bundle.pem"), "none.yaml: No such file or directory"),
        (("-f", "bytes.yaml", "--roots", "bundle.pem"), "bytes.yaml: not UTF-8 text"),
    ):
        ended = meshfed("inject", *arguments)
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert ended.err.startswith(line)
