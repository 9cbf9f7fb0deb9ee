"""One service of two clusters and a host list: what is called, and what takes over.

Every pod has a loopback address here. No API server takes such an EndpointSlice, so these are
planted in the stand-in's store, past its validation.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import clusters
import live
import pytest
import pytest_asyncio
import yaml
from applications import Web, listening
from kube.cluster import Cluster, kubeconfig, running

from meshfed.catalog.reader import query
from meshfed.federation.demo import envoys

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEB = 14201
CALLER, BUYER = "127.0.61.1", "127.0.61.2"
PODS = {
    "weu": {"weu-1": "127.0.61.11", "weu-2": "127.0.61.12"},
    "neu": {"neu-1": "127.0.61.21"},
}
ADDRESSES = {name: at for pods in PODS.values() for name, at in pods.items()}
ADDRESSES["rack"] = "127.0.61.31"
WEU = {"weu-1", "weu-2"}

# Two services with the same endpoints: the rules of the one are an order, of the other weights.
ORDER, WEIGHTS = "order.live", "weights.live"
RULES = {
    "minimum_healthy": "50%",
    "services": {
        ORDER: {"prefer": ["neu", "weu", "rack"]},
        WEIGHTS: {"prefer": ["same-cluster"], "weights": {"weu": 50, "neu": 20, "rack": 30}},
    },
}
HOSTS = f"""\
services:
  {ORDER}: {{ports: {{http: {{number: 8080, target: {WEB}}}}}}}
  {WEIGHTS}: {{ports: {{http: {{number: 8080, target: {WEB}}}}}}}
hosts:
  - {{name: caller, identity: caller.live, address: {CALLER}, bind: {CALLER}}}
  - {{name: rack, identity: web.live, address: {ADDRESSES["rack"]}, bind: {ADDRESSES["rack"]},
     application: {ADDRESSES["rack"]}, service: [{ORDER}, {WEIGHTS}]}}
"""
POLICY = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all, namespace: live}
spec: {matches: [{name: all}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: web, namespace: live}
spec:
  destination: {kind: ServiceAccount, name: web, namespace: live}
  sources: [{kind: ServiceAccount, name: caller, namespace: live}]
  rules: [{kind: HTTPRouteGroup, name: all}]
"""
EJECTED = re.compile(r"^([^|]+).*::([.0-9]+):\d+::health_flags::/failed_outlier_check$", re.M)


def pod(name: str, address: str, account: str) -> clusters.Object:
    made = clusters.pod(name, address, "live", serviceAccountName=account)
    noted = {"interception": "explicit", "bind": address, "application": address}
    annotations = {f"meshfed.io/{key}": value for key, value in noted.items()}
    return {**made, "metadata": made["metadata"] | {"annotations": annotations}}


def furnish(cluster: Cluster) -> None:
    cluster.put(clusters.namespace("live"))
    pods = {name: cluster.put(pod(name, at, "web")) for name, at in PODS[cluster.name].items()}
    for service in (ORDER, WEIGHTS):
        name, _, _ = service.partition(".")
        ports = [{"name": "http", "port": 8080, "targetPort": WEB}]
        cluster.put(clusters.service(name, "live", ports=ports))
    answering(cluster, pods)
    if cluster.name == "weu":
        cluster.put(pod("buyer", BUYER, "caller"))


def answering(cluster: Cluster, pods: dict[str, clusters.Object]) -> None:
    """The pods that answer for both services, and no others."""
    endpoints = [clusters.endpoint(ADDRESSES[name], each) for name, each in pods.items()]
    for service in (ORDER, WEIGHTS):
        name, _, _ = service.partition(".")
        made = clusters.slices(*endpoints, of=name, namespace="live")
        port = {"name": "http", "port": WEB, "protocol": "TCP"}
        cluster.server.plant({**made, "ports": [port]})


def merged(file: Path, found: list[Cluster]) -> None:
    """One kubeconfig with a context for each."""
    whole, *others = map(kubeconfig, found)
    for other in others:
        for key in ("clusters", "users", "contexts"):
            whole[key] += other[key]
    file.write_text(json.dumps(whole))


@dataclass
class World:
    """A caller on a host, a buyer that is a pod in weu, and whom they call."""

    mesh: live.Mesh
    clusters: dict[str, Cluster]

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in query(f"sqlite:///{self.mesh.folder}/meshfed.db", sql).rows]

    async def until(self, sql: str, *rows: tuple[object, ...]) -> None:
        async def so() -> bool:
            return await asyncio.to_thread(self.ask, sql) == list(rows)

        await live.until(f"{rows} of {sql}", so)

    def kill(self, *names: str) -> None:
        for name in names:
            self.mesh.sidecars.pop(sidecar(name)).process.kill()

    async def revive(self) -> None:
        await self.mesh.start(*({*map(sidecar, ADDRESSES)} - self.mesh.sidecars.keys()))

    async def ejected(self, names: set[str], *callers: tuple[str, str]) -> float:
        """Once these are left alone by who calls that service; the moment."""

        async def so() -> bool:
            for caller, service in callers:
                address = self.mesh.sidecars[caller].address
                _, text = await asyncio.to_thread(envoys.get, address, envoys.ADMIN, "/clusters")
                found = {at for of, at in EJECTED.findall(text) if of == service}
                if not {ADDRESSES[name] for name in names} <= found:
                    return False
            return True

        await live.until(f"{names} being left alone", so)
        return time.time()


