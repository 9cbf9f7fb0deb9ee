"""The xDS server: streams over mutual TLS."""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

import grpc
from cryptography import x509
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from meshfed.xds.resource import SHORT, Type, World
from meshfed.xds.stream import Malformed, Request, Response, Stream
from meshfed.xds.subscription import Memory

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
MEBIBYTE = 1 << 20

OPTIONS = (
    # Two control planes on one port would each get some of the proxies, and nobody would know.
    ("grpc.so_reuseport", 0),
    # Streams beyond 1,000 that wait to be picked up are dropped at random (xds.md, finding 7).
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    ("grpc.max_concurrent_streams", 1_000_000),
    # A request is the node (61 KB from Envoy) and the names of what it subscribes to.
    ("grpc.max_receive_message_length", 8 * MEBIBYTE),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 * 1024),
    # Nothing else notices a dead peer on an idle stream (T14).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # else a stopped proxy is noticed after 60 s (tried)
    ("grpc.http2.max_pings_without_data", 0),
    # Sidecars ping as well; five minutes between pings is what grpc would tolerate.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)

INTRODUCTION = 15.0  # seconds for the first request: whoever connects has something to ask
UNREAD = 15.0  # seconds for the client to take a message, after 4 MB of others that it did not read
LAST_WORDS = 2.0  # seconds for the client to take the status
GLANCE = 30.0  # seconds between looks at the wall clock, which may jump


class Refusal(Exception):
    """This peer is not told anything; the message is what it is told instead."""


class Unready(Exception):
    """There is nothing complete to tell yet: an empty answer would delete what the peer has."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: the names are its certificate's, the rest is its own word."""

    uris: tuple[str, ...]
    dns: tuple[str, ...]
    not_after: float | None  # seconds since the epoch
    node_id: str
    envoy_version: str
    address: str


class Feed(Protocol):
    """What one peer is to be told, as long as the stream is open."""

    @property
    def world(self) -> World: ...

    @property
    def ended(self) -> str:
        """Why the stream must end; empty while it may go on."""
        ...

    @property
    def welcome(self) -> bool:
        """Whether the peer may begin another stream at once, when this one has ended."""
        ...

    @property
    def memory(self) -> Memory:
        """What this client accepted and rejected on its streams before; kept up to date by us."""
        ...

    async def changed(self) -> None:
        """Returns when `world` or `ended` moved since it was called."""
        ...

    def receipt(
        self,
        kind: str,
        version: str,
        sent_at: float,
        answered_at: float,
        rejected: str,
        about: tuple[str, ...] = (),  # the names of what it rejects
    ) -> None:
        """The client's answer to one response; times in seconds since the epoch."""
        ...

    def overdue(self, kind: str) -> None:
        """The client did not answer a response of this type in time; others wait no longer."""
        ...

    # What the client was sent and has, if that is recorded; empty where it rejected the last.
    def pushed(self, kind: str, revision: int, versions: Mapping[str, str]) -> None: ...

    def settled(self, revision: int, at: float) -> None:
        """The client acknowledged everything of this revision."""
        ...

    def close(self) -> None: ...


class Source(Protocol):
    async def open(self, peer: Peer) -> Feed:
        """Raises Refusal and Unready."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """The control plane's certificate, and the roots that its peers' are verified with; PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    roots: bytes = b""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ends."""

    code: grpc.StatusCode
    why: str


BYE = Ending(grpc.StatusCode.OK, "")
DRAINING = Ending(grpc.StatusCode.UNAVAILABLE, "draining: this replica is going away")


class Beside(Protocol):
    """Another service on the same port."""

    handler: grpc.GenericRpcHandler

    def drain(self) -> None: ...


class Call(Protocol):
    """What we use of grpc.aio's context; its library ships no types."""

    async def read(self) -> bytes | object: ...
    async def write(self, message: bytes) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str) -> None: ...
    def peer(self) -> str: ...
    def auth_context(self) -> Mapping[str, list[bytes]]: ...


Sent = Callable[[str, int, int], None]  # type, resources, bytes


