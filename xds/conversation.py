"""One open stream: what its client asks and answers, and when it is told something."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from meshfed.xds.door import Call
from meshfed.xds.feed import Feed
from meshfed.xds.peer import Peer
from meshfed.xds.resource import SHORT, World
from meshfed.xds.stream import Malformed, Request, Response, Stream
from meshfed.xds.turnstile import Turns

UNREAD = 15.0  # seconds for the client to take a message, after 4 MB of others that it did not read
LAST_WORDS = 2.0  # seconds for the client to take the status
APART = 0.021  # seconds from an answer to what moves next; timers of uvloop are early by 0.5 ms
CALM = 0.4  # seconds in which neither side spoke, after which a stream need not wait for its turn


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ends."""

    code: grpc.StatusCode
    why: str


BYE = Ending(grpc.StatusCode.OK, "")
DRAINING = Ending(grpc.StatusCode.UNAVAILABLE, "draining: this replica is going away")

Sent = Callable[[str, int, int], None]  # type, resources, bytes


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


class Inbox:
    """What came in one turn of the event loop is heard together, when all of it was read.

    One answer after another is half the work of each by itself, between which a processor has
    other code.
    """

    def __init__(self) -> None:
        self._messages: list[tuple[Conversation, bytes | object]] = []

    def put(self, talk: "Conversation", message: bytes | object) -> None:
        if not self._messages:
            asyncio.get_running_loop().call_soon(self._empty)
        self._messages.append((talk, message))

    def _empty(self) -> None:
        messages, self._messages = self._messages, []
        for talk, message in messages:
            talk.hear(message)


class Conversation:
    """One open stream: requests in, responses out, until something ends it.

    Nothing in it waits with a timeout of its own: `look` is told the time now and then.
    """

    def __init__(
        self,
        call: Call,
        feed: Feed,
        peer: Peer,
        stream: Stream,
        inbox: Inbox,
        turns: Turns,
        sent: Sent,
    ) -> None:
        self._call = call
        self._feed = feed
        self._peer = peer
        self._sent = sent
        self._stream = stream
        self._settled: World | None = None
        self._inbox = inbox
        self._turns = turns
        self._waits = False  # for its turn to speak
        self._due: list[Response] = []  # what `_tell` is to write
        self._loop = asyncio.get_running_loop()
        self._wake = self._loop.create_future()  # another one each time: an Event costs twice that
        self._over: asyncio.Future[Ending] = self._loop.create_future()
        self._mistake: Exception | None = None
        self._writing: float | None = None  # since when
        self._spoke = time.monotonic()  # either side, last
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

    def _stir(self, apart: float = 0.0) -> None:
        """There is something to say: at once, where all was quiet.

        `apart`: seconds since either side said something, at least.
        """
        passed = time.monotonic() - self._spoke
        if passed > CALM:
            self._ring()
        elif not self._waits:
            self._waits = True
            if passed < apart:
                self._loop.call_later(apart - passed, self._turns.take, self)
            else:
                self._turns.take(self)

    def _ring(self) -> None:
        """Say what there is to say to the newest world, once what is being written is.

        It is worked out here, where other streams do the same, and not where it is written: see
        `Inbox`.
        """
        try:
            if self._writing is None:
                self._due += self._news()
        except Exception as error:  # noqa: BLE001 - raised where the stream runs
            self._fail(error)
        if not self._wake.done():
            self._wake.set_result(None)

    def _fail(self, error: Exception) -> None:
        """A mistake of ours is the end of this stream, and not of whoever asked it to speak."""
        self._mistake = self._mistake or error
        self.end(BYE)

    def _news(self) -> list[Response]:
        self._stream.offer(self._feed.world)  # the newest, to whoever waited for its turn
        news = self._stream.outgoing(time.monotonic())
        self._heed()
        return news

    def _heed(self) -> None:
        """What waits for an answer since the last look waits no longer than for that."""
        self.again = min(self.again, self._stream.deadline() or inf)

    def speak(self) -> None:
        self._waits = False
        if self._over.done():
            self._turns.done(self)
        else:
            self._ring()

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
        if self._mistake is not None:
            raise self._mistake
        self._report()
        return ending

    async def _listen(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            self._inbox.put(self, message)

    def hear(self, message: bytes | object) -> None:
        if self._over.done():
            return
        try:
            self._receive(parse(message, delta=self._stream.delta))
        except Malformed as error:
            self.end(Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        except Exception as error:  # noqa: BLE001 - likewise
            self._fail(error)

    def _moved(self) -> None:
        if self._feed.ended:
            welcome = self._feed.welcome
            code = grpc.StatusCode.UNAVAILABLE if welcome else grpc.StatusCode.PERMISSION_DENIED
            self.end(Ending(code, self._feed.ended))
            return
        if self._waits:
            return
        self._stream.offer(self._feed.world)
        if self._stream.quiet:
            self._heed()
        else:
            self._stir(APART)

    async def _tell(self) -> None:
        while not self._over.done():
            await self._wake
            self._wake = self._loop.create_future()
            await self._write(self._taken())
            self._turns.done(self)
            self._report()

    def _taken(self) -> list[Response]:
        due, self._due = self._due, []
        return due or self._news()  # when it was asked to speak, it was still writing

    async def _write(self, responses: list[Response]) -> None:
        for response in responses:
            if self._over.done():
                return
            self._writing = self._spoke = time.monotonic()
            try:
                await self._call.write(response.body)
            except grpc.aio.InternalError:  # nobody is there any more
                self.end(BYE)
            else:
                self._sent(response.type, response.resources, len(response.body))
            self._writing = None

    def _receive(self, request: Request) -> None:
        self._spoke = time.monotonic()
        self._stream.receive(request, self._spoke)
        self._report()
        if not (self._waits or self._stream.quiet):
            self._stir(APART if self._stream.told else 0.0)

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
