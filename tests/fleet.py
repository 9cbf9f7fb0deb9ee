"""Proxies that only listen, to whichever replica answers: delta ADS over real mutual TLS.

Each remembers what it was told, as an Envoy does, over the end of a stream and into the next.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from live import Mesh
from strangers import Papers, context, tunnel

from meshfed.xds.resource import Type
from meshfed.xds.server import SERVICE

FIRST = (Type.CLUSTER, Type.ENDPOINTS)
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),  # as sidecars do (xds/bootstrap.py)
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
REST = 0.2  # seconds between two attempts
PATIENCE = 3.0  # seconds for a first answer


@dataclass
class Proxy:
    name: str
    papers: Papers
    replicas: Sequence[Mesh]
    versions: dict[Type, dict[str, str]] = field(default_factory=lambda: {k: {} for k in FIRST})
    told: dict[str, frozenset[str]] = field(default_factory=dict)  # assignment → addresses
    streams: int = 0
    at: Mesh | None = None  # whom it listens to
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    lost: list[tuple[float, str]] = field(default_factory=list)
    always: frozenset[str] = frozenset()  # the addresses that it should never be without

    def addresses(self) -> frozenset[str]:
        return frozenset(address for each in self.told.values() for address in each)

    async def run(self) -> None:
        turn = random.Random(self.name).randrange(len(self.replicas))
        while True:
            with suppress(grpc.aio.AioRpcError, ConnectionError, TimeoutError, ssl.SSLError):
                await self._listen(self.replicas[turn % len(self.replicas)])
            self.at = None
            turn += 1
            await asyncio.sleep(REST)

    async def _listen(self, replica: Mesh) -> None:
        async with (
            tunnel(replica, context(self.papers)) as through,
            grpc.aio.insecure_channel(f"127.0.0.1:{through.port}", OPTIONS) as channel,
        ):
            call = channel.stream_stream(
                f"/{SERVICE}/DeltaAggregatedResources",
                request_serializer=lambda each: each.SerializeToString(),
                response_deserializer=DeltaDiscoveryResponse.FromString,
            )()
            await call.write(self._begin(Type.CLUSTER, "*"))
            if self.versions[Type.ENDPOINTS]:
                await call.write(self._begin(Type.ENDPOINTS, *self.versions[Type.ENDPOINTS]))
            async with asyncio.timeout(PATIENCE) as first:
                while (said := await call.read()) is not grpc.aio.EOF:
                    first.reschedule(None)
                    if self.at is None:
                        self.at, self.streams = replica, self.streams + 1
                    await self._take(call, said)

    def _begin(self, kind: Type, *names: str) -> DeltaDiscoveryRequest:
        request = DeltaDiscoveryRequest(type_url=kind, resource_names_subscribe=names)
        request.node.id = self.name
        request.initial_resource_versions.update(self.versions[kind])
        return request

    async def _take(self, call: grpc.aio.StreamStreamCall, said: DeltaDiscoveryResponse) -> None:
        kind = Type(said.type_url)
        await call.write(DeltaDiscoveryRequest(type_url=kind, response_nonce=said.nonce))
        known = self.versions[kind]
        known |= {each.name: each.version for each in said.resources}
        for name in said.removed_resources:
            known.pop(name, None)
        if kind is Type.CLUSTER:
            clusters = [Cluster.FromString(each.resource.value) for each in said.resources]
            fed = {each.name for each in clusters if each.type == Cluster.EDS}
            if new := fed - self.versions[Type.ENDPOINTS].keys():
                await call.write(
                    DeltaDiscoveryRequest(
                        type_url=Type.ENDPOINTS, resource_names_subscribe=sorted(new)
                    )
                )
        else:
            for each in said.resources:
                self.told[each.name] = addresses(each.resource.value)
            for name in said.removed_resources:
                self.told.pop(name, None)
            if self.streams and (gone := self.always - self.addresses()):
                self.lost.append((time.time(), f"{len(gone)} of {len(self.always)}"))
        self.moved.set()


def addresses(packed: bytes) -> frozenset[str]:
    assignment = ClusterLoadAssignment.FromString(packed)
    return frozenset(
        each.endpoint.address.socket_address.address
        for locality in assignment.endpoints
        for each in locality.lb_endpoints
    )