def sidecar(name: str) -> str:
    return name if name in ("caller", "rack") else f"{name}.live"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("clusters")
    made = live.Mesh(folder, HOSTS, {"web.yaml": POLICY})
    async with AsyncExitStack() as stack:
        found = {name: stack.enter_context(running(folder / name, name)) for name in PODS}
        for cluster in found.values():
            await asyncio.to_thread(furnish, cluster)
        merged(folder / "kubeconfig.yaml", list(found.values()))
        made.written["providers"] += [
            {"name": name, "type": "kubernetes", "kubeconfig": "kubeconfig.yaml", "context": name}
            for name in found
        ]
        live.replace(made.config, yaml.safe_dump({**made.written, "federation": RULES}))
        made.binds |= {sidecar(name): at for name, at in ADDRESSES.items()}
        made.binds["buyer.live"] = BUYER
        for name, at in ADDRESSES.items():
            await stack.enter_async_context(listening(Web(name), at, WEB))
        stack.callback(made.end)
        await made.serve()
        world = World(made, found)
        await world.until("select count(*) from mesh_workloads", (6,))
        await made.start("caller", "buyer.live", *map(sidecar, ADDRESSES))
        yield world


def failed(traffic: live.Traffic, since: float = 0.0) -> list[str]:
    return [name for at, name in traffic.made if at > since and name not in ADDRESSES]


async def shares(traffic: live.Traffic, count: int = 400, **weights: int) -> None:
    """As many as the weights say, within five standard deviations, of whom the clusters' add up."""
    await traffic.more(count)
    seen = Counter(name.partition("-")[0] for _, name in traffic.made[-count:])
    assert seen.keys() == weights.keys()
    for name, weight in weights.items():
        share = weight / sum(weights.values())
        most = 5 * sqrt(count * share * (1 - share))
        assert seen[name] == pytest.approx(count * share, abs=most), (name, seen)


async def test_one_service_has_the_endpoints_of_all_and_says_whose_they_are(world: World) -> None:
    rows = world.ask(
        "select provider, platform, cluster, address, identity from mesh_endpoints"
        f" where service = '{ORDER}' order by address"
    )
    assert rows == [
        ("weu", "kubernetes", "weu", "127.0.61.11", "web.live"),
        ("weu", "kubernetes", "weu", "127.0.61.12", "web.live"),
        ("neu", "kubernetes", "neu", "127.0.61.21", "web.live"),
        ("rack", "host", "", "127.0.61.31", "web.live"),
    ]


async def test_a_cluster_that_is_scaled_down_hands_over_and_takes_back_in_order(
    world: World,
) -> None:
    neu, weu = world.clusters["neu"], world.clusters["weu"]
    pods = {
        each.name: {
            name: each.get(clusters.pod(name, namespace="live")) for name in PODS[each.name]
        }
        for each in (neu, weu)
    }
    async with live.traffic(world.mesh.sidecars["caller"], ORDER, "/") as traffic:
        await traffic.settled({"neu-1"})
        answering(neu, {})
        await traffic.settled(WEU)
        answering(weu, {})
        await traffic.settled({"rack"})
        answering(weu, pods["weu"])
        await traffic.settled(WEU)
        answering(neu, pods["neu"])
        await traffic.settled({"neu-1"})
    assert failed(traffic) == []


@pytest.mark.parametrize(
    "outage", [0, pytest.param(40, marks=[pytest.mark.soak, pytest.mark.timeout(180)])]
)
async def test_platforms_whose_processes_die_are_left_in_order_and_by_weight(
    world: World, outage: int
) -> None:
    """With both API servers away: who takes over is known beforehand.

    What was ejected is tried again after 5 s, 10 s, ...: in vain, and nobody notices.
    """
    await world.revive()
    for cluster in world.clusters.values():
        await asyncio.to_thread(cluster.server.stop)
    caller, buyer = (world.mesh.sidecars[name] for name in ("caller", "buyer.live"))
    async with (
        live.traffic(caller, ORDER, "/") as order,
        live.traffic(caller, WEIGHTS, "/") as weighted,
        live.traffic(buyer, WEIGHTS, "/") as near,
    ):
        everyone = (order, weighted, near)
        await order.settled({"neu-1"})
        await near.settled(WEU)
        await shares(weighted, weu=50, neu=20, rack=30)

        world.kill("neu-1")
        gone = await world.ejected({"neu-1"}, ("caller", ORDER), ("caller", WEIGHTS))
        await weighted.after(gone, 1)
        await shares(weighted, weu=50, rack=30)
        await order.settled(WEU)
        await near.settled(WEU)
        assert [failed(each, gone) for each in everyone] == [[], [], []]

        world.kill(*WEU)
        callers = ("caller", ORDER), ("caller", WEIGHTS), ("buyer.live", WEIGHTS)
        gone = await world.ejected(WEU, *callers)
        await asyncio.sleep(outage)
        for each in everyone:
            await each.after(time.time(), 50)
            assert {name for at, name in each.made if at > gone} == {"rack"}
        assert max(len(failed(each)) for each in everyone) <= 2  # what was under way at each end
    for cluster in world.clusters.values():
        await asyncio.to_thread(cluster.server.start)


@pytest.mark.soak
async def test_platforms_that_return_are_called_again(world: World) -> None:
    await world.revive()
    async with live.traffic(world.mesh.sidecars["caller"], ORDER, "/") as traffic:
        await traffic.settled({"neu-1"})
    assert failed(traffic) == []
