"""xDS clients that show any papers, good or forged, to a `meshfed serve` that runs."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from tempfile import NamedTemporaryFile
from typing import Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from google.protobuf.any_pb2 import Any
from live import DOMAIN, Mesh

from meshfed.catalog.model import Mesh as Known
from meshfed.catalog.model import Workload
from meshfed.catalog.store import Catalog
from meshfed.federation.certificates.authority import opened
from meshfed.federation.certificates.keypair import key_pem, pem
from meshfed.federation.settings import Settings
from meshfed.xds.resource import Type
from meshfed.xds.server import SERVICE

HOUR = timedelta(hours=1)
YEAR = timedelta(days=365)
PATIENCE = 5.0  # seconds for anything that should take milliseconds


@dataclass(frozen=True)
class Papers:
    """What a client shows."""

    chain: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """The mesh's own root and its key, as whoever holds the catalog and the key file has them."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    mesh: Known

    @classmethod
    async def of(cls, mesh: Mesh) -> Self:
        settings = Settings.read(mesh.config, {})
        with closing(Catalog(settings.catalog)) as catalog:
            standing = await catalog.authority()
            assert standing is not None
            key = opened(*standing, DOMAIN, settings.certificates.seal)
            return cls(*key, await catalog.read())

    def workload(self, name: str) -> Workload:
        return next(each for each in self.mesh.workloads.values() if each.name == name)

    def uri(self, name: str) -> str:
        identity = self.workload(name).identity
        assert identity is not None
        return identity.uri(DOMAIN)

    def dns(self, name: str) -> str:
        return f"{self.workload(name).id}.workload.{DOMAIN}"

    def issue(
        self,
        uris: Iterable[str],
        dns: Iterable[str],
        *,
        begins: timedelta = -HOUR,
        ends: timedelta = YEAR,
    ) -> Papers:
        """Signs what no issuer of ours would."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        certificate = (
            x509.CertificateBuilder(self.certificate.subject, x509.Name([]), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return Papers(pem((certificate,)), key_pem(key))

    def papers(self, name: str, **when: timedelta) -> Papers:
        """As `proxy bootstrap` would write them."""
        return self.issue([self.uri(name)], [self.dns(name)], **when)


def xds(mesh: Mesh) -> tuple[str, int]:
    host, _, port = mesh.written["xds"]["listen"].rpartition(":")
    return host, int(port)


def context(papers: Papers | None) -> ssl.SSLContext:
    """TLS as Envoy speaks it here; the server's name is a URI, which Python does not check."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["h2"])
    if papers:
        with NamedTemporaryFile("w") as shown:
            shown.write(papers.key + papers.chain)
            shown.flush()
            made.load_cert_chain(shown.name)
    return made


@dataclass
class Tunnel:
    """Carries grpc's bytes through a TLS of our own: grpc insists on a DNS name at the server."""

    port: int = 0
    heard: int = 0  # bytes that the server said inside TLS


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def ended(streams: Streams) -> AsyncIterator[Streams]:
    """Closed at the end, whatever the other side says."""
    try:
        yield streams
    finally:
        streams[1].transport.abort()
        with suppress(ConnectionError, ssl.SSLError):
            await streams[1].wait_closed()


@asynccontextmanager
async def dialled(mesh: Mesh, tls: ssl.SSLContext | None) -> AsyncIterator[Streams]:
    async with ended(await asyncio.open_connection(*xds(mesh), ssl=tls)) as streams:
        yield streams


@asynccontextmanager
async def tunnel(mesh: Mesh, tls: ssl.SSLContext) -> AsyncIterator[Tunnel]:
    made = Tunnel()
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool):
        while said := await reader.read(65536):
            made.heard += len(said) * back
            writer.write(said)
            await writer.drain()

    async def connected(*near: *Streams) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        # Cancelled at the end, and asyncio would log that.
        with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            async with ended(near), dialled(mesh, tls) as far:
                ways = (carry(near[0], far[1], back=False), carry(far[0], near[1], back=True))
                running = [asyncio.create_task(way) for way in ways]
                try:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in running:
                        way.cancel()
                    await asyncio.gather(*running, return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Client:
    """One ADS stream; acknowledges whatever it is told."""

    call: grpc.aio.StreamStreamCall
    tunnel: Tunnel
    node: str
    delta: bool

    async def ask(self, kind: Type, *names: str, nonce: str = "") -> None:
        if self.delta:
            request = DeltaDiscoveryRequest(type_url=kind, response_nonce=nonce)
            request.resource_names_subscribe.extend(() if nonce else names)
        else:
            request = DiscoveryRequest(
                type_url=kind, resource_names=names, response_nonce=nonce, version_info=nonce
            )
        request.node.id = self.node
        await self.call.write(request)

    async def answer(self, *names: str) -> DeltaDiscoveryResponse | DiscoveryResponse:
        """The next; acknowledged as a subscription to these."""
        async with asyncio.timeout(PATIENCE):
            response = await self.call.read()
        if response is grpc.aio.EOF:
            raise AssertionError(f"ended: {await self.call.code()} {await self.call.details()}")
        await self.ask(response.type_url, *names, nonce=response.nonce)
        return response

    async def told(self, kind: Type, *names: str) -> list[bytes]:
        await self.ask(kind, *names)
        response = await self.answer(*names)
        assert response.type_url == kind
        packed = (
            [each.resource for each in response.resources] if self.delta else response.resources
        )
        return sorted(each.SerializeToString(deterministic=True) for each in packed)

    async def everything(self) -> Mapping[Type, list[bytes]]:
        return {kind: await self.told(kind, "*") for kind in Type}

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ends, with nothing said before that."""
        async with asyncio.timeout(PATIENCE):
            with suppress(grpc.aio.AioRpcError):
                said = await self.call.read()
                assert said is grpc.aio.EOF, said
            return await self.call.code(), await self.call.details()


@asynccontextmanager
async def connected(
    mesh: Mesh, papers: Papers | None, *, node: str = "any", delta: bool = True
) -> AsyncIterator[Client]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
    method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
    response = DeltaDiscoveryResponse if delta else DiscoveryResponse
    async with (
        tunnel(mesh, context(papers)) as through,
        grpc.aio.insecure_channel(f"127.0.0.1:{through.port}", options) as channel,
    ):
        call = channel.stream_stream(
            f"/{SERVICE}/{method}",
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=response.FromString,
        )()
        yield Client(call, through, node, delta)


def unpacked(packed: bytes) -> Secret:
    wrapped, secret = Any.FromString(packed), Secret()
    assert wrapped.Unpack(secret)
    return secret
