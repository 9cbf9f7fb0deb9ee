"""What becomes of a pod: each folder of golden-inject/ is a claim, `given.yaml` its premises."""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from clusters import namespace
from kube.cluster import Cluster
from kubernetes.client import models

from meshfed.demo.kube.patches import operated
from meshfed.federation.inject.decide import INIT, PROXY, Namespace
from meshfed.federation.inject.injection import Injection
from meshfed.federation.inject.patch import Patched, applied, patched
from meshfed.federation.inject.raw import Unfit

GOLDEN = Path(__file__).parent / "golden-inject"
CASES = sorted(path for path in GOLDEN.iterdir() if path.is_dir())
INJECTED = [case for case in CASES if (case / "pod.yaml").exists()]
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
EVERY_INJECTED = pytest.mark.parametrize("case", INJECTED, ids=lambda path: path.name)
ENABLED = {"meshfed.io/mesh": "shop", "meshfed.io/inject": "enabled"}
ROOTS = "-----BEGIN CERTIFICATE-----\n(the mesh's)\n-----END CERTIFICATE-----\n"

# What JSON has for each; `object` is a port by number or name, or a quantity.
PLAIN = {"str": str, "int": int, "bool": bool, "object": (str, int), "float": (int, float)}

Given = Mapping[str, object]


@EVERY
def test_a_pod_becomes(case, update_golden):
    told = dict(documents(given(case)))
    if update_golden:
        rewrite(case, told)
    found = {p.stem: read(p) for p in case.iterdir() if p.stem != "given"}
    assert told == found


@EVERY_INJECTED
def test_what_was_injected_once_stays_as_it_is(case):
    premises = given(case)
    pod = injected(premises)
    again = made({**premises, "pod": pod})
    assert (again.changes, again.warnings) == ((), ())
    assert again.left is not None
    assert again.left.why == "it has its sidecar already"


@EVERY_INJECTED
def test_the_patch_means_the_same_to_an_api_server(case):
    premises = given(case)
    changes = made(premises).changes
    sent = json.loads(json.dumps(changes))
    assert operated(premises["pod"], sent) == applied(premises["pod"], changes)


def test_an_api_server_accepts_every_pod(cluster: Cluster) -> None:
    """With the account that each has by the time a webhook sees it."""
    cluster.put(namespace(labels=ENABLED))
    for n, case in enumerate(INJECTED):
        pod = injected(given(case))
        pod["spec"].setdefault("serviceAccountName", "default")
        cluster.put(
            pod | {"metadata": {**pod["metadata"], "name": f"pod-{n}", "namespace": "shop"}}
        )


def test_kubernetes_own_types_know_every_field_of_them() -> None:
    for case in INJECTED:
        if case.name != "fields-that-nobody-knows-stay":
            assert list(strange(injected(given(case)), "V1Pod")) == [], case.name


def strange(node: object, kind: str, at: str = "") -> Iterator[str]:
    """What the types of the Kubernetes client do not have, or have otherwise."""
    if found := re.fullmatch(r"[lL]ist\[(.*)\]", kind):
        assert isinstance(node, list), at
        for n, each in enumerate(node):
            yield from strange(each, found[1], f"{at}[{n}]")
    elif found := re.fullmatch(r"[dD]ict[\[(]str, (.*)[\])]", kind):
        assert isinstance(node, dict), at
        for key, each in node.items():
            yield from strange(each, found[1], f"{at}[{key}]")
    elif kind.startswith("V1"):
        model = getattr(models, kind)
        fields = {name: model.openapi_types[own] for own, name in model.attribute_map.items()}
        for key, each in node.items():
            if key in fields:
                yield from strange(each, fields[key], f"{at}.{key}")
            else:
                yield f"{at}.{key}"
    elif not isinstance(node, PLAIN[kind]):
        yield f"{at}: {node!r} is no {kind}"


def given(case: Path) -> Given:
    premises: Given = read(case / "given.yaml")
    return premises


def read(file: Path) -> object:
    return yaml.load(file.read_text(), yaml.CSafeLoader)  # 10 times as fast as safe_load


def made(premises: Given) -> Patched:
    said = premises.get("namespace", {"labels": ENABLED})
    where = Namespace("shop", said.get("labels", {}), said.get("annotations", {}))
    injection = Injection.model_validate(premises.get("injection", {}))
    return patched(premises["pod"], where, injection, ROOTS, own="meshfed")


def injected(premises: Given) -> dict[str, object]:
    return applied(premises["pod"], made(premises).changes)


def documents(premises: Given) -> Iterator[tuple[str, object]]:
    """Each file's content; a pod's bootstrap is not in it but for what its probes ask of it."""
    try:
        found = made(premises)
    except Unfit as unfit:
        yield "refused", str(unfit.rejected(""))
        return
    before = deepcopy(premises["pod"])
    if found.left:
        yield "left", {"why": found.left.why, "warnings": list(found.warnings)}
    else:
        pod = applied(before, found.changes)
        if asked := probes(json.loads(bootstrap(pod))):
            yield "probes", asked
        sidecar(pod)["args"][-1] = "(the bootstrap)"
        yield "pod", pod
        if found.warnings:
            yield "warnings", list(found.warnings)
    assert before == premises["pod"]


def probes(said: dict[str, object]) -> dict[str, object]:
    """What a bootstrap has for probes: clusters, and what the listener makes of them."""
    static = said["static_resources"]
    clusters = [each for each in static["clusters"] if each["name"].startswith("probe|")]
    [listener] = [each for each in static["listeners"] if each["name"] == "probes"]
    [chain] = listener["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"][2:]
    filters = [each["typed_config"] for each in manager["http_filters"][:-1]]
    if not clusters:
        assert not routes
        assert not filters
        return {}
    return {"routes": routes, "filters": filters, "clusters": clusters}


def bootstrap(pod: dict[str, object]) -> str:
    text: str = sidecar(pod)["args"][-1]
    return text


def sidecar(pod: dict[str, object]) -> dict[str, object]:
    spec = pod["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    assert sum(each["name"] == INIT for each in containers) <= 1
    [found] = [each for each in containers if each["name"] == PROXY]
    return found


def rewrite(case: Path, told: Mapping[str, object]) -> None:
    for path in case.iterdir():
        if path.stem != "given":
            path.unlink()
    for name, document in told.items():
        text = yaml.dump(document, Dumper=Plain, sort_keys=False, width=100, allow_unicode=True)
        (case / f"{name}.yaml").write_text(text)


class Plain(yaml.SafeDumper):
    """No anchors, and texts of several lines as such."""

    def ignore_aliases(self, data: object) -> bool:
        return True


Plain.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)
