"""The bookstore by kubectl: `serve`, real Envoys, and nothing written but objects of a cluster.

Pods have loopback addresses here, and an API server takes none of those in an EndpointSlice: the
slices, which a controller would write, are planted past its validation. All else is kubectl's.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
import yaml
from applications import Web, listening
from clusters import Object, endpoint, pod, slices
from kube.cluster import Cluster
from live import Mesh, Sidecar, traffic

from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.federation.demo import envoys
from meshfed.federation.demo.control import until
from meshfed.federation.demo.envoys import ADMIN
from meshfed.federation.demo.folder import replace
from meshfed.federation.specification.files import Held, held, scan
from meshfed.xds.bootstrap import CONTROL_PLANE

ROOT = Path(__file__).parent.parent
CRDS, POLICY = ROOT / "deploy/crds", ROOT / "deploy/demo/policy"
PORT = 14001  # of every application
AT = {  # pods, by name
    "bookbuyer": "127.0.51.1",
    "bookthief": "127.0.51.2",
    "bookstore-v1": "127.0.51.11",
    "bookstore-v2": "127.0.51.12",
    "reviews": "127.0.51.21",
}
STORES = {  # clusters of who buys: by their own names, and through the split
    f"{root}bookstore-v{n}.shop|8080" for root in ("", "bookstore.shop>") for n in (1, 2)
}
SERVICES = ("bookstore", "bookstore-v1", "bookstore-v2", "bookwarehouse")
PING = 17  # bytes of an HTTP/2 ping: either end sends one in 30 s without a word
GO_ON = 13  # … and of a WINDOW_UPDATE, by which a sidecar may go on reporting its calls
SOON = 1.0  # seconds


def account(name: str) -> str:
    return f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: shop}}
"""


def service(name: str) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{ports: [{{name: http, port: 8080, targetPort: {PORT}}}]}}
"""


NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {meshfed.io/mesh: shop}}
"""
SHOP = "---".join((NAMESPACE, *map(account, (*AT, "bookwarehouse")), *map(service, SERVICES)))
REVIEWS = """
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: bookbuyer-reads-reviews, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: reviews, namespace: shop}
  sources: [{kind: ServiceAccount, name: bookbuyer, namespace: shop}]
  rules: [{kind: HTTPRouteGroup, name: reviews}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: reviews, namespace: shop}
spec: {matches: [{name: all}]}
"""


def running(name: str) -> Object:
    """A pod with a sidecar."""
    made = pod(name, AT[name], serviceAccountName=name)
    made["metadata"]["annotations"] = {
        "meshfed.io/interception": "explicit",
        "meshfed.io/bind": AT[name],
        "meshfed.io/application": AT[name],
    }
    return made


def answering(name: str, pod: Object) -> Object:
    made = slices(endpoint(AT[name], pod), of=name)
    made["ports"][0]["port"] = PORT
    return made