def introduced(first: Request, call: Call) -> Peer:
    """Only the first request has the node, and it never changes (T2). Raises Malformed."""
    if not first.node.id:
        raise Malformed("node.id is empty: the first request of a stream needs it")
    uris, dns, not_after = names(call.auth_context().get("x509_pem_cert", [b""])[0])
    release = first.node.user_agent_build_version.version
    version = f"{release.major_number}.{release.minor_number}.{release.patch}"
    if not first.node.HasField("user_agent_build_version"):  # gRPC has words for it
        version = f"{first.node.user_agent_name} {first.node.user_agent_version}".strip()
    return Peer(uris, dns, not_after, first.node.id, version, unquote(call.peer()))


def names(pem: bytes) -> tuple[tuple[str, ...], tuple[str, ...], float | None]:
    """URIs, DNS names and the end of a certificate; nothing of what is not there."""
    if not pem:
        return (), (), None
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), (), certificate.not_valid_after_utc.timestamp()
    uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    dns = extension.value.get_values_for_type(x509.DNSName)
    return tuple(uris), tuple(dns), certificate.not_valid_after_utc.timestamp()


def parse(message: bytes | object, *, delta: bool) -> Request:
    """Raises Malformed."""
    kind = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest
    assert isinstance(message, bytes)  # the end of the stream is seen before
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise Malformed("this is not a discovery request") from error


