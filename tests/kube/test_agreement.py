"""CRDs and mesh judge thousands of objects alike, but for a few fields that are named here."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import yaml

from kube.test_crds import BROKEN, CRDS, documents
from meshfed.catalog.document import Document
from meshfed.demo.kube.schema import mistakes, pruned
from meshfed.federation.specification.smi import Stated, parse

Path = tuple[str | int, ...]
OTHERS = [
    None, "", 0, -1, 1, 1.5, 99999, 2**33, True, "x", "X y", "a.b", "a.b.c", "a" * 300,
    [], ["x"], [{}], {}, {"x": "y"}, {"a": 1},
]  # fmt: skip
WITHOUT, TWICE = object(), object()
MORE = """
HTTPRouteGroup: {matches: [{name: all}, {name: buy, headers: {client: buyer}}]}
TCPRoute: {}
TrafficSplit:
  service: bookstore
  backends: [{service: v1, weight: 1}]
  matches: [{kind: HTTPRouteGroup, name: group}]
TrafficTarget:
  destination: {kind: ServiceAccount, name: bookstore}
  rules: [{kind: HTTPRouteGroup, name: group, matches: [buy]}]
"""
# What a cluster lets pass and the mesh refuses: a regular expression, what has no type because it
# may be a list or a map, and what is right in one namespace alone.
LENIENT = {
    "spec.matches.pathRegex", "spec.matches.headers", "spec.matches.headers.client",
    "spec.service", "spec.destination.namespace",
}  # fmt: skip
# What a cluster refuses and files may say: null, as YAML leaves it behind a colon.
STRICT = {"spec.destination.namespace", "spec.sources.namespace"}


def objects() -> Iterator[dict[str, Any]]:
    healthy = documents(BROKEN.parent / "healthy.yaml")
    yield from healthy
    for one in healthy:
        yield {**one, "spec": yaml.safe_load(MORE)[one["kind"]]}


def changed(thing: Any, at: Path = ("spec",)) -> Iterator[tuple[Path, object]]:
    """Each value in an object in the place of another: all the ways to get one thing wrong."""
    for other in (*OTHERS, WITHOUT, *([TWICE] if isinstance(at[-1], int) else [])):
        yield at, other
    if isinstance(thing, dict | list):
        for key, each in thing.items() if isinstance(thing, dict) else enumerate(thing):
            yield from changed(each, (*at, key))


def put(thing: dict[str, Any], at: Path, value: object) -> dict[str, Any]:
    made = deepcopy(thing)
    around: Any = made
    for key in at[:-1]:
        around = around[key]
    if value is WITHOUT:
        del around[at[-1]]
    elif value is TWICE:
        around.append(deepcopy(around[at[-1]]))
    else:
        around[at[-1]] = deepcopy(value)
    return made


def test_cluster_and_mesh_judge_every_single_change_alike() -> None:
    schemas = {
        (crd["spec"]["names"]["kind"], f"{crd['spec']['group']}/{version['name']}"): version[
            "schema"
        ]["openAPIV3Schema"]
        for file in CRDS.glob("*.yaml")
        for crd in documents(file)
        for version in crd["spec"]["versions"]
    }
    judged, lenient, strict = 0, set(), set()
    for thing in objects():
        for at, value in changed(thing["spec"]):
            field = ".".join(key for key in at if isinstance(key, str))
            for (kind, api_version), schema in schemas.items():
                if kind != thing["kind"]:
                    continue
                made = {**put(thing, at, value), "apiVersion": api_version}
                cluster = not (pruned(made, schema)[1] or any(mistakes(made, schema)))
                (found,) = parse(Document("cluster", made, {}))
                mesh = isinstance(found, Stated)
                judged += 1
                lenient |= {field} if cluster and not mesh else set()
                strict |= {field} if mesh and not cluster else set()
    assert judged > 2_000
    assert (lenient, strict) == (LENIENT, STRICT)