class Shop:
    """The mesh, and the cluster that it is made of."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.mesh = Mesh(folder, "hosts: []", {})
        self.mesh.binds = {f"{name}.shop": address for name, address in AT.items()}
        reached = {
            "type": "kubernetes",
            "kubeconfig": str(cluster.kubeconfig),
            "context": cluster.name,
        }
        self.mesh.written |= {"providers": [{"name": "aks", **reached}], "specification": [reached]}
        replace(self.mesh.config, yaml.safe_dump(self.mesh.written))
        self.webs = {name: Web(name) for name in AT}

    @property
    def url(self) -> str:
        return f"sqlite:///{self.mesh.folder / 'meshfed.db'}"

    def sidecar(self, name: str) -> Sidecar:
        return self.mesh.sidecars[f"{name}.shop"]

    async def kubectl(self, *arguments: str, given: object = None) -> float:
        """When it was done."""
        await asyncio.to_thread(self.cluster.kubectl, *arguments, given=given)
        return time.monotonic()

    async def ask(self, sql: str) -> list[tuple[object, ...]]:
        answer = await asyncio.to_thread(query, self.url, sql)
        return [tuple(row) for row in answer.rows]

    async def within(self, what: str, since: float, so: Callable[[], Awaitable[bool]]) -> None:
        """It becomes so, a second after kubectl was done at the latest."""
        await until(what, so)
        took = time.monotonic() - since
        assert took <= SOON, f"{what} took {took:.2f} s"
        print(f"{what}: {took * 1000:.0f} ms")

    async def clusters(self, name: str) -> set[str]:
        """What a sidecar may call."""
        at = AT[name]
        _, text = await asyncio.to_thread(envoys.get, at, ADMIN, "/clusters?format=json")
        names = {each["name"] for each in json.loads(text)["cluster_statuses"]}
        return {each.partition(":")[0] for each in names if "|" in each}

    async def received(self, name: str) -> int:
        """Bytes that a sidecar has had from the control plane."""
        stats = await self.sidecar(name).stats()
        return stats[f"cluster.{CONTROL_PLANE}.upstream_cx_rx_bytes_total"]

    async def status(self, name: str, authority: str, path: str = "/") -> int:
        async with self.sidecar(name).http() as client:
            return (await client.get(path, headers={"host": authority})).status_code

    def answers(self, name: str, authority: str, status: int) -> Callable[[], Awaitable[bool]]:
        async def so() -> bool:
            return await self.status(name, authority) == status

        return so

    def calls(self, name: str, clusters: set[str]) -> Callable[[], Awaitable[bool]]:
        async def so() -> bool:
            return await self.clusters(name) == clusters

        return so

    def says(self, sql: str, rows: list[tuple[object, ...]]) -> Callable[[], Awaitable[bool]]:
        async def so() -> bool:
            return await self.ask(sql) == rows

        return so


@asynccontextmanager
async def shop(cluster: Cluster, folder: Path) -> AsyncIterator[Shop]:
    """All that kubectl applies, and the sidecars of those who buy, sell and steal."""
    assert cluster.server, "a real one has no loopback addresses"
    made = Shop(cluster, folder)
    async with AsyncExitStack() as stack:
        for name, web in made.webs.items():
            await stack.enter_async_context(listening(web, AT[name], PORT))
        stack.callback(made.mesh.end)
        await made.kubectl("apply", "-f", str(CRDS))
        await made.kubectl("wait", "--for=condition=Established", "crd", "--all")
        await made.mesh.serve()
        await made.kubectl("apply", "-f", "-", given=SHOP)
        await made.kubectl("apply", "-f", str(POLICY))
        for name in AT:
            there = await asyncio.to_thread(cluster.put, running(name))
            if name not in ("bookbuyer", "bookthief"):
                cluster.server.plant(answering(name, there))

        async def known() -> bool:
            return len(await made.ask("select name from mesh_workloads")) == len(AT)

        await until("the pods to be known", known)
        callers = ("bookbuyer", "bookthief", "bookstore-v1", "bookstore-v2")
        await made.mesh.start(*(f"{name}.shop" for name in callers))
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mesh"
    made.mkdir()
    return made


async def test_kubectl_makes_the_policy_and_the_split_of_the_demo_and_changes_a_service(
    cluster: Cluster, folder: Path
) -> None:
    async with shop(cluster, folder) as made:
        await the_demos_policy(made)
        await the_split_that_kubectl_patches(made)
        await a_service_that_comes_changes_and_goes(made)


async def the_demos_policy(made: Shop) -> None:
    files = held(Held(), scan(POLICY).texts).specified("files:policy")
    with closing(Catalog(made.url)) as catalog:
        mesh = await catalog.read()
    assert set(mesh.policies) == {policy for policy, _ in files.policies}
    assert await made.ask("select distinct source, state from mesh_policies") == [
        (f"kubernetes:{made.cluster.kubeconfig}:{made.cluster.name}", "accepted")
    ]
    assert await made.ask(
        "select source_identity, destination_service, path from mesh_access"
        " where source_identity = 'bookbuyer.shop' order by 2, 3"
    ) == [
        ("bookbuyer.shop", f"bookstore-{version}.shop", path)
        for version in ("v1", "v2")
        for path in ("/books-bought", "/buy-a-book/new")
    ]
    split = "select backend, weight from mesh_splits where service = 'bookstore.shop' order by 1"
    assert await made.ask(split) == [("bookstore-v1.shop", 100), ("bookstore-v2.shop", 0)]


async def the_split_that_kubectl_patches(made: Shop) -> None:
    buy = "/buy-a-book/new"
    async with traffic(made.sidecar("bookbuyer"), "bookstore.shop:8080", buy) as bought:
        await bought.more(20)
        assert {name for _, name in bought.made} == {"bookstore-v1"}
        backends = [{"service": f"bookstore-v{n}", "weight": 100 * (n - 1)} for n in (1, 2)]
        kind, change = "trafficsplits.split.smi-spec.io", {"spec": {"backends": backends}}
        patch = ("patch", kind, "bookstore", "-n", "shop", "--type=merge", "-p", json.dumps(change))
        patched = await made.kubectl(*patch)

        async def moved() -> bool:
            await bought.more(5)
            return {name for _, name in bought.made[-5:]} == {"bookstore-v2"}

        await made.within("the split", patched, moved)
    assert await made.status("bookthief", "bookstore.shop:8080", buy) == 404
    assert await made.status("bookbuyer", "bookstore.shop:8080", "/restock") == 403


async def a_service_that_comes_changes_and_goes(made: Shop) -> None:
    await made.kubectl("apply", "-f", "-", given=REVIEWS)
    assert await made.status("bookbuyer", "reviews.shop:8080") == 404
    await until("everyone to be in sync", made.mesh.in_sync)
    before = await made.received("bookthief")

    created = await made.kubectl("create", "-f", "-", given=service("reviews"))
    await made.within(
        "the cluster", created, made.calls("bookbuyer", STORES | {"reviews.shop|8080"})
    )
    certificate = "select identity, service, state from mesh_certificates where service like 'rev%'"
    connected = "select workload from mesh_proxies where identity = 'reviews.shop'"
    unclaimed = [("reviews.shop", "reviews.shop", "unclaimed")]
    await made.within("its certificate", created, made.says(certificate, unclaimed))
    assert await made.ask(connected) == []
    await made.mesh.start("reviews.shop")
    await until("its proxy to be known", made.says(connected, [("reviews.shop",)]))
    await until("an answer", made.answers("bookbuyer", "reviews.shop:8080", 200))

    spec = {"ports": [{"name": "http", "port": 9090, "targetPort": PORT}]}
    patch = ("patch", "service", "reviews", "-n", "shop", "--type=merge", "-p")
    patched = await made.kubectl(*patch, json.dumps({"spec": spec}))
    await made.within("the new port", patched, made.answers("bookbuyer", "reviews.shop:9090", 200))
    assert await made.status("bookbuyer", "reviews.shop:8080") == 404

    deleted = await made.kubectl("delete", "service", "reviews", "-n", "shop")
    await made.within("the end", deleted, made.answers("bookbuyer", "reviews.shop:9090", 404))
    await made.within("no cluster", deleted, made.calls("bookbuyer", STORES))

    more = await made.received("bookthief") - before
    alone = {PING * pings + GO_ON * frames for pings in range(5) for frames in range(10)}
    assert more in alone, f"{more} bytes for who may not call it"
    print(f"bytes for who may not call it: {more}")
    assert await made.status("bookthief", "reviews.shop:9090") == 404
    told = await made.ask(
        "select change from mesh_changes where what = 'service' and object = 'reviews.shop'"
        " order by revision"
    )
    assert [change for (change,) in told] == ["joined", "changed", "left"]
