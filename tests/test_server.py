"""The xDS server over real TLS on loopback, with grpc's own client."""

import asyncio
import errno
import gc
import socket
import ssl
import time
import weakref
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from peers import CONTROL_PLANE, SERVER_NAME, STORE, Authority, Source, Tally, serving

from meshfed.xds.feed import Refusal, Unready
from meshfed.xds.resource import Type, World, resource
from meshfed.xds.server import SERVICE, Server, Tls


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def world(revision: int, *clusters: str) -> World:
    """`world(1, "a", "b:other content")`."""
    made = [
        resource(name, Cluster(name=name, alt_stat_name=content))
        for name, _, content in (text.partition(":") for text in clusters)
    ]
    return World(revision, {Type.CLUSTER: {r.name: r for r in made}})


@asynccontextmanager
async def connecting(server: Server, tls: Tls | None, root: bytes):
    credentials = grpc.ssl_channel_credentials(
        root, *((tls.key, tls.chain) if tls else (None, None))
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield channel


def opened(channel, *, delta: bool = True):
    method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
    response = DeltaDiscoveryResponse if delta else DiscoveryResponse
    return channel.stream_stream(
        f"/{SERVICE}/{method}",
        request_serializer=lambda request: (
            request if isinstance(request, bytes) else request.SerializeToString()
        ),
        response_deserializer=response.FromString,
    )()


@asynccontextmanager
async def streaming(server: Server, tls: Tls | None, root: bytes, *, delta: bool = True):
    async with connecting(server, tls, root) as channel:
        yield opened(channel, delta=delta)


def clusters(node: str = "node", **fields) -> DeltaDiscoveryRequest:
    request = DeltaDiscoveryRequest(type_url=Type.CLUSTER, **fields)
    request.node.id = node
    return request


async def ending(call) -> tuple[grpc.StatusCode, str]:
    """How the server ends a stream that it has not ended yet."""
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            continue
    return await call.code(), await call.details()


@pytest.fixture(scope="module")
def control_plane(authority) -> Tls:
    return authority.tls(CONTROL_PLANE, SERVER_NAME)


@pytest.fixture(scope="module")
def proxy(authority) -> Tls:
    return authority.tls(STORE, "abc.workload.shop.example")


async def test_t17_a_peer_is_known_by_its_certificate_and_is_told_its_world(
    authority, control_plane, proxy
):
    source, tally = Source(world(7, "a", "b")), Tally()
    async with (
        serving(source, control_plane, tally) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters("some-node"))
        response = await call.read()
        assert [r.name for r in response.resources] == ["a", "b"]
        await call.write(clusters(response_nonce=response.nonce))
        (feed,) = source.feeds
        await feed.settles(7)
        assert server.streams == 1
        feed.show(world(8, "a", "b:2"))
        changed = await call.read()
        assert [r.name for r in changed.resources] == ["b"]
        await call.write(clusters(response_nonce=changed.nonce, error_detail={"message": "no"}))
        assert (await call.read()).system_version_info == response.system_version_info
    await feed.closed.wait()
    assert server.streams == 0
    (peer,) = source.peers
    assert (peer.uris, peer.dns) == ((STORE,), ("abc.workload.shop.example",))
    assert peer.node_id == "some-node"
    assert peer.address.startswith("ipv4:127.0.0.1:")
    assert abs(peer.not_after - time.time() - 3600) < 60
    assert [(r.kind, r.version, r.rejected) for r in feed.receipts] == [
        ("CDS", response.system_version_info, ""),
        ("CDS", changed.system_version_info, "no"),
    ]
    assert all(0 < r.sent_at <= r.answered_at <= time.time() for r in feed.receipts)
    assert feed.settlements == [7]
    # The rejected update, and the last good one after it.
    assert (tally.responses, tally.resources) == ({"CDS": 3}, {"CDS": 4})


async def test_sotw_is_spoken_on_the_same_port(authority, control_plane, proxy):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root, delta=False) as call,
    ):
        request = DiscoveryRequest(type_url=Type.CLUSTER, node={"id": "n"})
        await call.write(request)
        response = await call.read()
        assert len(response.resources) == 1
        await call.write(DiscoveryRequest(type_url=Type.CLUSTER, response_nonce=response.nonce))
        await source.feeds[0].settles(1)


