"""The chart as tests render it, and the values that they try."""

import io
import json
import tarfile
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import yaml
from helm_python import Chart, HelmError

from meshfed.federation.install.chart import FOLDER, RELEASE, Object, Refused, objects, refusals
from meshfed.federation.settings import over

Values = dict[str, Any]
HOME = "meshfed"
POSTGRES: Values = {"catalog": {"existingSecret": "meshfed-catalog"}}
JOIN: Values = {"settings": {"join": {"listen": "0.0.0.0:15139"}}}
EVERYTHING: Values = {
    "image": {"repository": "shop.azurecr.io/meshfed", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {
        "mesh": {"trust_domain": "shop.example", "permissive": True},
        "federation": {"prefer": ["same-zone"]},
        "providers": [
            {"name": "aks", "type": "kubernetes", "in_cluster": True},
            {"name": "rack", "type": "hosts", "path": "hosts.yaml"},
        ],
    },
    "files": {"hosts.yaml": "hosts:\n  - {name: a, address: 10.0.0.1, identity: a.shop}\n"},
    **POSTGRES,
    "replicas": 3,
    "injector": {"failurePolicy": "Ignore"},
    "machines": {"enabled": True, "sourceRanges": ["10.0.0.0/8"]},
    "azure": {"clientId": "00000000-0000-0000-0000-000000000000", "tenantId": "1"},
    "serviceAccount": {"annotations": {"team": "a"}},
    "podLabels": {"team": "a"},
    "podAnnotations": {"team": "a"},
    "resources": {"requests": {"cpu": 1, "memory": "1.5Gi"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
    "priorityClassName": "system-cluster-critical",
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
MATRIX: dict[str, Values] = {
    "as it comes": {},
    "two replicas on Postgres": {**POSTGRES, "replicas": 2},
    "one replica on Postgres": POSTGRES,
    "without injection": {"injector": {"enabled": False}},
    "machines join": {"machines": {"enabled": True}},
    "a join server of its own port": JOIN,
    "its own storage class": {"catalog": {"size": "8Gi", "storageClass": "managed-csi-premium"}},
    "nothing that can be left out": {
        "definitions": False, "networkPolicy": {"enabled": False}, "injector": {"enabled": False},
    },
    "everything": EVERYTHING,
}  # fmt: skip


def archive() -> bytes:
    """The chart as one file: a link leads out of its folder, on which Helm remarks."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", dereference=True) as tar:
        tar.add(FOLDER, RELEASE)
    return packed.getvalue()


@cache
def chart() -> Chart:
    return Chart.load_archive(archive())


def rendered(values: Values) -> list[Object]:
    """Raises Refused."""
    try:
        texts = chart().render(values, name=RELEASE, namespace=HOME)
    except HelmError as error:
        raise Refused(*refusals(str(error))) from error
    manifests = (text for name, text in sorted(texts.items()) if name.endswith(".yaml"))
    return [thing for text in manifests for thing in objects(text)]


def made(*values: Values) -> list[Object]:
    """What one set of values over another makes."""
    whole: Values = {}
    for each in values:
        whole = over(whole, each)
    return deepcopy(_rendered(json.dumps(whole)))


@cache
def _rendered(values: str) -> list[Object]:
    return rendered(json.loads(values))


def only(things: list[Object], kind: str, name: str = RELEASE) -> Object:
    (found,) = (e for e in things if e["kind"] == kind and e["metadata"]["name"] == name)
    return found


def pod(things: list[Object]) -> Object:
    template: Object = only(things, "Deployment")["spec"]["template"]
    return template


def container(things: list[Object]) -> Object:
    (one,) = pod(things)["spec"]["containers"]
    return dict(one)


def settings(things: list[Object]) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(only(things, "ConfigMap")["data"]["meshfed.yaml"])
    return read


def granted(things: list[Object]) -> Iterator[tuple[str, str, str]]:
    """Verb, group and resource, as the roles have them."""
    for role in things:
        for rule in role["rules"] if role["kind"] in ("Role", "ClusterRole") else ():
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    yield from ((verb, group, resource) for verb in rule["verbs"])
