"""Certificates for whoever connects to an xDS server, and a source that a test moves by hand."""

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meshfed.xds.peer import Peer
from meshfed.xds.resource import World
from meshfed.xds.server import IDLE, SHAKING, Server, Tls
from meshfed.xds.subscription import Memory

SERVER_NAME = "control-plane.example"
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
    about: tuple[str, ...]


class Feed:
    """A world that a test moves by hand."""

    def __init__(self, world: World, memory: Memory | None = None) -> None:
        self.world = world
        self.memory: Memory = {} if memory is None else memory
        self.late: list[str] = []
        self.ended = ""
        self.welcome = False
        self.receipts: list[Receipt] = []
        self.settlements: list[int] = []
        self._heard = asyncio.Event()
        self.closed = asyncio.Event()
        self._moved: Callable[[], None] = lambda: None

    def listen(self, moved: Callable[[], None]) -> None:
        self._moved = moved

    def show(self, world: World) -> None:
        self.world = world
        self._moved()

    def finish(self, why: str, *, welcome: bool = False) -> None:
        self.ended, self.welcome = why, welcome
        self._moved()

    def receipt(self, *receipt) -> None:
        self.receipts.append(Receipt(*receipt))
        self._heard.set()

    def overdue(self, kind: str) -> None:
        self.late.append(kind)
        self._heard.set()

    def settled(self, world: World, at: float) -> None:
        assert abs(at - time.time()) < 5
        self.settlements.append(world.revision)
        self._heard.set()

    async def settles(self, revision: int) -> None:
        await self.until(lambda: bool(self.settlements) and self.settlements[-1] >= revision)

    async def answered(self, kind: str) -> Receipt:
        """The last answer to this type, once there is one."""
        await self.until(lambda: any(receipt.kind == kind for receipt in self.receipts))
        return [receipt for receipt in self.receipts if receipt.kind == kind][-1]

    async def until(self, heard: Callable[[], bool]) -> None:
        while not heard():
            self._heard.clear()
            await self._heard.wait()

    def close(self) -> None:
        self.closed.set()


class Source:
    """Gives every peer a feed of its own, or the refusal it was made with.

    What it remembers is of one client: of tests with several, none comes back."""

    def __init__(self, world: World, refusal: Exception | None = None) -> None:
        self.world = world
        self.refusal = refusal
        self.memory: Memory = {}
        self.peers: list[Peer] = []
        self.feeds: list[Feed] = []
        self.opened = asyncio.Event()

    async def open(self, peer: Peer) -> Feed:
        self.peers.append(peer)
        if self.refusal:
            raise self.refusal
        self.feeds.append(Feed(self.world, self.memory))
        self.opened.set()
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


@asynccontextmanager
async def serving(
    source: Source,
    tls: Callable[[], Tls] | Tls,
    tally: Tally | None = None,
    tokens: str = "",
    shaking: float = SHAKING,
    idle: float = IDLE,
) -> AsyncIterator[Server]:
    shown = tls if callable(tls) else lambda: tls
    server = Server(source, shown, tally or Tally(), shaking=shaking, idle=idle)
    await server.start("127.0.0.1:0", tokens)
    try:
        yield server
    finally:
        await server.stop(0)
