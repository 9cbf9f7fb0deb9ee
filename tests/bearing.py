"""A control plane with a door for pods, beside a cluster, and who comes with a token."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
from clusters import namespace, pod, provider
from kube.cluster import Cluster, running
from kube.given import thing
from prometheus_client import CollectorRegistry
from publishing import DOMAIN
from streaming import clusters, ending, opened

from meshfed.catalog.model import Known
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.bearers import Bearers
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.keys import Seal
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.traffic import Traffic
from meshfed.federation.wanted import identities
from meshfed.xds.listening import Tls
from meshfed.xds.reporting import LoadReporting
from meshfed.xds.server import Server

HOUR = timedelta(hours=1)
WEB = pod("web-1", "10.0.0.1")
WEB["metadata"]["annotations"] = {"meshfed.io/interception": "transparent"}
TRIES = 5


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Mesh:
    """A control plane with a door for pods, beside a cluster."""

    cluster: Cluster
    catalog: Catalog
    server: Server
    registry: CollectorRegistry
    clock: Clock
    control: ControlPlane
    asked: int = 0  # how often somebody came with a token

    @property
    def roots(self) -> bytes:
        return self.control.roots_pem.encode()

    def account(self, name: str, home: str = "shop") -> None:
        self.cluster.put(thing("v1", "ServiceAccount", name, home))

    def token(self, of: dict | None = WEB, account: str = "web", **spec: object) -> str:
        """What kubelet mounts into a pod."""
        home = of["metadata"]["namespace"] if of else "shop"
        if of:
            uid = self.cluster.get(of)["metadata"]["uid"]
            name = of["metadata"]["name"]
            bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
            spec = {"boundObjectRef": bound, **spec}
        path = f"/api/v1/namespaces/{home}/serviceaccounts/{account}/token"
        body = {"spec": {"audiences": ["meshfed"], **spec}}
        return self.cluster.request("POST", path, body)["status"]["token"]

    async def observe(self) -> None:
        """What the provider sees now, into the catalog."""
        seen: dict[str, object] = {}
        async with aclosing(provider(self.cluster).observe()) as news, asyncio.timeout(10):
            async for each in news:
                seen[each.scope] = each
                if each.scope in ("aks/shop", "aks/*"):
                    break
        for scope in ("aks/shop",):
            each = seen.get(scope)
            workloads = each.workloads if each else frozenset()
            await self.catalog.believe(
                Known("aks", scope, workloads=workloads), kind="test", cause=""
            )

    @asynccontextmanager
    async def calling(self, *metadata: tuple[str, str]) -> AsyncIterator[grpc.aio.Channel]:
        """A connection, and a stream of it with this metadata."""
        async with self.channel() as channel:
            yield with_metadata(channel, *metadata)

    @asynccontextmanager
    async def channel(self, port: int = 0) -> AsyncIterator[grpc.aio.Channel]:
        shown = grpc.ssl_channel_credentials(self.roots)
        address = f"localhost:{port or self.server.port_of_tokens}"
        options = [("grpc.max_metadata_size", 1 << 20)]
        async with grpc.aio.secure_channel(address, shown, options) as channel:
            yield channel

    async def told(self, token: str) -> tuple[grpc.StatusCode, str] | None:
        """How a pod's stream ends at once; None when it is let in."""
        return await self.answer(bearer(token))

    async def answer(self, *metadata: tuple[str, str]) -> tuple[grpc.StatusCode, str] | None:
        """The same, of who comes with that.

        Where the end comes while it writes, grpc's client calls it INTERNAL, whatever was said.
        """
        for _ in range(TRIES):
            self.asked += 1
            async with self.calling(*metadata) as call:
                said = await answered(call)
            if said is None or said[0] != grpc.StatusCode.INTERNAL:
                break
        return said

    def refused(self, reason: str) -> float:
        name = "meshfed_streams_refused_total"
        return self.registry.get_sample_value(name, {"reason": reason}) or 0.0

    def reviews(self) -> int:
        return self.cluster.server.counted()["create", "tokenreviews"]


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def with_metadata(channel: grpc.aio.Channel, *metadata: tuple[str, str]):
    class Channel:
        def stream_stream(self, method, **kwargs):
            made = channel.stream_stream(method, **kwargs)
            return lambda: made(metadata=metadata)

    return opened(Channel())


async def answered(call) -> tuple[grpc.StatusCode, str] | None:
    try:
        await call.write(clusters("web-1.shop"))
        if await call.read() is not grpc.aio.EOF:
            return None
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    return await ending(call)


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Mesh]:
    with running(folder / "cluster") as cluster:
        cluster.put(namespace())
        url = f"sqlite:///{folder / 'catalog.db'}"
        migrate(url)
        catalog, registry, clock = Catalog(url), CollectorRegistry(), Clock()
        metrics = Metrics(registry)
        await catalog.configure(DOMAIN, permissive=True)
        issuer = await LocalAuthority.open(
            trust_domain=DOMAIN, safe=catalog, seal=Seal(folder / "meshfed.key")
        )
        control = await ControlPlane.open(issuer, DOMAIN, HOUR, hosts=("localhost",))
        custody = Custody(issuer, DOMAIN, HOUR)
        read = await catalog.read()
        custody.keep(identities(read))
        account, presence = Account(read.revision, metrics), Presence(metrics)
        publisher = Publisher(read, catalog, custody, account, metrics, presence, "here")
        bearers = Bearers(
            {"aks": provider(cluster).attestor()}, publisher, "meshfed", metrics, clock
        )
        traffic = Traffic(publisher, catalog, metrics, presence, "here")

        def tls() -> Tls:
            pair = control.current
            return Tls(pair.chain_pem.encode(), pair.key_pem.encode(), control.roots_pem.encode())

        server = Server(
            publisher,
            tls,
            metrics.pushed,
            LoadReporting(traffic, bearers),
            bearers=bearers,
        )
        made = Mesh(cluster, catalog, server, registry, clock, control)
        made.account("web")
        cluster.put(WEB)
        await made.observe()
        await server.start("127.0.0.1:0", "localhost:0")
        async with aclosing(bearers), asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(each) for each in (publisher.run(), custody.run())]
            await publisher.begin()
            yield made
            await server.stop(0)
            for part in parts:
                part.cancel()
        catalog.close()
