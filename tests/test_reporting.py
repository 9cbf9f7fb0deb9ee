"""The load reporting service over real TLS on loopback, with grpc's own client."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from peers import CONTROL_PLANE, SERVER_NAME, STORE, Authority, Source, Tally

from meshfed.xds.feed import Refusal, Unready
from meshfed.xds.loads import Calls
from meshfed.xds.peer import Peer
from meshfed.xds.reporting import SERVICE, LoadReporting
from meshfed.xds.resource import World
from meshfed.xds.server import Server, Tls

DNS = "abc.workload.shop.example"


class Heard:
    """A Reporter that keeps what it takes."""

    def __init__(self, clusters: Collection[str] | None) -> None:
        self.clusters = clusters
        self.calls: list[Calls] = []
        self.refusal: Refusal | None = None
        self.taken = asyncio.Event()
        self.closed = asyncio.Event()
        self.moved: Callable[[], None]

    def take(self, calls: Sequence[Calls]) -> None:
        if self.refusal:
            raise self.refusal
        self.calls += calls
        self.taken.set()

    def close(self) -> None:
        self.closed.set()

    def expect(self, *clusters: str) -> None:
        self.clusters = clusters
        self.moved()


class Reports:
    def __init__(self, *clusters: str, refusal: Exception | None = None) -> None:
        self.heard = Heard(clusters)
        self.refusal = refusal
        self.peers: list[Peer] = []

    def report(self, peer: Peer, moved: Callable[[], None]) -> Heard:
        self.peers.append(peer)
        if self.refusal:
            raise self.refusal
        self.heard.moved = moved
        return self.heard


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def proxy(authority: Authority) -> Tls:
    return authority.tls(STORE, DNS)


@asynccontextmanager
async def reporting(reports: Reports, authority: Authority, proxy: Tls):
    """A server, and an open stream of a sidecar's."""
    tls = authority.tls(CONTROL_PLANE, SERVER_NAME)
    server = Server(Source(World(1, {})), lambda: tls, Tally(), LoadReporting(reports))
    await server.start("127.0.0.1:0")
    credentials = grpc.ssl_channel_credentials(authority.root, proxy.key, proxy.chain)
    options = [
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.max_receive_message_length", -1),
    ]
    where = f"127.0.0.1:{server.port}"
    try:
        async with grpc.aio.secure_channel(where, credentials, options) as channel:
            yield (
                server,
                channel.stream_stream(
                    f"/{SERVICE}/StreamLoadStats",
                    request_serializer=lambda each: (
                        each if isinstance(each, bytes) else each.SerializeToString()
                    ),
                    response_deserializer=LoadStatsResponse.FromString,
                )(),
            )
    finally:
        await server.stop(0)


def report(cluster: str = "", succeeded: int = 0, node: str = "") -> LoadStatsRequest:
    made = LoadStatsRequest()
    made.node.id = node
    if cluster:
        each = made.cluster_stats.add(cluster_name=cluster)
        each.upstream_locality_stats.add(total_successful_requests=succeeded)
    return made


async def ending(call) -> tuple[grpc.StatusCode, str]:
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            continue
    return await call.code(), await call.details()


async def test_a_sidecar_is_its_certificate_and_is_told_what_to_count(authority, proxy):
    reports = Reports("b|80", "a|80")
    async with reporting(reports, authority, proxy) as (_, call):
        await call.write(report(node="somebody-else"))
        assert list((await call.read()).clusters) == ["a|80", "b|80"]
        (peer,) = reports.peers
        assert (peer.uris, peer.dns) == ((STORE,), (DNS,))
        assert peer.node_id == "somebody-else"  # which nobody goes by
        reports.heard.expect("a|80", "c|80")
        assert list((await call.read()).clusters) == ["a|80", "c|80"]
        reports.heard.taken.clear()
        await call.write(report("a|80", 5))
        await reports.heard.taken.wait()
        assert [(each.cluster, each.succeeded) for each in reports.heard.calls] == [("a|80", 5)]
        await call.done_writing()
        assert await ending(call) == (grpc.StatusCode.OK, "")
    await reports.heard.closed.wait()


async def test_what_the_first_message_reports_counts(authority, proxy):
    """A sidecar that comes back begins with what it counted since it reported last."""
    reports = Reports("a|80")
    async with reporting(reports, authority, proxy) as (_, call):
        await call.write(report("a|80", 7))
        await call.read()
        assert [each.succeeded for each in reports.heard.calls] == [7]


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal("no provider knows it"), grpc.StatusCode.PERMISSION_DENIED),
        (Unready("not yet"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_who_is_not_heard_is_told_why(authority, proxy, refusal, code):
    async with reporting(Reports(refusal=refusal), authority, proxy) as (_, call):
        await call.write(report())
        assert await ending(call) == (code, str(refusal))


async def test_who_has_left_the_mesh_reports_no_longer(authority, proxy):
    reports = Reports("a|80")
    async with reporting(reports, authority, proxy) as (_, call):
        await call.write(report())
        await call.read()
        reports.heard.refusal = Refusal("it is gone")
        await call.write(report("a|80", 1))
        assert await ending(call) == (grpc.StatusCode.PERMISSION_DENIED, "it is gone")
    await reports.heard.closed.wait()


async def test_a_message_that_is_none_ends_the_stream_with_the_reason(authority, proxy):
    async with reporting(Reports("a|80"), authority, proxy) as (_, call):
        await call.write(b"\xff\xff\xff")
        code, why = await ending(call)
        assert (code, why) == (grpc.StatusCode.INVALID_ARGUMENT, "this is not a load report")


async def test_a_certificate_that_ends_ends_the_reports(authority):
    reports = Reports("a|80")
    short = authority.tls(STORE, DNS, seconds=1)
    async with reporting(reports, authority, short) as (_, call):
        await call.write(report())
        await call.read()
        reports.heard.taken.clear()
        (peer,) = reports.peers
        await asyncio.sleep(peer.not_after - time.time())
        await call.write(report("a|80", 1))
        code, why = await ending(call)
        assert (code, why) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "the certificate has expired",
        )
        assert reports.heard.calls == []


async def test_a_replica_that_goes_says_so_at_once(authority, proxy):
    reports = Reports("a|80")
    async with reporting(reports, authority, proxy) as (server, call):
        await call.write(report())
        await call.read()
        async with asyncio.timeout(1):
            await server.stop(10)
        code, why = await ending(call)
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "going away" in why
    await reports.heard.closed.wait()


async def test_what_a_stream_held_is_let_go_of_when_it_ends(authority, proxy):
    reports, loose = Reports(), asyncio.Event()
    gc.disable()
    try:
        async with reporting(reports, authority, proxy) as (_, call):
            await call.write(report())
            await call.read()
            weakref.finalize(reports.heard.moved.__self__, loose.set)
            call.cancel()
            await reports.heard.closed.wait()
            del reports.heard.moved
            async with asyncio.timeout(5):
                await loose.wait()
    finally:
        gc.enable()


async def test_f4_f5_a_sidecar_that_does_not_read_is_told_why_once_it_does(
    authority, proxy, monkeypatch
):
    """Its first answer is more than gRPC keeps of what nobody reads, and is given up half-way."""
    monkeypatch.setattr("meshfed.xds.reporting.UNREAD", 0.3)
    reports = Reports(*(f"{n}-{'x' * 1000}|80" for n in range(10_000)))
    async with reporting(reports, authority, proxy) as (_, call):
        await call.write(report())
        await reports.heard.closed.wait()
        async with asyncio.timeout(5):
            code, why = await ending(call)
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "was not taken" in why
