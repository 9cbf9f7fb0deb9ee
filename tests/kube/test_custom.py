"""Kinds that CRDs define: what a schema makes of their objects, and which schemas there can be."""

from copy import deepcopy

import pytest

from kube.cluster import Cluster, refused
from kube.given import crd, thing
from meshfed.demo.kube.objects import Object

STRATEGIC = "application/strategic-merge-patch+json"
SIZE = {"type": "integer", "minimum": 1, "maximum": 9}
SHELF = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": SIZE,
                "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                "code": {"type": "string", "pattern": "^[a-z]+$"},
                "books": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
                "label": {"type": "object", "additionalProperties": {"type": "string"}},
                "rest": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "properties": {"full": {"type": "boolean"}}},
    },
}
SHELVES = crd("shelves", "Shelf", SHELF, subresources={"status": {}})


def shelf(name: str = "a", **spec: object) -> Object:
    return thing("tests.example/v1", "Shelf", name, "default", spec={"size": 1} | spec)


@pytest.fixture
def shelves(cluster: Cluster) -> Cluster:
    cluster.create(SHELVES)
    cluster.established(SHELVES)
    return cluster


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"size": 0}, "greater than or equal to 1", id="too small"),
        pytest.param({"size": 10}, "less than or equal to 9", id="too large"),
        pytest.param({"size": "1"}, "must be of type integer", id="of another type"),
        pytest.param({"size": None}, "spec.size", id="null"),
        pytest.param({"color": "green"}, 'supported values: "', id="not of those listed"),
        pytest.param({"code": "A1"}, "should match", id="not of the pattern"),
        pytest.param({"books": ["a"] * 3}, "2 items", id="too many"),
        pytest.param({"label": {"a": 1}}, "spec.label.a", id="a value of a map"),
    ],
)
def test_a_schema_is_kept_to(shelves: Cluster, spec: Object, said: str) -> None:
    with refused(422, said):
        shelves.create(shelf(**spec))


def test_what_a_schema_requires_must_be_there(shelves: Cluster) -> None:
    with refused(422, "spec.size: Required value"):
        shelves.create(thing("tests.example/v1", "Shelf", "a", "default", spec={}))


def test_defaults_come_in_and_what_is_unknown_goes(shelves: Cluster) -> None:
    made = shelves.create(shelf(unknown=1, rest={"any": [1]}, label={"a": "b"}))
    wanted = {"size": 1, "color": "red", "rest": {"any": [1]}, "label": {"a": "b"}}
    assert made["spec"] == wanted
    path = shelves.path(made, named=False)
    with refused(400, 'unknown field "spec.unknown"'):
        shelves.request("POST", f"{path}?fieldValidation=Strict", shelf("b", unknown=1))


def test_a_generation_counts_what_was_asked_for_and_not_what_became_of_it(
    shelves: Cluster,
) -> None:
    made = shelves.put({**shelf(), "status": {"full": True}})
    assert made["metadata"]["generation"] == 1
    assert shelves.patch(made, {"metadata": {"labels": {"a": "b"}}})["metadata"]["generation"] == 1
    assert shelves.patch(made, {"spec": {"size": 2}})["metadata"]["generation"] == 2
    assert shelves.get(made)["status"] == {"full": True}


def test_a_custom_object_is_replaced_by_its_version_and_has_no_strategic_patch(
    shelves: Cluster,
) -> None:
    made = shelves.create(shelf())
    with refused(422, "metadata.resourceVersion"):
        shelves.request("PUT", shelves.path(made), shelf(size=2))
    with refused(415):
        shelves.request("PATCH", shelves.path(made), {}, STRATEGIC)


def test_kinds_go_with_their_crd(shelves: Cluster) -> None:
    made = shelves.create(shelf())
    shelves.delete(SHELVES)
    shelves.gone(made)


def without(path: str) -> Object:
    """The CRD, but for something at a path of its schema."""
    broken = deepcopy(SHELVES)
    found = broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    *way, last = path.split(".")
    for step in way:
        found = found[step]
    del found[last]
    return broken


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(without("properties.spec.type"), "type", id="a field without a type"),
        pytest.param(
            without("properties.spec.properties.books.items"), "items", id="a list of anything"
        ),
        pytest.param(
            crd("shelves", "Shelf", SHELF, storage=False), "storage version", id="stored nowhere"
        ),
        pytest.param(
            {**SHELVES, "metadata": {"name": "shelf.tests.example"}}, "metadata.name", id="misnamed"
        ),
        pytest.param(
            crd("shelves", "Shelf", {"type": "object", "anyOf": [{"type": "object"}]}),
            "must be empty to be structural",
            id="a type below anyOf",
        ),
    ],
)
def test_a_crd_that_is_not_structural_is_refused(
    cluster: Cluster, given: Object, said: str
) -> None:
    with refused(422, said):
        cluster.create(given)