class Conversation:
    """One open stream: requests in, responses out, until something ends it."""

    def __init__(self, call: Call, feed: Feed, peer: Peer, stream: Stream, sent: Sent) -> None:
        self._call = call
        self._feed = feed
        self._peer = peer
        self._sent = sent
        self._stream = stream
        self._settlements = self._stream.settlements
        self._wake = asyncio.Event()
        self._ending: Ending | None = None

    def end(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        self._wake.set()

    async def run(self, first: Request) -> Ending:
        self._stream.offer(self._feed.world)
        self._receive(first)
        async with asyncio.TaskGroup() as tasks:
            others = (tasks.create_task(self._listen()), tasks.create_task(self._follow()))
            ending = await self._speak()
            for task in others:
                task.cancel()
        return ending

    async def _listen(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            try:
                self._receive(parse(message, delta=self._stream.delta))
            except Malformed as error:
                self.end(Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        self.end(BYE)

    async def _follow(self) -> None:
        while not self._feed.ended:
            self._stream.offer(self._feed.world)
            self._wake.set()
            await self._feed.changed()
        code = (
            grpc.StatusCode.UNAVAILABLE if self._feed.welcome else grpc.StatusCode.PERMISSION_DENIED
        )
        self.end(Ending(code, self._feed.ended))

    async def _speak(self) -> Ending:
        while True:
            self._wake.clear()
            self._check_certificate()
            for response in self._stream.outgoing(time.monotonic()):
                if self._ending is None:
                    await self._write(response)
            self._report()
            if self._ending:
                return self._ending
            await self._rest()

    def _check_certificate(self) -> None:
        if self._peer.not_after is not None and time.time() >= self._peer.not_after:
            self.end(Ending(grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired"))

    async def _write(self, response: Response) -> None:
        try:
            async with asyncio.timeout(UNREAD):
                await self._call.write(response.body)
        except TimeoutError:
            why = f"a message was not taken in {UNREAD:.0f} seconds"
            self.end(Ending(grpc.StatusCode.DEADLINE_EXCEEDED, why))
        else:
            self._sent(response.type, response.resources, len(response.body))

    async def _rest(self) -> None:
        """Until something happens, or is due."""
        moments = [GLANCE]
        if self._peer.not_after is not None:
            moments.append(self._peer.not_after - time.time())
        if (deadline := self._stream.deadline()) is not None:
            moments.append(deadline - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(min(moments)):
                await self._wake.wait()

    def _receive(self, request: Request) -> None:
        self._stream.receive(request, time.monotonic())
        self._report()
        self._wake.set()

    def _report(self) -> None:
        """What the client answered, in the time that people and databases understand."""
        epoch = time.time() - time.monotonic()
        receipts, self._stream.receipts = self._stream.receipts, []
        for answer in receipts:
            sent_at, answered_at = epoch + answer.sent_at, epoch + answer.answered_at
            kind = SHORT[Type(answer.kind)]
            self._feed.receipt(
                kind, answer.version, sent_at, answered_at, answer.rejected, answer.about
            )
        late, self._stream.overdue = self._stream.overdue, []
        for kind in late:
            self._feed.overdue(kind)
        holdings, self._stream.holdings = self._stream.holdings, []
        for each in holdings:
            self._feed.pushed(each.type, each.revision, each.versions)
        if self._stream.settlements != self._settlements:
            self._settlements = self._stream.settlements
            self._feed.settled(self._stream.settled, time.time())


class Server:
    """Serves `source` to whoever has a certificate of the roots."""

    def __init__(
        self,
        source: Source,
        tls: Callable[[], Tls],
        sent: Sent,
        *beside: Beside,
        recording: bool = False,
    ) -> None:
        self.port = 0  # the one bound, once started
        self._source = source
        self._sent = sent
        self._beside = beside
        self._recording = recording
        self._conversations: set[Conversation] = set()
        self._draining = False
        self._server = grpc.aio.server(options=OPTIONS)
        self._credentials = credentials(tls)
        methods = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._delta),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._sotw),
        }
        handler = grpc.method_handlers_generic_handler(SERVICE, methods)
        self._server.add_generic_rpc_handlers((handler, *(each.handler for each in beside)))

    @property
    def streams(self) -> int:
        return len(self._conversations)

    async def start(self, listen: str) -> None:
        """Raises OSError, with a message for people."""
        claim(listen)
        try:
            self.port = self._server.add_secure_port(listen, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen} for xDS: {error}") from error
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Proxies keep what they have and come back, here or at another replica."""
        self._draining = True
        for conversation in self._conversations:
            conversation.end(DRAINING)
        for each in self._beside:
            each.drain()
        await self._server.stop(grace)

    async def _delta(self, _: object, call: Call) -> None:
        await self._serve(call, delta=True)

    async def _sotw(self, _: object, call: Call) -> None:
        await self._serve(call, delta=False)

    async def _serve(self, call: Call, *, delta: bool) -> None:
        ending = await self._converse(call, delta=delta)
        if ending.code == grpc.StatusCode.OK:
            return
        # A client that does not read does not take the status either. What grpc keeps for it then
        # (4 MB at most) goes with its connection; nobody waits for it.
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await call.abort(ending.code, ending.why)

    async def _converse(self, call: Call, *, delta: bool) -> Ending:
        if self._draining:
            return DRAINING
        try:
            async with asyncio.timeout(INTRODUCTION):
                message = await call.read()
            if message is grpc.aio.EOF:
                return BYE
            first = parse(message, delta=delta)
            who = introduced(first, call)
            feed = await self._source.open(who)
        except TimeoutError:
            return Ending(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came")
        except Malformed as error:
            return Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Refusal as error:
            return Ending(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except Unready as error:
            return Ending(grpc.StatusCode.UNAVAILABLE, str(error))
        stream = Stream(delta, recording=self._recording, memory=feed.memory)
        conversation = Conversation(call, feed, who, stream, self._sent)
        self._conversations.add(conversation)
        if self._draining:  # since it asked to be let in
            conversation.end(DRAINING)
        try:
            return await conversation.run(first)
        except Malformed as error:
            return Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._conversations.discard(conversation)
            feed.close()


def credentials(tls: Callable[[], Tls]) -> grpc.ServerCredentials:
    """Asked at every handshake, from grpc's threads: a renewed certificate needs no restart."""
    shown = tls()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        newest = tls()
        if newest == shown:
            return None
        shown = newest
        return configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        configuration(shown), renewed, require_client_authentication=True
    )


def configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.chain)], tls.roots)


def claim(listen: str) -> None:
    """Try the address with a plain socket first: grpc fails with pages on stderr and no reason."""
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {listen} for xDS: {why}") from error
