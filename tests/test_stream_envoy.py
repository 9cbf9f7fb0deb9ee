"""Conversations with the real Envoy, delta and SotW: what xds.md calls findings, kept true."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as http,
)
from google.protobuf.json_format import ParseDict
from peers import CONTROL_PLANE, SERVER_NAME, STORE, Authority, Source, Tally, serving

from meshfed.xds.resource import Resource, Type, World, resource
from meshfed.xds.server import Server, Tls

ENVOY = Path(sys.executable).with_name("envoy")
ADS = {"ads": {}, "resource_api_version": "V3"}
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Well below the 15 s after which Envoy gives up waiting for what it should have been sent.
SOON = 6.0

BOTH = pytest.mark.parametrize("api", ["DELTA_GRPC", "GRPC"], ids=["delta", "sotw"])


def cluster(name: str, seconds: int = 1, *, bad: bool = False) -> Resource:
    """`seconds` is something to change."""
    fields = {
        "name": name,
        "type": "EDS",
        "connect_timeout": f"{seconds}s",
        "eds_cluster_config": {"eds_config": ADS},
    }
    if bad:
        fields["lb_policy"] = "RING_HASH"
        fields["ring_hash_lb_config"] = {"minimum_ring_size": 100, "maximum_ring_size": 10}
    return resource(name, ParseDict(fields, Cluster()))


def endpoints(name: str, port: int) -> Resource:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    fields = {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }
    return resource(name, ParseDict(fields, ClusterLoadAssignment()))


def routes(to: str) -> Resource:
    route = {"match": {"prefix": "/"}, "route": {"cluster": to}}
    host = {"name": "all", "domains": ["*"], "routes": [route]}
    return resource("r", ParseDict({"name": "r", "virtual_hosts": [host]}, RouteConfiguration()))


def listener() -> Resource:
    manager = http.HttpConnectionManager(stat_prefix="l")
    manager.rds.route_config_name = "r"
    ParseDict(ADS, manager.rds.config_source)
    manager.http_filters.add(name="envoy.filters.http.router").typed_config.Pack(Router())
    listener = Listener(name="l")
    listener.address.socket_address.address = "127.0.0.1"
    listener.address.socket_address.port_value = 0
    listener.filter_chains.add().filters.add(name="http").typed_config.Pack(manager)
    return resource("l", listener)


def world(revision: int, route: str, port: int, *clusters: Resource) -> World:
    """One listener that leads to `route`; all clusters have the same endpoint."""
    of = {
        Type.CLUSTER: clusters,
        Type.ENDPOINTS: [endpoints(cluster.name, port) for cluster in clusters],
        Type.LISTENER: [listener()],
        Type.ROUTES: [routes(route)],
    }
    return World(revision, {kind: {r.name: r for r in some} for kind, some in of.items()})


def bootstrap(api: str, port: int, papers: Path) -> dict[str, object]:
    certificate = {
        "certificate_chain": {"filename": str(papers / "chain.pem")},
        "private_key": {"filename": str(papers / "key.pem")},
    }
    validation = {
        "trusted_ca": {"filename": str(papers / "roots.pem")},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": CONTROL_PLANE}}],
    }
    context = {
        "@type": TLS,
        "common_tls_context": {
            "tls_certificates": [certificate],
            "validation_context": validation,
            "alpn_protocols": ["h2"],
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    xds = {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
    }
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": ADS,
            "lds_config": ADS,
        },
        "static_resources": {"clusters": [xds]},
    }


@dataclass(frozen=True)
class Envoy:
    """A running one, and what can be asked of it."""

    process: asyncio.subprocess.Process
    admin: httpx.AsyncClient
    traffic: httpx.AsyncClient

    async def serves(self) -> int:
        return (await self.traffic.get("/")).status_code

    async def clusters(self) -> set[str]:
        lines = (await self.admin.get("/clusters")).text.splitlines()
        return {line.partition("::")[0] for line in lines} - {"xds"}

    async def stat(self, name: str) -> int:
        text = (await self.admin.get("/stats", params={"filter": f"^{name}$"})).text
        return int(text.rpartition(":")[2])


def client(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{address}", trust_env=False)


@asynccontextmanager
async def running(api: str, server: Server, tls: Tls, folder: Path) -> AsyncIterator[Envoy]:
    for name, content in (("chain", tls.chain), ("key", tls.key), ("roots", tls.roots)):
        (folder / f"{name}.pem").write_bytes(content)
    config = json.dumps(bootstrap(api, server.port, folder))
    where = folder / "admin.txt"
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            ENVOY,
            *("--config-yaml", config, "--admin-address-path", where),
            *("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"),
            stdout=log,
            stderr=log,
        )
    try:
        async with (
            client(await admin_address(where)) as admin,
            client(await listening(admin)) as traffic,
        ):
            yield Envoy(process, admin, traffic)
    finally:
        process.kill()
        await process.wait()


async def admin_address(file: Path) -> str:
    return await found(lambda: asyncio.to_thread(lambda: file.exists() and file.read_text()))


async def listening(admin: httpx.AsyncClient) -> str:
    async def listeners() -> str:
        return (await admin.get("/listeners")).text

    return (await found(listeners)).strip().partition("::")[2]


async def found(probe: Callable[[], Awaitable[str | bool]]) -> str:
    """Another process has no event to wait for."""
    for _ in range(600):
        if text := await probe():
            return str(text)
        await asyncio.sleep(SOON / 600)
    raise AssertionError("Envoy did not start: see its log")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def upstream() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def meeting(
    api: str, source: Source, authority: Authority, folder: Path
) -> AsyncIterator[tuple[Envoy, Server]]:
    own = authority.tls(CONTROL_PLANE, SERVER_NAME)
    async with serving(source, own) as server:
        proxy = authority.tls(STORE, "abc.workload.shop.example")
        async with running(api, server, proxy, folder) as envoy:
            await source.feeds[-1].answered("RDS")
            yield envoy, server


@BOTH
async def test_a_changed_cluster_is_warm_at_once_because_its_endpoints_follow(
    api, authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        assert await envoy.serves() == 200
        source.feeds[0].show(world(2, "a", upstream, cluster("a", seconds=2)))
        await source.feeds[0].settles(2)
        assert await envoy.serves() == 200
        assert await envoy.stat("cluster_manager.warming_clusters") == 0
        assert source.peers[0].envoy_version.startswith("1.")


@BOTH
async def test_a_route_moves_to_a_new_cluster_and_the_old_goes_without_a_failed_request(
    api, authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        seen = {await envoy.serves()}

        async def traffic() -> None:
            while True:
                seen.add(await envoy.serves())

        calls = asyncio.create_task(traffic())
        for revision, (old, new) in enumerate([("a", "b"), ("b", "a"), ("a", "c")], start=2):
            source.feeds[0].show(world(revision, new, upstream, cluster(new)))
            await source.feeds[0].settles(revision)
            assert await envoy.clusters() == {new}, f"{old} stayed"
        calls.cancel()
        assert seen == {200}


@BOTH
async def test_a_rejected_cluster_leaves_the_last_good_one_and_holds_up_no_other(
    api, authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        feed = source.feeds[0]
        feed.show(world(2, "a", upstream, cluster("a", bad=True)))
        await feed.until(lambda: any("ring_size" in r.rejected for r in feed.receipts))
        feed.show(world(3, "b", upstream, cluster("a", bad=True), cluster("b")))
        version = await feed.answered("RDS")
        await feed.until(lambda: feed.receipts[-1].kind == "RDS" and feed.receipts[-1] != version)
        assert await envoy.serves() == 200
        assert await envoy.clusters() == {"a", "b"}
        assert await envoy.stat("cluster_manager.warming_clusters") == 0
        assert len([r for r in feed.receipts if r.rejected]) == 1
        feed.show(world(4, "b", upstream, cluster("a", seconds=3), cluster("b")))
        await feed.settles(4)


@BOTH
async def test_a_rejection_that_envoy_keeps_back_holds_up_routes_for_a_while_only(
    api, authority, upstream, tmp_path, monkeypatch
):
    # Beside a good one, a bad cluster keeps CDS paused, and its own rejection with it.
    monkeypatch.setattr("meshfed.xds.subscription.GATE", 0.3)
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        feed = source.feeds[0]
        feed.show(world(2, "b", upstream, cluster("a", bad=True), cluster("b")))
        await feed.until(lambda: [r.kind for r in feed.receipts].count("RDS") == 2)
        assert await envoy.serves() == 200
        feed.show(world(3, "b", upstream, cluster("a", seconds=3), cluster("b")))
        await feed.settles(3)
        assert [r.kind for r in feed.receipts if "ring_size" in r.rejected] == ["CDS"]
        assert await envoy.stat("cluster_manager.warming_clusters") == 0


async def test_an_envoy_that_comes_back_is_sent_no_cluster_and_no_listener(
    authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting("DELTA_GRPC", source, authority, tmp_path) as (envoy, server):
        await server.stop(0)
        assert await envoy.serves() == 200
        source.opened.clear()
        tally = Tally()
        again = Server(source, lambda: authority.tls(CONTROL_PLANE, SERVER_NAME), tally)
        await again.start(f"127.0.0.1:{server.port}")
        async with asyncio.timeout(SOON):
            await source.opened.wait()
            await source.feeds[1].answered("RDS")
            await source.feeds[1].answered("EDS")
            await source.feeds[1].settles(1)
        await again.stop(0)
        assert tally.resources == {"EDS": 1, "RDS": 1}
        assert await envoy.serves() == 200


@pytest.mark.soak
async def test_t14_a_proxy_that_stopped_is_noticed(authority, upstream, tmp_path):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting("DELTA_GRPC", source, authority, tmp_path) as (envoy, server):
        envoy.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(45):
            await source.feeds[0].closed.wait()
        assert server.streams == 0