async def test_a_client_that_comes_back_is_sent_nothing_that_it_has(
    authority, control_plane, proxy
):
    source, tally = Source(world(1, "a", "b")), Tally()
    has = {r.name: r.version for r in source.world.of(Type.CLUSTER).values()}
    async with (
        serving(source, control_plane, tally) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters(initial_resource_versions=has))
        await source.opened.wait()
        await source.feeds[0].settles(1)
    assert tally.resources == {}


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(lambda authority: None, id="no certificate"),
        pytest.param(lambda authority: Authority().tls(STORE), id="another authority's"),
        pytest.param(lambda authority: authority.tls(STORE, seconds=-60), id="an expired one"),
    ],
)
async def test_without_a_good_certificate_nobody_is_told_anything(authority, control_plane, client):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, client(authority), authority.root) as call,
    ):
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
    assert source.peers == []


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        pytest.param(Refusal("unknown workload abc"), "PERMISSION_DENIED", id="a refusal"),
        pytest.param(Unready("no provider was read yet"), "UNAVAILABLE", id="nothing complete yet"),
    ],
)
async def test_t16_whoever_is_refused_is_told_why(authority, control_plane, proxy, refusal, code):
    async with (
        serving(Source(world(1), refusal), control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        assert await ending(call) == (grpc.StatusCode[code], str(refusal))


@pytest.mark.parametrize(
    ("first", "why"),
    [
        pytest.param(DeltaDiscoveryRequest(type_url=Type.CLUSTER), "node.id", id="t3-no-node"),
        pytest.param(DeltaDiscoveryRequest(node={"id": "n"}), "type_url", id="t1-no-type"),
        pytest.param(b"\xff", "not a discovery request", id="not protobuf"),
    ],
)
async def test_t1_t3_a_malformed_request_ends_the_stream(
    authority, control_plane, proxy, first, why
):
    source = Source(world(1))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(first)
        code, details = await ending(call)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert why in details
    for feed in source.feeds:
        await feed.closed.wait()


async def test_t1_a_malformed_request_later_on_ends_the_stream_too(authority, control_plane, proxy):
    async with (
        serving(Source(world(1, "a")), control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        await call.write(DeltaDiscoveryRequest())
        assert (await ending(call))[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_t13_a_request_that_is_too_large_ends_its_stream_alone(
    authority, control_plane, proxy
):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        connecting(server, proxy, authority.root) as channel,
    ):
        call, other = opened(channel), opened(channel)
        await other.write(clusters())
        await other.read()
        await call.write(clusters(resource_names_subscribe=["x" * 1_000] * 9_000))
        assert (await ending(call))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        source.feeds[0].show(world(2, "a:2"))
        await other.write(clusters(response_nonce="1"))
        assert len((await other.read()).resources) == 1


async def test_t1_a_service_of_one_type_is_not_spoken(authority, control_plane, proxy):
    async with (
        serving(Source(world(1, "a")), control_plane) as server,
        connecting(server, proxy, authority.root) as channel,
    ):
        method = "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
        assert await channel.stream_stream(method)().code() == grpc.StatusCode.UNIMPLEMENTED


async def test_f3_an_overdue_answer_is_told_to_the_feed(
    authority, control_plane, proxy, monkeypatch
):
    monkeypatch.setattr("meshfed.xds.subscription.GATE", 0.05)
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        (feed,) = source.feeds
        feed.show(world(2, "a:2"))
        await call.read()
        await feed.until(lambda: feed.late == ["CDS"])


async def test_t2_a_node_that_changes_its_name_is_still_who_it_was(authority, control_plane, proxy):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters("first"))
        response = await call.read()
        await call.write(clusters("second", response_nonce=response.nonce))
        await source.feeds[0].settles(1)
    assert [peer.node_id for peer in source.peers] == ["first"]


async def test_the_stream_ends_when_its_feed_does(authority, control_plane, proxy):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        source.feeds[0].finish("workload abc is gone")
        assert await ending(call) == (grpc.StatusCode.PERMISSION_DENIED, "workload abc is gone")
        await source.feeds[0].closed.wait()


async def test_who_is_to_begin_again_is_not_told_that_it_may_not(authority, control_plane, proxy):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        source.feeds[0].finish("begin again: behind", welcome=True)
        assert await ending(call) == (grpc.StatusCode.UNAVAILABLE, "begin again: behind")


@pytest.mark.parametrize("how", ["its client leaves", "its client is gone", "its feed ends"])
async def test_what_a_stream_held_is_let_go_of_when_it_ends(
    authority, control_plane, proxy, how: str
):
    source, loose = Source(world(7, "a")), asyncio.Event()
    gc.disable()  # garbage is looked for rarely, and storms would make more of it than all else is
    try:
        async with serving(source, control_plane) as server:
            async with streaming(server, proxy, authority.root) as call:
                await call.write(clusters())
                nonce = (await call.read()).nonce
                await call.write(clusters(response_nonce=nonce))
                await source.feeds[0].settles(7)
                weakref.finalize(source.feeds[0], loose.set)
                if how == "its feed ends":
                    source.feeds[0].finish("enough")
                elif how == "its client leaves":
                    await call.done_writing()
                else:
                    call.cancel()
                await source.feeds[0].closed.wait()
            source.feeds.clear()
            async with asyncio.timeout(5):
                await loose.wait()
    finally:
        gc.enable()


async def test_the_stream_ends_when_the_certificate_expires(authority, control_plane):
    source = Source(world(1, "a"))
    # Certificates count whole seconds.
    short = authority.tls(STORE, seconds=2)
    async with (
        serving(source, control_plane) as server,
        streaming(server, short, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        code, details = await ending(call)
    assert (code, details) == (grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired")
    assert source.peers[0].not_after <= time.time()


async def test_a_renewed_certificate_is_shown_to_the_next_and_disturbs_nobody(authority, proxy):
    source = Source(world(1, "a"))
    shown = [authority.tls(CONTROL_PLANE, SERVER_NAME)]
    elsewhere = Authority()
    async with (
        serving(source, lambda: shown[-1]) as server,
        streaming(server, proxy, authority.root) as old,
    ):
        await old.write(clusters())
        await old.read()
        renewed = elsewhere.tls(CONTROL_PLANE, SERVER_NAME)
        shown.append(replace(renewed, roots=authority.root))
        async with streaming(server, proxy, elsewhere.root) as new:
            await new.write(clusters())
            assert len((await new.read()).resources) == 1
        source.feeds[0].show(world(2, "a:2"))
        await old.write(clusters(response_nonce="1"))
        assert len((await old.read()).resources) == 1


async def test_draining_ends_streams_at_once_and_frees_the_port(authority, control_plane, proxy):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        began = time.monotonic()
        await server.stop(10)
        assert time.monotonic() - began < 1
        code, details = await ending(call)
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "draining" in details
        again = Server(source, lambda: control_plane, Tally())
        await again.start(f"127.0.0.1:{server.port}")
        await again.stop(0)


async def test_a_taken_port_is_an_error_in_one_line(control_plane, capfd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        server = Server(Source(world(1)), lambda: control_plane, Tally())
        with pytest.raises(OSError, match="cannot listen on") as caught:
            await server.start(listen)
        await server.stop(0)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(caught.value).endswith(f"cannot listen on {listen} for xDS: Address already in use")
    assert capfd.readouterr().err == ""


async def test_f4_f5_a_client_that_does_not_read_is_cut_off_and_costs_the_others_nothing(
    authority, control_plane, proxy, monkeypatch
):
    monkeypatch.setattr("meshfed.xds.server.UNREAD", 0.3)
    source = Source(world(1, *(f"c{number}:{'x' * 500_000}" for number in range(40))))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as stuck,
    ):
        await stuck.write(clusters())
        await source.opened.wait()
        await source.feeds[0].closed.wait()
        assert server.streams == 0
        assert set(source.feeds[0].settlements) == set()


async def test_finding_7_streams_that_open_all_at_once_are_all_answered(
    authority, control_plane, proxy
):
    source = Source(world(1, "a"))
    many = 1500  # grpc drops some beyond 1,000 that wait, unless told otherwise
    async with (
        serving(source, control_plane) as server,
        connecting(server, proxy, authority.root) as channel,
    ):
        calls = [opened(channel) for _ in range(many)]
        for call in calls:
            await call.write(clusters())
        answers = await asyncio.gather(*(call.read() for call in calls))
        assert all(len(answer.resources) == 1 for answer in answers)
        assert server.streams == many
        for call in calls:
            call.cancel()


def anybody() -> ssl.SSLContext:
    """Of whoever asks for no certificate, and shows none."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(["h2"])
    return made


async def test_who_does_not_end_its_handshake_has_a_descriptor_for_a_while_alone(
    authority, control_plane, proxy
):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane, tokens="127.0.0.1:0", shaking=0.5) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        assert await call.read()
        ports = server.port, server.port, server.port_of_tokens
        lines = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
        lines[0][1].write(b"\x16\x03\x01\x02\x00")  # the head of a ClientHello
        # TLS, and no word of HTTP/2.
        shaken = await asyncio.open_connection("127.0.0.1", server.port_of_tokens, ssl=anybody())
        async with asyncio.timeout(5):  # by itself grpc takes 120
            await asyncio.gather(*(reading.read() for reading, _ in (*lines, shaken)))
        for _, writing in (*lines, shaken):
            writing.close()
        assert not call.done()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # RFC 9113, 3.4


async def test_a_connection_without_a_stream_ends_and_who_has_one_stays(
    authority, control_plane, proxy
):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane, tokens="127.0.0.1:0", idle=0.5) as server,
        streaming(server, proxy, authority.root) as call,
        connecting(server, proxy, authority.root) as between,
    ):
        await call.write(clusters())
        assert await call.read()
        first = opened(between)
        await first.write(clusters())
        assert await first.read()
        first.cancel()
        reading, writing = await asyncio.open_connection(
            "127.0.0.1", server.port_of_tokens, ssl=anybody()
        )
        writing.write(PREFACE)
        async with asyncio.timeout(5):  # by itself for as long as the age of a connection
            await reading.read()
            while (state := between.get_state()) is grpc.ChannelConnectivity.READY:
                await between.wait_for_state_change(state)
        writing.close()
        again = opened(between)
        await again.write(clusters())
        assert await again.read()
        assert not call.done()
        again.cancel()
