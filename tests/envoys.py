"""A real Envoy under a control plane whose world a test moves by hand, delta and SotW."""

import asyncio
import json
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
from peers import CONTROL_PLANE, SERVER_NAME, STORE, Authority, Source, serving

from meshfed.xds.resource import Resource, Type, World, resource
from meshfed.xds.server import Server, Tls

ENVOY = Path(sys.executable).with_name("envoy")
ADS = {"ads": {}, "resource_api_version": "V3"}
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Well below the 15 s after which Envoy gives up waiting for what it should have been sent.
SOON = 12.0

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
