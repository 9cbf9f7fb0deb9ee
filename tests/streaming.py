"""Clients of the xDS server over real TLS on loopback: grpc's own."""

from contextlib import asynccontextmanager, suppress

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryResponse,
)
from peers import SERVER_NAME

from meshfed.xds.resource import Type, World, resource
from meshfed.xds.server import SERVICE, Server, Tls


def world(revision: int, *clusters: str) -> World:
    """`world(1, "a", "b:other content")`."""
    made = [
        resource(name, Cluster(name=name, alt_stat_name=content))
        for name, _, content in (text.partition(":") for text in clusters)
    ]
    return World(revision, {Type.CLUSTER: {r.name: r for r in made}})


@asynccontextmanager
async def connecting(server: Server, tls: Tls | None, root: bytes):
    credentials = grpc.ssl_channel_credentials(
        root, *((tls.key, tls.chain) if tls else (None, None))
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield channel


def opened(channel, *, delta: bool = True):
    method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
    response = DeltaDiscoveryResponse if delta else DiscoveryResponse
    return channel.stream_stream(
        f"/{SERVICE}/{method}",
        request_serializer=lambda request: (
            request if isinstance(request, bytes) else request.SerializeToString()
        ),
        response_deserializer=response.FromString,
    )()


@asynccontextmanager
async def streaming(server: Server, tls: Tls | None, root: bytes, *, delta: bool = True):
    async with connecting(server, tls, root) as channel:
        yield opened(channel, delta=delta)


def clusters(node: str = "node", **fields) -> DeltaDiscoveryRequest:
    request = DeltaDiscoveryRequest(type_url=Type.CLUSTER, **fields)
    request.node.id = node
    return request


async def ending(call) -> tuple[grpc.StatusCode, str]:
    """How the server ends a stream that it has not ended yet."""
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            continue
    return await call.code(), await call.details()
