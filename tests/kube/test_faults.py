"""What can be broken on purpose, and is whole again afterwards."""

from itertools import islice

import httpx
import pytest

from kube.cluster import Answered, Cluster, refused
from kube.given import configmap, slice_
from meshfed.demo.kube.objects import Object
from meshfed.demo.kube.server import Server

MAPS = "/api/v1/namespaces/default/configmaps"
SHORT = 0.2  # seconds; for what never comes


@pytest.fixture
def server(cluster: Cluster) -> Server:
    return cluster.server


def get(cluster: Cluster, **how: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    return cluster.client.get(MAPS, headers=headers, **how)  # type: ignore[arg-type]


def version(cluster: Cluster) -> str:
    return str(cluster.request("GET", MAPS)["metadata"]["resourceVersion"])


def types(events: object) -> list[str]:
    return [each["type"] for each in events]  # type: ignore[attr-defined]


def test_the_next_requests_fail_and_those_after_them_do_not(
    cluster: Cluster, server: Server
) -> None:
    server.faults.fail(2, 429, retry_after=7, verb="list", plural="configmaps")
    cluster.request("GET", "/api/v1/pods")
    first, second, third = (get(cluster) for _ in range(3))
    assert [each.status_code for each in (first, second, third)] == [429, 429, 200]
    assert first.headers["Retry-After"] == "7"
    assert first.json()["reason"] == "TooManyRequests"


def test_watches_end_as_if_their_time_were_over(cluster: Cluster, server: Server) -> None:
    with cluster.watch(MAPS, resourceVersion=version(cluster)) as events:
        server.faults.drop_watches()
        assert types(events) == []


def test_watches_end_with_their_connection(cluster: Cluster, server: Server) -> None:
    with cluster.watch(MAPS, resourceVersion=version(cluster)) as events:
        server.faults.drop_watches(abruptly=True)
        with pytest.raises(httpx.RemoteProtocolError):
            next(events)


def test_watches_are_told_that_they_are_too_old(cluster: Cluster, server: Server) -> None:
    with cluster.watch(MAPS, resourceVersion=version(cluster)) as events:
        server.faults.expire_watches()
        (error,) = list(events)
    assert error["object"]["reason"] == "Expired"


def test_watches_are_told_nonsense(cluster: Cluster, server: Server) -> None:
    with cluster.watch(MAPS, resourceVersion=version(cluster)) as events:
        server.faults.say(b"{nonsense\n")
        with pytest.raises(ValueError, match="double quotes"):
            next(events)


def test_a_half_open_connection_stands_and_says_nothing(cluster: Cluster, server: Server) -> None:
    since = version(cluster)
    with cluster.watch(MAPS, resourceVersion=since, within=SHORT) as events:
        with server.faults.half_open():
            with pytest.raises(httpx.ReadTimeout):
                get(cluster, timeout=SHORT)
            server.plant(configmap("a"))
            server.faults.bookmark()
        assert names(cluster.request("GET", MAPS)) == ["a"]
        with pytest.raises(httpx.ReadTimeout):
            next(events)


def names(answer: Object) -> list[str]:
    return [each["metadata"]["name"] for each in answer["items"]]


def test_a_restart_keeps_objects_and_port_and_forgets_the_past(
    cluster: Cluster, server: Server
) -> None:
    before = version(cluster)
    cluster.create(configmap("a"))
    with cluster.watch(MAPS, resourceVersion=before) as events:
        assert types(islice(events, 1)) == ["ADDED"]
        server.restart()
        with pytest.raises(httpx.HTTPError):
            next(events)
    assert names(cluster.request("GET", MAPS)) == ["a"]
    with cluster.watch(MAPS, resourceVersion=before) as events:
        assert types(events) == ["ERROR"]
    server.stop()
    with pytest.raises(httpx.ConnectError):
        get(cluster)
    server.start()
    assert int(cluster.create(configmap("b"))["metadata"]["resourceVersion"]) > int(before)


def test_objects_can_be_as_wrong_as_a_server_that_checks_less_lets_them(
    cluster: Cluster, server: Server
) -> None:
    wrong = slice_("a", endpoints=[{"addresses": None}])
    with refused(422):
        cluster.create(wrong)
    server.plant(wrong)
    assert cluster.get(wrong)["endpoints"] == [{"addresses": None}]


def test_an_older_server_knows_no_watch_that_lists(cluster: Cluster, server: Server) -> None:
    server.faults.without_watchlist = True
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    with pytest.raises(Answered, match="422"), cluster.watch(MAPS, **query):
        pass
