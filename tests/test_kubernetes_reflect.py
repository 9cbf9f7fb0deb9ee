"""The reflector by itself: kinds that are not there yet, pages, and how long it waits."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import yaml
from clusters import SOON
from kube.cluster import Cluster

from meshfed.providers.kubernetes import reflect
from meshfed.providers.kubernetes.access import line
from meshfed.providers.kubernetes.messages import retry_after
from meshfed.providers.kubernetes.options import Where
from meshfed.providers.kubernetes.reflect import Change, Kind, Pace, Reflector, pause

CRD = Path(__file__).parents[1] / "deploy" / "crds"
SPLITS = "/apis/split.smi-spec.io/v1alpha4/trafficsplits"


class Named(msgspec.Struct, frozen=True):
    name: str


class Thing(msgspec.Struct, frozen=True):
    metadata: Named


@dataclass
class Heard:
    """What a reflector says of one kind."""

    reflector: Reflector[Thing]
    changes: list[Change[Thing]] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(10.0):
            while not what():
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def hearing(cluster: Cluster, path: str, pace: Pace = SOON) -> AsyncIterator[Heard]:
    api = line(Where(cluster.name, cluster.kubeconfig), pace)
    heard: Heard

    def changed(change: Change[Thing]) -> None:
        heard.changes.append(change)
        heard.moved.set()

    made = Reflector(api, Kind(path, Thing), changed, lambda: heard.moved.set(), pace)
    heard = Heard(made)
    running = asyncio.create_task(made.run())
    try:
        yield heard
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await api.close()


def configmap(name: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def split(name: str) -> dict[str, object]:
    return {
        "apiVersion": "split.smi-spec.io/v1alpha4",
        "kind": "TrafficSplit",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"service": "web", "backends": [{"service": "web-v1", "weight": 1}]},
    }


async def test_a_kind_that_is_not_there_is_waited_for_and_heard_once_it_is(
    cluster: Cluster,
) -> None:
    async with hearing(cluster, SPLITS) as heard:
        await heard.until(lambda: heard.reflector.trouble)
        assert heard.reflector.trouble.startswith("404")
        assert not heard.reflector.lists
        for file in sorted(CRD.glob("*.yaml")):
            for crd in yaml.load_all(file.read_text(), yaml.CSafeLoader):
                cluster.put(crd)
        await heard.until(lambda: heard.reflector.lists)
        cluster.put(split("web"))
        await heard.until(lambda: heard.reflector.held)
    assert not heard.reflector.fault


async def test_pages_are_one_list(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflect, "PAGE", 3)
    cluster.server.faults.without_watchlist = True
    for n in range(10):
        cluster.put(configmap(f"c-{n}"))
    async with hearing(cluster, "/api/v1/namespaces/default/configmaps") as heard:
        await heard.until(lambda: heard.reflector.lists)
    assert len(heard.reflector.held) == 10


async def test_a_list_that_is_compacted_between_two_pages_begins_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflect, "PAGE", 3)
    cluster.server.faults.without_watchlist = True
    cluster.server.faults.fail(2, 410, verb="list", plural="configmaps")
    for n in range(10):
        cluster.put(configmap(f"c-{n}"))
    async with hearing(cluster, "/api/v1/namespaces/default/configmaps") as heard:
        await heard.until(lambda: heard.reflector.lists)
    assert len(heard.changes) == 10


async def test_a_watch_goes_on_where_the_last_bookmark_was(cluster: Cluster) -> None:
    faults = cluster.server.faults
    async with hearing(cluster, "/api/v1/namespaces/default/configmaps") as heard:
        await heard.until(lambda: heard.reflector.lists)
        cluster.put({**configmap("elsewhere"), "kind": "ServiceAccount"})
        faults.bookmark()
        faults.drop_watches()
        cluster.put(configmap("new"))
        await heard.until(lambda: heard.reflector.held)
    assert heard.reflector.lists == 1


async def test_words_that_are_no_json_cost_the_connection_and_nothing_else(
    cluster: Cluster,
) -> None:
    cluster.put(configmap("old"))
    async with hearing(cluster, "/api/v1/namespaces/default/configmaps") as heard:
        await heard.until(lambda: heard.reflector.held)
        cluster.server.faults.say(b"<html>502 Bad Gateway</html>\n")
        await heard.until(lambda: heard.reflector.fault)
        cluster.put(configmap("new"))
        await heard.until(lambda: len(heard.reflector.held) == 2)
    assert [change.before for change in heard.changes] == [None, None]


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    pace = Pace(first=0.2, longest=30.0)
    assert [pause(n, pace, 0.5) for n in (1, 2, 3, 9, 500)] == [0.2, 0.4, 0.8, 30.0, 30.0]


def test_pauses_are_spread_by_half() -> None:
    pace = Pace(first=1.0)
    assert (pause(1, pace, 0.0), pause(1, pace, 1.0)) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, 0.0), ({"Retry-After": "7"}, 7.0), ({"Retry-After": "Wed, 21 Oct 2026"}, 0.0)],
)
def test_how_long_a_server_wants_to_be_left_alone(
    headers: Mapping[str, str], seconds: float
) -> None:
    assert retry_after(headers) == seconds
