"""The xDS server: streams over mutual TLS, and of pods over TLS with a token."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import unquote

import grpc

from meshfed.xds.conversation import (
    BYE,
    DRAINING,
    LAST_WORDS,
    Conversation,
    Ending,
    Inbox,
    Sent,
    parse,
)
from meshfed.xds.door import Bearers, Call, Unproven, proven
from meshfed.xds.feed import Refusal, Source, Unready
from meshfed.xds.listening import OPTIONS, Tls, claim, credentials
from meshfed.xds.peer import Names, Peer, met
from meshfed.xds.stream import Malformed, Request, Stream
from meshfed.xds.turnstile import Turns, Turnstile

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHODS = ("DeltaAggregatedResources", "StreamAggregatedResources")

SHAKING = 20.0  # seconds for a connection to be one; a gRPC client itself waits no longer
# Strangers get as far, at the port of tokens. Envoy is back within 5 s when its stream has ended.
IDLE = 60.0  # seconds without a stream
INTRODUCTION = 15.0  # seconds for the first request: whoever connects has something to ask
GLANCE = 0.5  # seconds between two looks at what is due, on all streams


class Beside(Protocol):
    """Another service on the same port."""

    handler: grpc.GenericRpcHandler

    def drain(self) -> None: ...


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
        self._inbox = Inbox()
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
        conversation = Conversation(call, feed, who, stream, self._inbox, self._turns, self._sent)
        try:
            conversation.begin(first)
        except BaseException:
            conversation.close()  # else its proxy would owe an answer for ever
            raise
        return conversation
