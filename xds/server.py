"""The xDS server: streams over mutual TLS, and of pods over TLS with a token."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Protocol
from urllib.parse import unquote

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from meshfed.xds.door import Bearers, Call, Unproven, proven
from meshfed.xds.feed import Feed, Refusal, Source, Unready
from meshfed.xds.listening import OPTIONS, Tls, claim, credentials
from meshfed.xds.peer import Names, Peer, met
from meshfed.xds.resource import SHORT, World
from meshfed.xds.stream import Malformed, Request, Response, Stream
from meshfed.xds.turnstile import Turns, Turnstile

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHODS = ("DeltaAggregatedResources", "StreamAggregatedResources")

SHAKING = 20.0  # seconds for a connection to be one; a gRPC client itself waits no longer
# Strangers get as far, at the port of tokens. Envoy is back within 5 s when its stream has ended.
IDLE = 60.0  # seconds without a stream
INTRODUCTION = 15.0  # seconds for the first request: whoever connects has something to ask
UNREAD = 15.0  # seconds for the client to take a message, after 4 MB of others that it did not read
LAST_WORDS = 2.0  # seconds for the client to take the status
CALM = 0.5  # seconds without a message, after which a stream need not wait for its turn
GLANCE = 0.5  # seconds between two looks at what is due, on all streams


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


Sent = Callable[[str, int, int], None]  # type, resources, bytes


def introduced(first: Request, who: Names, call: Call) -> Peer:
    """Only the first request has the node, and it never changes (T2). Raises Malformed."""
    if not first.node.id:
        raise Malformed("node.id is empty: the first request of a stream needs it")
    release = first.node.user_agent_build_version.version
    version = f"{release.major_number}.{release.minor_number}.{release.patch}"
    if not first.node.HasField("user_agent_build_version"):  # gRPC has words for it
        version = f"{first.node.user_agent_name} {first.node.user_agent_version}".strip()
    # Postgres takes no NUL.
    return met(who, first.node.id, version.replace("\0", " "), unquote(call.peer()))


def parse(message: bytes | object, *, delta: bool) -> Request:
    """Raises Malformed."""
    kind = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest
    assert isinstance(message, bytes)  # the end of the stream is seen before
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise Malformed("this is not a discovery request") from error


def nobody() -> None:
    """Listens where no stream does any more."""


class Conversation:
    """One open stream: requests in, responses out, until something ends it.

    Nothing in it waits with a timeout of its own: `look` is told the time now and then.
    """

    def __init__(
        self, call: Call, feed: Feed, peer: Peer, stream: Stream, turns: Turns, sent: Sent
    ) -> None:
        self._call = call
        self._feed = feed
        self._peer = peer
        self._sent = sent
        self._stream = stream
        self._settled: World | None = None
        self._turns = turns
        self._waits = False  # for its turn to speak
        self._wake = asyncio.Event()
        self._over: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._writing: float | None = None  # since when
        self._told = time.monotonic()  # something, last
        self.again = 0.0  # when `look` is due

    def end(self, ending: Ending) -> None:
        if not self._over.done():
            self._over.set_result(ending)

    def look(self, now: float, wall: float) -> None:
        """What is due by now: seconds of the monotonic clock, and of the one people set.

        Of a thousand streams few have anything due, and what begins later is not for UNREAD.
        """
        expired = inf if self._peer.not_after is None else now + self._peer.not_after - wall
        unread = inf if self._writing is None else self._writing + UNREAD
        deadline = self._stream.deadline() or inf
        if now >= expired:
            self.end(Ending(grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired"))
        if now >= unread:
            why = f"a message was not taken in {UNREAD:.0f} seconds"
            self.end(Ending(grpc.StatusCode.DEADLINE_EXCEEDED, why))
        if now >= deadline:
            self._stir()
        self.again = min(now + UNREAD, expired, unread, deadline)

    def _stir(self) -> None:
        """There is something to say: at once, where all was quiet."""
        if time.monotonic() - self._told > CALM:
            self._wake.set()
        elif not self._waits:
            self._waits = True
            self._turns.take(self)

    def speak(self) -> None:
        self._waits = False
        self._wake.set()
        if self._over.done():
            self._turns.done(self)

    def begin(self, first: Request) -> None:
        """Take in what it asks for first, which is not kept. Raises Malformed."""
        self._stream.offer(self._feed.world)
        self._feed.listen(self._moved)
        self._receive(first)
        self._moved()  # since the feed was opened

    def close(self) -> None:
        self._feed.listen(nobody)  # who listened holds the whole stream
        self._feed.close()

    async def run(self) -> Ending:
        # No TaskGroup: where grpc cancels this, Python 3.11 would keep the error in a circle with
        # all of the stream, until garbage is looked for.
        parts = [asyncio.create_task(part()) for part in (self._listen, self._tell)]
        listening, telling = parts
        for part in parts:
            part.add_done_callback(lambda _: self.end(BYE))  # or what it failed of, below
        try:
            ending = await self._over
            listening.cancel()
            if self._writing is not None:
                # grpc notes that headers were sent when the first message has been. Were that given
                # up half-way, it would send them again with the status: the stream would stay open
                # for ever, with nobody here.
                await asyncio.wait([telling], timeout=LAST_WORDS)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)
            self._turns.done(self)
        for part in parts:
            if not part.cancelled():
                part.result()
        self._report()
        return ending

    async def _listen(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            try:
                self._receive(parse(message, delta=self._stream.delta))
            except Malformed as error:
                self.end(Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error)))

    def _moved(self) -> None:
        if self._feed.ended:
            welcome = self._feed.welcome
            code = grpc.StatusCode.UNAVAILABLE if welcome else grpc.StatusCode.PERMISSION_DENIED
            self.end(Ending(code, self._feed.ended))
            return
        if self._waits:
            return
        self._stream.offer(self._feed.world)
        if not self._stream.quiet:
            self._stir()

    async def _tell(self) -> None:
        while not self._over.done():
            await self._wake.wait()
            self._wake.clear()
            self._stream.offer(self._feed.world)  # the newest, to whoever waited for its turn
            await self._write(self._stream.outgoing(time.monotonic()))
            self._turns.done(self)
            self._report()

    async def _write(self, responses: list[Response]) -> None:
        for response in responses:
            self._writing = self._told = time.monotonic()
            try:
                await self._call.write(response.body)
            except grpc.aio.InternalError:  # nobody is there any more
                self.end(BYE)
            else:
                self._sent(response.type, response.resources, len(response.body))
            self._writing = None
            if self._over.done():
                return

    def _receive(self, request: Request) -> None:
        self._stream.receive(request, time.monotonic())
        self._report()
        if not (self._waits or self._stream.quiet):
            self._stir()

    def _report(self) -> None:
        """What the client answered, in the time that people and databases understand."""
        stream, feed = self._stream, self._feed
        if stream.receipts:
            epoch = time.time() - time.monotonic()
            for each in stream.receipts:
                at = epoch + each.sent_at, epoch + each.answered_at
                feed.receipt(SHORT[each.kind], each.version, *at, each.rejected, each.about)
            stream.receipts = []
        while stream.overdue:
            feed.overdue(stream.overdue.pop(0))
        while stream.holdings:
            pushed = stream.holdings.pop(0)
            feed.pushed(pushed.type, pushed.revision, pushed.versions)
        if stream.settled is not None and stream.settled is not self._settled:
            self._settled = stream.settled
            feed.settled(stream.settled, time.time())


class Server:
    """Serves `source` to whoever has a certificate of the roots, or a token that `bearers` know."""

    def __init__(
        self,
        source: Source,
        tls: Callable[[], Tls],
        sent: Sent,
        *beside: Beside,
        recording: bool = False,
        bearers: Bearers | None = None,
        shaking: float = SHAKING,
        idle: float = IDLE,
    ) -> None:
        """`shaking`: seconds for TLS and for the settings of HTTP/2; by itself grpc has 120.

        `idle`: seconds that a connection may have no stream.
        """
        self.port = 0  # the one bound, once started
        self.port_of_tokens = 0
        self._source = source
        self._sent = sent
        self._beside = beside
        self._recording = recording
        self._conversations: set[Conversation] = set()
        self._turnstile = Turnstile()
        self._turns = Turns()
        self._looking: asyncio.Task[None] | None = None
        self._draining = False
        limits = (
            ("grpc.server_handshake_timeout_ms", round(shaking * 1000)),
            ("grpc.max_connection_idle_ms", round(idle * 1000)),
        )
        self._server = grpc.aio.server(options=(*OPTIONS, *limits))
        self._tls = tls
        self._bearers = bearers
        handlers = map(grpc.stream_stream_rpc_method_handler, (self._delta, self._sotw))
        methods = dict(zip(METHODS, handlers, strict=True))
        handler = grpc.method_handlers_generic_handler(SERVICE, methods)
        self._server.add_generic_rpc_handlers((handler, *(each.handler for each in beside)))

    @property
    def streams(self) -> int:
        return len(self._conversations)

    async def start(self, listen: str, tokens: str = "") -> None:
        """`tokens`: where those come who show one. Raises OSError, with a message for people."""
        self.port = self._bound(listen, certified=True)
        if tokens:
            self.port_of_tokens = self._bound(tokens, certified=False)
        await self._server.start()
        self._looking = asyncio.create_task(self._look())

    def _bound(self, listen: str, *, certified: bool) -> int:
        claim(listen)
        try:
            port: int = self._server.add_secure_port(
                listen, credentials(self._tls, certified=certified)
            )
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen} for xDS: {error}") from error
        return port

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(GLANCE)
            now, wall = time.monotonic(), time.time()
            for conversation in tuple(self._conversations):
                if now >= conversation.again:
                    conversation.look(now, wall)

    async def stop(self, grace: float) -> None:
        """Proxies keep what they have and come back, here or at another replica."""
        self._draining = True
        for conversation in self._conversations:
            conversation.end(DRAINING)
        for each in self._beside:
            each.drain()
        await self._server.stop(grace)
        if self._looking:
            self._looking.cancel()

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
        with suppress(TimeoutError, grpc.aio.InternalError):
            async with asyncio.timeout(LAST_WORDS):
                await call.abort(ending.code, ending.why)

    async def _converse(self, call: Call, *, delta: bool) -> Ending:
        if self._draining:
            return DRAINING
        try:
            conversation = await self._met(call, delta=delta)
        except TimeoutError:
            return Ending(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came")
        except Malformed as error:
            return Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Unproven as error:
            return Ending(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except Refusal as error:
            return Ending(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except Unready as error:
            return Ending(grpc.StatusCode.UNAVAILABLE, str(error))
        if conversation is None:
            return BYE
        self._conversations.add(conversation)
        if self._draining:  # since it asked to be let in
            conversation.end(DRAINING)
        try:
            return await conversation.run()
        finally:
            self._conversations.discard(conversation)
            conversation.close()

    async def _met(self, call: Call, *, delta: bool) -> Conversation | None:
        """With whoever says what it wants; its node, which Envoy's makes large, is not kept."""
        # Before anything of what it sends is read: strangers reach the door of tokens.
        names = await proven(call, self._bearers)
        async with asyncio.timeout(INTRODUCTION):
            message = await call.read()
        if message is grpc.aio.EOF:
            return None
        first = parse(message, delta=delta)
        who = introduced(first, names, call)
        await self._turnstile.turn()
        feed = await self._source.open(who)
        stream = Stream(delta, recording=self._recording, memory=feed.memory)
        conversation = Conversation(call, feed, who, stream, self._turns, self._sent)
        try:
            conversation.begin(first)
        except Malformed:
            conversation.close()
            raise
        return conversation
