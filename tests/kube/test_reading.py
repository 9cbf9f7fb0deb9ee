"""Lists and watches: selections, pages, versions, and what is told when."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import httpx
import pytest

from kube.cluster import Answered, Cluster, refused
from kube.given import configmap, labelled, namespace, pod, service
from meshfed.demo.kube.objects import Object

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"


def names(answer: Object) -> list[str]:
    return [each["metadata"]["name"] for each in answer["items"]]


def listed(cluster: Cluster, path: str = MAPS, **query: object) -> Object:
    shown = httpx.QueryParams({name: str(value) for name, value in query.items()})
    return cluster.request("GET", f"{path}?{shown}")


def made(cluster: Cluster, *of: str) -> int:
    """The version after the last of some objects was created."""
    for name in of:
        last = cluster.create(labelled(configmap(name), name=name))
    return int(last["metadata"]["resourceVersion"])


def told(events: Iterator[Object], count: int) -> list[tuple[str, str]]:
    return [
        (each["type"], each["object"]["metadata"].get("name", "")) for each in islice(events, count)
    ]


# Selecting


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("tier=front", ["a"]),
        ("tier==front", ["a"]),
        ("tier!=front", ["b", "c"]),
        ("tier", ["a", "b"]),
        ("!tier", ["c"]),
        ("tier in (front,back)", ["a", "b"]),
        ("tier notin (front, none)", ["b", "c"]),
        ("tier,zone=1", ["b"]),
        ("tier in (back),zone notin (2)", ["b"]),
    ],
)
def test_labels_select(cluster: Cluster, selector: str, found: list[str]) -> None:
    cluster.create(labelled(service("a", 80), tier="front"))
    cluster.create(labelled(service("b", 80), tier="back", zone="1"))
    cluster.create(service("c", 80))
    path = "/api/v1/namespaces/default/services"
    shown = listed(cluster, path, labelSelector=selector)
    assert [name for name in names(shown) if name != "kubernetes"] == found


def test_a_selector_that_cannot_be_read_is_refused(cluster: Cluster) -> None:
    for query in ({"labelSelector": "a in b"}, {"fieldSelector": "spec.image=x"}):
        with refused(400):
            listed(cluster, PODS, **query)


def test_some_fields_select(cluster: Cluster) -> None:
    cluster.create(namespace("shop"))
    cluster.put(pod("a", nodeName="one") | {"status": {"phase": "Running"}})
    cluster.put(pod("b", home="shop"))
    everywhere = "/api/v1/pods"
    assert names(listed(cluster, everywhere, fieldSelector="metadata.name=b")) == ["b"]
    assert names(listed(cluster, everywhere, fieldSelector="metadata.namespace!=shop")) == ["a"]
    assert names(listed(cluster, everywhere, fieldSelector="spec.nodeName=one")) == ["a"]
    ended = "status.phase!=Failed,status.phase!=Running"
    assert names(listed(cluster, everywhere, fieldSelector=ended)) == ["b"]


# Pages


def test_pages_show_one_moment_whatever_is_written_meanwhile(cluster: Cluster) -> None:
    last = made(cluster, "a", "b", "c", "d")
    first = listed(cluster, limit=2)
    cluster.delete(configmap("c"))
    made(cluster, "e")
    second = listed(cluster, limit=2, **{"continue": first["metadata"]["continue"]})
    assert names(first) + names(second) == ["a", "b", "c", "d"]
    assert int(first["metadata"]["resourceVersion"]) >= last
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert first["metadata"]["remainingItemCount"] == 2
    assert "continue" not in second["metadata"]


def test_a_page_whose_moment_is_forgotten_is_gone(cluster: Cluster) -> None:
    made(cluster, "a", "b", "c")
    first = listed(cluster, limit=2)
    made(cluster, "d")
    cluster.server.faults.compact()
    with refused(410) as answer:
        listed(cluster, limit=2, **{"continue": first["metadata"]["continue"]})
    rest = listed(cluster, **{"continue": answer.value.status["metadata"]["continue"]})
    assert names(rest) == ["c", "d"]


def test_what_may_be_stale_comes_whole(cluster: Cluster) -> None:
    made(cluster, "a", "b", "c")
    assert names(listed(cluster, limit=1, resourceVersion=0))[-3:] == ["a", "b", "c"]


def test_a_list_can_be_of_an_exact_version_and_of_none_that_is_to_come(cluster: Cluster) -> None:
    before = made(cluster, "a")
    made(cluster, "b")
    exact = {"resourceVersion": before, "resourceVersionMatch": "Exact"}
    assert names(listed(cluster, **exact))[-1] == "a"
    with refused(504):
        listed(cluster, resourceVersion=before + 1_000_000)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersionMatch": "Exact", "resourceVersion": 0}, 422),
        ({"sendInitialEvents": "true"}, 422),
        ({"continue": "x"}, 400),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    cluster: Cluster, query: dict[str, object], code: int
) -> None:
    with refused(code):
        listed(cluster, **query)


# Watches


def test_a_watch_goes_on_where_a_list_ended(cluster: Cluster) -> None:
    since = listed(cluster)["metadata"]["resourceVersion"]
    made(cluster, "a")
    with cluster.watch(MAPS, resourceVersion=since) as events:
        assert told(events, 1) == [("ADDED", "a")]
        cluster.patch(configmap("a"), {"data": {"x": "1"}})
        cluster.delete(configmap("a"))
        modified, deleted = islice(events, 2)
    assert (modified["type"], deleted["type"]) == ("MODIFIED", "DELETED")
    assert deleted["object"]["data"] == {"x": "1"}
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in (modified, deleted)]
    assert int(since) < versions[0] < versions[1]


def test_what_leaves_a_selection_is_deleted_for_who_selects(cluster: Cluster) -> None:
    since = made(cluster, "a")
    query = {"resourceVersion": since, "labelSelector": "name=a"}
    with cluster.watch(MAPS, **query) as events:
        cluster.patch(configmap("a"), {"metadata": {"labels": {"name": "b"}}})
        (gone,) = islice(events, 1)
        cluster.patch(configmap("a"), {"metadata": {"labels": {"name": "a"}}})
        assert told(events, 1) == [("ADDED", "a")]
    assert gone["type"] == "DELETED"
    assert gone["object"]["metadata"]["labels"] == {"name": "a"}
    assert int(gone["object"]["metadata"]["resourceVersion"]) > since


def test_a_watch_from_nowhere_begins_with_all_there_is(cluster: Cluster) -> None:
    made(cluster, "a", "b")
    with cluster.watch(MAPS, labelSelector="name") as events:
        assert sorted(told(events, 2)) == [("ADDED", "a"), ("ADDED", "b")]


@contextmanager
def listing(cluster: Cluster, **query: str) -> Iterator[Iterator[Object]]:
    try:
        with cluster.watch(MAPS, **query) as events:
            yield events
    except Answered as answer:
        if "WatchList feature gate" not in str(answer):
            raise
        pytest.skip("this kube-apiserver is of a version that does not do it by itself")


def test_a_watch_can_be_the_list_too_and_says_where_that_ends(cluster: Cluster) -> None:
    last = made(cluster, "a", "b")
    query = {
        "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan",
        "labelSelector": "name",
    }  # fmt: skip
    with listing(cluster, **query) as events:
        assert sorted(told(events, 2)) == [("ADDED", "a"), ("ADDED", "b")]
        (end,) = islice(events, 1)
        made(cluster, "c")
        assert told(events, 1) == [("ADDED", "c")]
    assert end["type"] == "BOOKMARK"
    metadata = end["object"]["metadata"]
    assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(metadata["resourceVersion"]) >= last
    with refused(422), cluster.watch(MAPS, sendInitialEvents="true"):
        pass


def test_a_watch_ends_when_its_time_is_over(cluster: Cluster) -> None:
    since = listed(cluster)["metadata"]["resourceVersion"]
    with cluster.watch(MAPS, resourceVersion=since, timeoutSeconds=1) as events:
        assert {each["type"] for each in events} <= {"BOOKMARK"}


def test_a_watch_of_what_is_forgotten_is_told_so(cluster: Cluster) -> None:
    since = made(cluster, "a")
    made(cluster, "b")
    cluster.server.faults.compact()
    with cluster.watch(MAPS, resourceVersion=since) as events:
        (error,) = list(events)
    assert (error["type"], error["object"]["code"]) == ("ERROR", 410)


def test_bookmarks_move_a_quiet_watch_on(cluster: Cluster) -> None:
    since = listed(cluster)["metadata"]["resourceVersion"]
    with cluster.watch(PODS, resourceVersion=since) as events:
        cluster.server.faults.bookmark()
        (first,) = islice(events, 1)
        last = made(cluster, "a", "b")
        cluster.server.faults.bookmark()
        (second,) = islice(events, 1)
    assert (first["type"], second["type"]) == ("BOOKMARK", "BOOKMARK")
    assert first["object"]["metadata"]["resourceVersion"] == since
    assert second["object"]["metadata"]["resourceVersion"] == str(last)
    assert second["object"]["kind"] == "Pod"


def test_a_watch_is_not_told_what_was_only_tried(cluster: Cluster) -> None:
    since = listed(cluster)["metadata"]["resourceVersion"]
    cluster.request("POST", f"{MAPS}?dryRun=All", configmap("a"))
    made(cluster, "b")
    with cluster.watch(MAPS, resourceVersion=since) as events:
        assert told(events, 1) == [("ADDED", "b")]


def test_a_kind_that_nobody_knows_is_not_found(cluster: Cluster) -> None:
    for path in ("/apis/none.example/v1/things", "/api/v1/things", "/api/v1/pods/a"):
        with refused(404):
            listed(cluster, path)
    with refused(404), cluster.watch("/apis/none.example/v1/things"):
        pass
    with refused(404, "page not found"):
        cluster.request("GET", "/apis/none.example/v1")
