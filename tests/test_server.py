"""Streams of the xDS server over real TLS on loopback, with grpc's own client."""

import asyncio
import gc
import time
import weakref

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DiscoveryRequest,
)
from peers import CONTROL_PLANE, SERVER_NAME, STORE, Authority, Source, Tally, serving
from streaming import clusters, connecting, ending, opened, streaming, world

from meshfed.xds.feed import Refusal, Unready
from meshfed.xds.resource import Type
from meshfed.xds.server import Tls


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


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


async def test_a_mistake_of_ours_in_a_first_request_leaves_no_feed_open(
    authority, control_plane, proxy, monkeypatch
):
    monkeypatch.setattr("meshfed.xds.stream.Stream.receive", lambda *_: 1 / 0)
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        assert (await ending(call))[0] == grpc.StatusCode.UNKNOWN
        (feed,) = source.feeds
        assert feed.closed.is_set()
