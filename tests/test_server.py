"""The xDS server over real TLS on loopback: grpc's client, and a real Envoy."""

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryResponse,
)

from meshfed.xds.resource import Type, World, resource
from meshfed.xds.server import SERVICE, Peer, Server, Tls

CONTROL_PLANE = "spiffe://shop.example/meshfed/control-plane"
AUTHORITY = x509.NameAttribute(NameOID.COMMON_NAME, "test")
STORE = "spiffe://shop.example/ns/shop/sa/bookstore"


@dataclass
class Authority:
    """Signs what a test asks for."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def sign(self, key: ec.EllipticCurvePrivateKey, seconds: float, *names: x509.GeneralName):
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([] if names else [AUTHORITY])
        extension = (
            x509.SubjectAlternativeName(names)
            if names
            else x509.BasicConstraints(ca=True, path_length=None)
        )
        return (
            x509.CertificateBuilder(x509.Name([AUTHORITY]), subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
            .add_extension(extension, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def root(self) -> bytes:
        return pem(self.sign(self.key, 3600))

    def tls(self, uri: str, *dns: str, seconds: float = 3600) -> Tls:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(uri), *map(x509.DNSName, dns)]
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Tls(pem(self.sign(key, seconds, *names)), private, self.root)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Receipt:
    kind: str
    version: str
    sent_at: float
    answered_at: float
    rejected: str


class Feed:
    """A world that a test moves by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ended = ""
        self.receipts: list[Receipt] = []
        self.settlements: list[int] = []
        self.closed = asyncio.Event()
        self.news = asyncio.Condition()
        self._moved = asyncio.Event()

    async def changed(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def show(self, world: World) -> None:
        self.world = world
        self._moved.set()

    def finish(self, why: str) -> None:
        self.ended = why
        self._moved.set()

    def receipt(self, *receipt) -> None:
        self.receipts.append(Receipt(*receipt))

    def settled(self, revision: int, at: float) -> None:
        assert abs(at - time.time()) < 5
        self.settlements.append(revision)

    def close(self) -> None:
        self.closed.set()


class Source:
    """Gives every peer a feed of its own, or the refusal it was made with."""

    def __init__(self, world: World, refusal: Exception | None = None) -> None:
        self.world = world
        self.refusal = refusal
        self.peers: list[Peer] = []
        self.feeds: list[Feed] = []

    async def open(self, peer: Peer) -> Feed:
        self.peers.append(peer)
        if self.refusal:
            raise self.refusal
        self.feeds.append(Feed(self.world))
        return self.feeds[-1]


class Tally:
    """What was sent, by type."""

    def __init__(self) -> None:
        self.responses: dict[str, int] = {}
        self.resources: dict[str, int] = {}

    def __call__(self, kind: str, resources: int, size: int) -> None:
        assert size > 0
        self.responses[kind] = self.responses.get(kind, 0) + 1
        self.resources[kind] = self.resources.get(kind, 0) + resources


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def world(revision: int, *clusters: str) -> World:
    made = [resource(name, Cluster(name=name)) for name in clusters]
    return World(revision, {Type.CLUSTER: {r.name: r for r in made}})


@asynccontextmanager
async def serving(
    source: Source, tls: Callable[[], Tls] | Tls, tally: Tally | None = None
) -> AsyncIterator[Server]:
    server = Server(source, tls if callable(tls) else lambda: tls, tally or Tally())
    await server.start("127.0.0.1:0")
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def streaming(server: Server, tls: Tls | None, root: bytes, *, delta: bool = True):
    credentials = grpc.ssl_channel_credentials(
        root, *((tls.key, tls.chain) if tls else (None, None))
    )
    options = [("grpc.ssl_target_name_override", "control-plane.example")]
    method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options) as channel:
        yield channel.stream_stream(
            f"/{SERVICE}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=(
                DeltaDiscoveryResponse if delta else DiscoveryResponse
            ).FromString,
        )()


def clusters(node: str = "node", **fields) -> DeltaDiscoveryRequest:
    request = DeltaDiscoveryRequest(type_url=Type.CLUSTER, **fields)
    request.node.id = node
    return request


async def test_a_peer_is_known_by_its_certificate_and_is_told_its_world(authority):
    source = Source(world(7, "a", "b"))
    control_plane = authority.tls(CONTROL_PLANE, "control-plane.example")
    async with (
        serving(source, control_plane) as server,
        streaming(
            server, authority.tls(STORE, "abc.workload.shop.example"), authority.root
        ) as call,
    ):
        await call.write(clusters())
        response = await call.read()
        assert [r.name for r in response.resources] == ["a", "b"]
        await call.write(clusters(response_nonce=response.nonce))
        source.feeds[0].show(world(8, "a", "c"))
        assert [r.name for r in (await call.read()).resources] == ["c"]
        assert server.streams == 1
    await source.feeds[0].closed.wait()
