"""The CRDs for SMI: what they accept, the mesh understands; what they let pass, it refuses."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.cluster import Answered, Cluster
from kube.cluster import Refused as KubectlRefused
from meshfed.catalog.document import Document
from meshfed.federation.specification.smi import Refused, Stated, parse

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
CRDS = REPOSITORY / "deploy/crds"
BROKEN = HERE.parent / "broken/policy"
NO_OBJECTS = {"not-yaml", "no-kind", "no-name", "another-kind", "a-gateway-route"}
# OpenAPI cannot say these; the mesh does, in an Event and in mesh_policies.
SAID_BY_THE_MESH = {
    "header-that-is-none": "names of headers",
    "regex-that-never-ends": "regular expressions",
    "regex-too-large-for-envoy": "regular expressions",
    "regex-with-lookahead": "regular expressions",
    "split-of-another-namespace": "what must be the object's own namespace",
    "split-of-its-own-root": "what two fields say together",
    "split-with-a-backend-twice": "one service under two names",
    "target-destination-elsewhere": "what must be the object's own namespace",
}
Thing = dict[str, Any]


@cache
def documents(file: Path) -> tuple[Thing, ...]:
    return tuple(each for each in yaml.load_all(file.read_text(), yaml.CSafeLoader) if each)


def understood(thing: Thing) -> Stated | Refused:
    (found,) = parse(Document("cluster", thing, {}))
    return found


def target(**spec: object) -> Thing:
    account = {"kind": "ServiceAccount", "name": "a"}
    rule = {"kind": "HTTPRouteGroup", "name": "g"}
    said = {"destination": account, "sources": [account], "rules": [rule]} | spec
    return smi("access.smi-spec.io/v1alpha3", "TrafficTarget", said)


def group(**match: object) -> Thing:
    matches = [{"name": "all", **match}]
    return smi("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup", {"matches": matches})


def route(**matches: object) -> Thing:
    return smi("specs.smi-spec.io/v1alpha4", "TCPRoute", {"matches": matches})


def split(*weights: object, **spec: object) -> Thing:
    backends = [{"service": f"v{n}", "weight": weight} for n, weight in enumerate(weights)]
    said = {"service": "shop", "backends": backends} | spec
    return smi("split.smi-spec.io/v1alpha4", "TrafficSplit", said)


def smi(version: str, kind: str, spec: Thing) -> Thing:
    metadata = {"name": "one", "namespace": "default"}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.fixture
def smi_cluster(cluster: Cluster) -> Cluster:
    for file in sorted(CRDS.glob("*.yaml")):
        for crd in documents(file):
            cluster.create(crd)
            cluster.established(crd)
    return cluster


def accepted(cluster: Cluster, thing: Thing) -> bool:
    try:
        path = cluster.path(thing, named=False)
        cluster.request("POST", f"{path}?fieldValidation=Strict&dryRun=All", thing)
    except (Answered, KeyError) as error:
        if isinstance(error, Answered) and error.code not in (400, 404, 422):
            raise
        return False  # a KeyError: there is no such kind
    return True


def test_kubectl_applies_them_and_they_are_established(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", str(CRDS))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
    shown = cluster.kubectl("api-resources", "-o", "name")
    served = {line for line in shown.split() if line.endswith("smi-spec.io")}
    assert served == {path.stem + "." + group for path, group in GROUPS.items()}


GROUPS = {
    CRDS / "traffictargets.yaml": "access.smi-spec.io",
    CRDS / "httproutegroups.yaml": "specs.smi-spec.io",
    CRDS / "tcproutes.yaml": "specs.smi-spec.io",
    CRDS / "trafficsplits.yaml": "split.smi-spec.io",
}


def test_what_the_mesh_refuses_is_refused_by_the_cluster_where_openapi_can_say_it(
    smi_cluster: Cluster,
) -> None:
    smi_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    objects = [file for file in BROKEN.glob("*.yaml") if file.stem not in NO_OBJECTS]
    passed = {
        file.stem
        for file in objects
        if all(accepted(smi_cluster, thing) for thing in documents(file))
    }
    assert passed == set(SAID_BY_THE_MESH)


def test_what_we_give_as_examples_is_accepted(smi_cluster: Cluster) -> None:
    smi_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    given = [HERE.parent / "broken/healthy.yaml", *(REPOSITORY / "deploy/demo/policy").glob("*")]
    shown = [thing for file in given for thing in documents(file)]
    assert all(accepted(smi_cluster, thing) for thing in shown)


ALIKE = {
    "headers as SMI's CRDs write them": group(headers=[{"user-agent": ".*"}, {"x": "y"}]),
    "headers as SMI's text writes them": group(headers={"user-agent": ".*", "x": "y"}),
    "every method": group(methods=["*"]),
    "a match by name alone": group(),
    "a path left out by Go": group(pathRegex=""),
    "a target without sources": target(sources=[]),
    "a target whose rule names matches": target(
        rules=[{"kind": "HTTPRouteGroup", "name": "g", "matches": ["all"]}]
    ),
    "a route without ports": route(),
    "a route with ports": route(ports=[1, 65535]),
    "a split of one": split(1),
    "a split with a backend that rests": split(100, 0),
    "a split by full names": split(1, service="shop.default.svc.cluster.local"),
    "a split of what a group matches": split(
        1, matches=[{"apiGroup": "specs.smi-spec.io", "kind": "HTTPRouteGroup", "name": "g"}]
    ),
}
UNLIKE = {
    "a header that is a number": group(headers={"x": 1}),
    "a header that is a number, in a list": group(headers=[{"x": 1}]),
    "a header without a map": group(headers=["x"]),
    "a match without a name": smi(
        "specs.smi-spec.io/v1alpha4", "HTTPRouteGroup", {"matches": [{"pathRegex": "/"}]}
    ),
    "a name of nothing": group(name=""),
    "a path that is a number": group(pathRegex=1),
    "a target of a user": target(destination={"kind": "User", "name": "a"}),
    "a target in capitals": target(destination={"kind": "ServiceAccount", "name": "A"}),
    "a target in two namespaces": target(
        destination={"kind": "ServiceAccount", "name": "a", "namespace": "x.y"}
    ),
    "a target without a destination": smi(
        "access.smi-spec.io/v1alpha3", "TrafficTarget",
        {"rules": [{"kind": "TCPRoute", "name": "g"}]},
    ),
    "a rule without a name": target(rules=[{"kind": "TCPRoute"}]),
    "port 0": route(ports=[0]),
    "port 65536": route(ports=[65536]),
    "a port by its name": route(ports=["http"]),
    "half a port": route(ports=[80.5]),
    "a weight that is text": split("1"),
    "a weight that is too large": split(2**32),
    "nobody at all": split(0, 0),
    "a service in capitals": split(1, service="Shop"),
    "a service outside": split(1, service="shop.default.example.com"),
    "129 backends": split(*[1] * 129),
    "a split of a target": split(1, matches=[{"kind": "TrafficTarget", "name": "g"}]),
    "another group's group": split(
        1, matches=[{"apiGroup": "example.com", "kind": "HTTPRouteGroup", "name": "g"}]
    ),
    "no spec": {key: value for key, value in split(1).items() if key != "spec"},
}  # fmt: skip


def test_cluster_and_mesh_say_the_same(smi_cluster: Cluster) -> None:
    """A weight or port too many, a field too few: the verdicts of both, of every case."""
    verdicts = {
        name: (accepted(smi_cluster, thing), isinstance(understood(thing), Stated))
        for name, thing in (ALIKE | UNLIKE).items()
    }
    assert verdicts == dict.fromkeys(ALIKE, (True, True)) | dict.fromkeys(UNLIKE, (False, False))


def test_the_mesh_alone_refuses_headers_that_are_text(smi_cluster: Cluster) -> None:
    """They have no type in the schema, because they may be a list or a map."""
    text = group(headers="user-agent: .*")
    assert accepted(smi_cluster, text)
    assert isinstance(understood(text), Refused)


VERSIONS = {
    "TrafficTarget": ("access.smi-spec.io", "v1alpha3", "v1alpha2"),
    "HTTPRouteGroup": ("specs.smi-spec.io", "v1alpha4", "v1alpha3"),
    "TCPRoute": ("specs.smi-spec.io", "v1alpha4", "v1alpha3"),
    "TrafficSplit": ("split.smi-spec.io", "v1alpha4", "v1alpha3", "v1alpha2"),
}


@pytest.mark.parametrize(
    "thing", [target(), group(headers={"x": "y"}), split(90, 10)], ids=lambda thing: thing["kind"]
)
def test_an_object_is_the_same_policy_in_every_version(smi_cluster: Cluster, thing: Thing) -> None:
    family, *versions = VERSIONS[thing["kind"]]
    for version in versions:
        written = thing | {"apiVersion": f"{family}/{version}"}
        smi_cluster.create(written)
        read = [smi_cluster.get(thing | {"apiVersion": f"{family}/{each}"}) for each in versions]
        assert [each["apiVersion"] for each in read] == [f"{family}/{each}" for each in versions]
        policies = {understood(each).policy for each in read}
        assert policies == {understood(thing).policy}
        smi_cluster.delete(written)


def test_a_new_thing_is_not_lost_by_who_writes_an_old_version(smi_cluster: Cluster) -> None:
    """An old version knows of matches, and refuses a change: it does not take them away."""
    for thing, old in (
        (route(ports=[80]), "specs.smi-spec.io/v1alpha3"),
        (
            split(1, matches=[{"kind": "HTTPRouteGroup", "name": "g"}]),
            "split.smi-spec.io/v1alpha2",
        ),
    ):
        smi_cluster.create(thing)
        with pytest.raises(Answered, match="must not validate"):
            smi_cluster.put(changed(smi_cluster.get(thing | {"apiVersion": old})))
        assert "matches" in smi_cluster.get(thing)["spec"]


def changed(thing: Thing) -> Thing:
    """Kubernetes does not look again at what stays as it was."""
    return {**thing, "spec": thing["spec"] | {"matches": []}}


def test_kubectl_shows_what_matters_and_explains_a_refusal(smi_cluster: Cluster) -> None:
    smi_cluster.kubectl("apply", "-f", "-", given=split(90, 10))
    shown = smi_cluster.kubectl("get", "trafficsplits.split.smi-spec.io")
    assert re.split(r" {2,}|\n", shown.strip())[:5] == ["NAME", "SERVICE", "AGE", "one", "shop"]
    smi_cluster.kubectl("apply", "-f", "-", given=split(80, 20))
    with pytest.raises(KubectlRefused, match=r"spec\.backends\[0\]\.weight"):
        smi_cluster.kubectl("apply", "-f", "-", given=split(-1))
    with pytest.raises(KubectlRefused, match=r'unknown field "spec\.weights"'):
        smi_cluster.kubectl("apply", "-f", "-", given=split(1, weights=[]))
    assert smi_cluster.get(split())["spec"]["backends"][0]["weight"] == 80
