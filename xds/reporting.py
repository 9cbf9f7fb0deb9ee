"""The load reporting service, beside ADS on its ports."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Protocol
from urllib.parse import unquote

import grpc
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest
from google.protobuf.message import DecodeError

from meshfed.xds.conversation import BYE, DRAINING, LAST_WORDS, UNREAD, Ending
from meshfed.xds.door import Bearers, Call, Unproven, proven
from meshfed.xds.feed import Refusal, Unready
from meshfed.xds.loads import Calls, Reporting, calls
from meshfed.xds.peer import Names, Peer, met
from meshfed.xds.server import INTRODUCTION
from meshfed.xds.stream import Malformed

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"
EXPIRED = Ending(grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired")


class Reporter(Protocol):
    """One sidecar, as whoever takes in its reports knows it."""

    @property
    def clusters(self) -> Collection[str] | None:
        """What it should count; None: that is not known here, so everything."""
        ...

    def take(self, calls: Sequence[Calls]) -> None:
        """What it counted since it reported last. Raises Refusal when it may report no longer."""
        ...

    def close(self) -> None: ...


class Reports(Protocol):
    def report(self, peer: Peer, moved: Callable[[], None]) -> Reporter:
        """`moved` is called when its clusters have. Raises Refusal and Unready."""
        ...


def parse(message: bytes | object) -> LoadStatsRequest:
    """Raises Malformed."""
    assert isinstance(message, bytes)  # the end of the stream is seen before
    try:
        return LoadStatsRequest.FromString(message)
    except DecodeError as error:
        raise Malformed("this is not a load report") from error


def introduced(first: LoadStatsRequest, who: Names, call: Call) -> Peer:
    """What it says of itself is for logs."""
    return met(who, first.node.id, "", unquote(call.peer()))


def refused(error: Unproven | Refusal | Unready | Malformed) -> Ending:
    match error:
        case Unproven():
            return Ending(grpc.StatusCode.UNAUTHENTICATED, str(error))
        case Refusal():
            return Ending(grpc.StatusCode.PERMISSION_DENIED, str(error))
        case Unready():
            return Ending(grpc.StatusCode.UNAVAILABLE, str(error))
        case _:
            return Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error))


class LoadReporting:
    """Takes in the reports of whoever has a certificate of the roots, or a token."""

    def __init__(self, reports: Reports, bearers: Bearers | None = None) -> None:
        self._reports = reports
        self._bearers = bearers
        self._hearings: set[Hearing] = set()
        self._draining = False
        method = grpc.stream_stream_rpc_method_handler(self._serve)
        self.handler = grpc.method_handlers_generic_handler(SERVICE, {"StreamLoadStats": method})

    def drain(self) -> None:
        """Sidecars come back, here or at another replica, with what they counted meanwhile."""
        self._draining = True
        for hearing in self._hearings:
            hearing.end(DRAINING)

    async def _serve(self, _: object, call: Call) -> None:
        ending = await self._converse(call)
        if ending.code != grpc.StatusCode.OK:
            with suppress(TimeoutError, grpc.aio.InternalError):
                async with asyncio.timeout(LAST_WORDS):
                    await call.abort(ending.code, ending.why)

    async def _converse(self, call: Call) -> Ending:
        if self._draining:
            return DRAINING
        hearing = Hearing(call)
        self._hearings.add(hearing)
        try:
            names = await proven(call, self._bearers)
            async with asyncio.timeout(INTRODUCTION):
                message = await call.read()
            if message is grpc.aio.EOF:
                return BYE
            first = parse(message)
            peer = introduced(first, names, call)
            reporter = self._reports.report(peer, hearing.wake)
            try:
                return await hearing.run(peer, reporter, first)
            finally:
                reporter.close()
        except TimeoutError:
            return Ending(grpc.StatusCode.DEADLINE_EXCEEDED, "no report came")
        except (Unproven, Refusal, Unready, Malformed) as error:
            return refused(error)
        finally:
            self._hearings.discard(hearing)


class Hearing:
    """One open stream: reports in; out, what to count."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._state = Reporting(time.monotonic())
        self._woken = asyncio.Event()
        self._ending: Ending | None = None

    def wake(self) -> None:
        self._woken.set()

    def end(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        self.wake()

    async def run(self, peer: Peer, reporter: Reporter, first: LoadStatsRequest) -> Ending:
        """Raises Refusal."""
        self._take(peer, reporter, first)
        # No TaskGroup, for what conversation.py says.
        listening = asyncio.create_task(self._listen(peer, reporter))
        listening.add_done_callback(lambda _: self.end(BYE))
        try:
            ending = await self._speak(reporter)
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        if not listening.cancelled():
            listening.result()
        return ending

    async def _listen(self, peer: Peer, reporter: Reporter) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._take(peer, reporter, parse(message))
        except (Refusal, Malformed) as error:
            self.end(refused(error))

    def _take(self, peer: Peer, reporter: Reporter, report: LoadStatsRequest) -> None:
        if peer.not_after is not None and time.time() >= peer.not_after:
            self.end(EXPIRED)
            return
        reporter.take(calls(report))
        self._state.receive(time.monotonic())
        self.wake()

    async def _speak(self, reporter: Reporter) -> Ending:
        # Headers alone wait for nobody to read. Of a first message that is given up half-way, grpc
        # would send them again with the status: the stream would stay open (conversation.py).
        with suppress(grpc.aio.InternalError):  # nobody is there any more; reading says so too
            await self._call.send_initial_metadata(())
        while self._ending is None:
            self._woken.clear()
            self._state.expect(reporter.clusters)
            if answer := self._state.outgoing(time.monotonic()):
                await self._write(answer.SerializeToString())
            else:
                await self._woken.wait()
        return self._ending

    async def _write(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(UNREAD):
                await self._call.write(message)
        except TimeoutError:
            why = f"a message was not taken in {UNREAD:.0f} seconds"
            self.end(Ending(grpc.StatusCode.DEADLINE_EXCEEDED, why))
        except grpc.aio.InternalError:  # nobody is there any more
            self.end(BYE)
