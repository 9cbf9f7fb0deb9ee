"""The chart: what it makes of values is valid and fits together; other values are refused."""

import json
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from charted import (
    EVERYTHING,
    JOIN,
    MATRIX,
    POSTGRES,
    Values,
    chart,
    container,
    made,
    only,
    pod,
    rendered,
    settings,
)
from helm_python import lint
from kubernetes_validate import utils

from meshfed.federation.install.chart import FOLDER, Object, Refused, mistakes
from meshfed.federation.settings import Settings, known_keys

ROOT = Path(__file__).parent.parent
KUBERNETES = ("1.29", "1.33", "1.37")  # the first that the chart takes, AKS's middle, the newest
STRANGERS = {"ServiceMonitor"}  # whose schemas are not Kubernetes'
EACH = [pytest.param(values, id=name) for name, values in MATRIX.items()]
WARNING = 2
DEFINITION = "CustomResourceDefinition"
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI"}


@pytest.mark.parametrize("version", KUBERNETES)
def test_helm_has_no_complaint(version: str) -> None:
    report = lint(FOLDER, strict=True, kube_version=f"v{version}.0")
    assert [each for each in report["messages"] if each["severity"] >= WARNING] == []
    assert report["errors"] == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_of_every_set_of_values_is_valid(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It reads 3 MB of definitions again for each object.
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    different = {json.dumps(each): each for values in MATRIX.values() for each in made(values)}
    kinds = {each["kind"] for each in different.values()}
    checked = [each for each in different.values() if each["kind"] not in STRANGERS]
    assert {utils.validate(each, version, strict=True) for each in checked} == {version}
    assert kinds >= {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"}


@pytest.mark.parametrize("values", EACH)
def test_the_control_plane_takes_the_configuration_that_is_made(values: Values) -> None:
    assert list(mistakes(made(values))) == []


@pytest.mark.parametrize("values", EACH)
def test_pods_are_of_the_level_restricted(values: Values) -> None:
    spec = pod(made(values))["spec"]
    context, inside = spec["securityContext"], container(made(values))["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]["type"]) == (True, "RuntimeDefault")
    assert context["runAsUser"] > 0
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert {key for each in spec["volumes"] for key in each if key != "name"} <= VOLUMES


@pytest.mark.parametrize("values", EACH)
def test_ports_are_served_named_and_let_in(values: Values) -> None:
    things = made(values)
    said = Settings.model_validate(settings(things))
    served = {each["name"]: each["containerPort"] for each in container(things)["ports"]}
    listening = {"xds": said.xds.listen.port, "metrics": said.health.listen.port}
    if said.join.listen:
        listening["join"] = said.join.listen.port
    if "webhook" in served:
        assert said.injection.listen
        assert said.xds.tokens
        listening |= {"webhook": said.injection.listen.port, "pods": said.xds.tokens.port}
    assert served == listening
    services = [each for each in things if each["kind"] == "Service"]
    led = {port["targetPort"] for each in services for port in each["spec"]["ports"]}
    assert led == served.keys()
    policies = [each for each in things if each["kind"] == "NetworkPolicy"]
    let = {
        p["port"] for each in policies for rule in each["spec"]["ingress"] for p in rule["ports"]
    }
    assert let == (served.keys() if policies else set())
    probes = (container(things)[f"{name}Probe"] for name in ("startup", "liveness", "readiness"))
    assert {each["httpGet"]["port"] for each in probes} == {"metrics"}


def test_pods_are_told_where_the_control_plane_is() -> None:
    injection = settings(made())["injection"]
    assert injection["control_plane"] == "meshfed.meshfed.svc:15130"
    assert injection["init_image"] == container(made())["image"] == "meshfed:0.1.0"
    assert settings(made({"settings": {"injection": {"image": "envoy:1"}}}))["injection"] == {
        **injection, "image": "envoy:1",
    }  # fmt: skip


def test_sqlite_has_a_volume_and_one_writer() -> None:
    things = made()
    assert only(things, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert settings(things)["catalog"] == "sqlite:////var/lib/meshfed/meshfed.db"
    state = {each["name"]: each for each in pod(things)["spec"]["volumes"]}["state"]
    assert state["persistentVolumeClaim"] == {"claimName": "meshfed"}
    assert "PodDisruptionBudget" not in {each["kind"] for each in things}


def test_on_postgres_replicas_follow_each_other_and_share_one_key() -> None:
    things = made(POSTGRES, {"replicas": 2})
    assert only(things, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "PersistentVolumeClaim" not in {each["kind"] for each in things}
    assert "catalog" not in settings(things)
    told = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container(things)["env"]
        if each["name"].startswith("MESHFED_")
    }
    assert told == {
        "MESHFED_CATALOG": {"name": "meshfed-catalog", "key": "url"},
        "MESHFED_KEY": {"name": "meshfed-catalog", "key": "key"},
    }
    assert only(things, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("values", "restarts"),
    [
        pytest.param({"settings": {"mesh": {"permissive": True}}}, False, id="permissive"),
        pytest.param({"settings": {"federation": {"prefer": ["same-zone"]}}}, False, id="rules"),
        pytest.param({"files": {"hosts.yaml": "hosts: []\n"}}, False, id="a host list"),
        pytest.param({"settings": {"mesh": {"trust_domain": "a.example"}}}, True, id="a domain"),
        pytest.param({"settings": {"history": {"retain": "7d"}}}, True, id="history"),
    ],
)
def test_a_pod_is_restarted_for_what_only_a_start_reads(values: Values, *, restarts: bool) -> None:
    """tests/test_heed.py has what is heeded while it runs."""
    before = {"settings": {"mesh": {"trust_domain": "mesh.local"}}}
    assert (pod(made(before, values)) != pod(made(before))) == restarts
    assert only(made(before, values), "ConfigMap") != only(made(before), "ConfigMap")


def test_whole_folders_are_mounted_so_that_they_change_with_the_config_map() -> None:
    mounts = container(made())["volumeMounts"]
    assert [each for each in mounts if "subPath" in each] == []


def test_a_pod_is_reviewed_once_however_its_namespace_is_labelled() -> None:
    hooks = only(made(), "MutatingWebhookConfiguration")["webhooks"]
    labels = ("meshfed.io/inject", "meshfed.io/mesh", "openservicemesh.io/monitored-by")
    for n in range(2 ** len(labels)):
        worn = {label: "x" for bit, label in enumerate(labels) if n >> bit & 1}
        worn["kubernetes.io/metadata.name"] = "shop"
        assert [_selected(each["namespaceSelector"], worn) for each in hooks].count(True) == min(
            n, 1
        )
    for name in ("meshfed", "kube-system"):
        worn = dict.fromkeys(labels, "x") | {"kubernetes.io/metadata.name": name}
        assert not any(_selected(each["namespaceSelector"], worn) for each in hooks)


def test_the_manifest_for_who_has_no_chart_says_the_same() -> None:
    written = yaml.safe_load((ROOT / "deploy" / "inject" / "webhook.yaml").read_text())
    assert only(made(), "MutatingWebhookConfiguration")["webhooks"] == written["webhooks"]


def _selected(selector: Object, labels: dict[str, str]) -> bool:
    def fits(said: Object) -> bool:
        there = said["key"] in labels
        match said["operator"]:
            case "Exists":
                return there
            case "DoesNotExist":
                return not there
            case "NotIn":
                return labels.get(said["key"]) not in said["values"]
        raise AssertionError(said["operator"])

    return all(map(fits, selector["matchExpressions"]))


def test_nothing_differs_from_one_rendering_to_the_next() -> None:
    """A certificate made in a template would: each upgrade would be a change."""
    first, second = (rendered(EVERYTHING) for _ in range(2))
    assert first == second
    hooks = only(made(), "MutatingWebhookConfiguration")["webhooks"]
    assert all("caBundle" not in each["clientConfig"] for each in hooks)


def test_definitions_are_those_of_the_project_and_are_kept() -> None:
    shipped = {
        each["metadata"]["name"]: each for each in made() if "versions" in each.get("spec", {})
    }
    files = [
        yaml.load(file.read_text(), yaml.CSafeLoader)
        for file in (ROOT / "deploy/crds").glob("*.yaml")
    ]
    assert {each["metadata"]["name"]: each["spec"] for each in files} == {
        name: each["spec"] for name, each in shipped.items()
    }
    for each in shipped.values():
        assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_an_identity_of_azure_is_on_the_account_and_on_the_pod() -> None:
    things = made(EVERYTHING)
    annotations = only(things, "ServiceAccount")["metadata"]["annotations"]
    assert annotations["azure.workload.identity/client-id"] == EVERYTHING["azure"]["clientId"]
    assert pod(things)["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert "azure.workload.identity/use" not in pod(made())["metadata"]["labels"]


def test_machines_come_in_through_a_load_balancer_of_the_virtual_network() -> None:
    service = only(made({"machines": {"enabled": True}}), "Service", "meshfed-machines")
    internal = "service.beta.kubernetes.io/azure-load-balancer-internal"
    assert service["metadata"]["annotations"][internal] == "true"
    assert [each["port"] for each in service["spec"]["ports"]] == [15128, 15129]
    moved = only(made({"machines": {"enabled": True}}, JOIN), "Service", "meshfed-machines")
    assert [each["port"] for each in moved["spec"]["ports"]] == [15128, 15139]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        pytest.param({"replica": 2}, "additional properties 'replica' not allowed", id="a value"),
        pytest.param(
            {"catalog": {"exsistingSecret": "a"}},
            "catalog: additional properties 'exsistingSecret' not allowed",
            id="a value below another",
        ),
        pytest.param(
            {"settings": {"mesh": {"permisive": True}}},
            "settings.mesh: additional properties 'permisive' not allowed",
            id="a setting",
        ),
        pytest.param(
            {"settings": {"catalog": "sqlite:///a.db"}},
            "settings: additional properties 'catalog' not allowed",
            id="what the chart says itself",
        ),
        pytest.param(
            {"replicas": 2},
            "replicas: more than one needs a catalog in Postgres:"
            " name a Secret in catalog.existingSecret",
            id="two writers of one file",
        ),
        pytest.param(
            {"settings": {"providers": []}},
            "injector: no cluster would ask: name a provider of type kubernetes in"
            " settings.providers, or say enabled: false",
            id="a webhook that nobody asks",
        ),
        pytest.param({"replicas": "2"}, "replicas: got string, want integer", id="a word"),
        pytest.param(
            {"files": {"meshfed.yaml": ""}},
            "files: meshfed.yaml is made of settings: write it there",
            id="a second configuration",
        ),
    ],
)
def test_what_is_refused_is_said_in_one_line(values: Values, line: str) -> None:
    with pytest.raises(Refused) as refused:
        made(values)
    assert refused.value.lines == (line,)


def test_the_schema_is_the_one_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "deploy" / "helm"), *sys.path])
    written = import_module("schema").written()
    assert (FOLDER / "values.schema.json").read_text() == written, (
        "python deploy/helm/schema.py > deploy/helm/meshfed/values.schema.json"
    )


def test_every_setting_can_be_said_or_is_the_charts_own() -> None:
    known = chart().schema["properties"]["settings"]["properties"].keys()
    assert set(known_keys()) - known == {"catalog"}
