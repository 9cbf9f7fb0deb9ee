"""Conversations with the real Envoy, delta and SotW: what the design rests on, kept true.

A test is named for its finding, 1 to 7, or for its rule. Finding 7 is of the server alone: see
test_server_connections.py, where 1,500 streams open at once.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from envoys import BOTH, SOON, Envoy, cluster, found, meeting, world
from peers import CONTROL_PLANE, SERVER_NAME, Authority, Source, Tally

from meshfed.xds.bootstrap import bootstrap
from meshfed.xds.resource import Type, World
from meshfed.xds.server import Server
from meshfed.xds.stream import Request, Response, Stream


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def upstream() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What Envoy says, in order."""
    requests: list[Request] = []

    class Tapped(Stream):
        def receive(self, request: Request, now: float) -> None:
            requests.append(request)
            super().receive(request, now)

    monkeypatch.setattr("meshfed.xds.server.Stream", Tapped)
    return requests


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What it is told, in order."""
    responses: list[bytes] = []

    class Tapped(Stream):
        def outgoing(self, now: float) -> list[Response]:
            made = super().outgoing(now)
            responses.extend(response.body for response in made)
            return made

    monkeypatch.setattr("meshfed.xds.server.Stream", Tapped)
    return responses


async def test_finding_1_clusters_are_not_acknowledged_before_their_endpoints_came(
    authority, upstream, tmp_path
):
    """In SotW nothing says that a name does not exist."""
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting("GRPC", source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        feed = source.feeds[0]
        whole = world(2, "a", upstream, cluster("a"), cluster("b"))
        only_a = {"a": whole.of(Type.ENDPOINTS)["a"]}
        feed.receipts.clear()
        feed.show(World(2, {**whole.resources, Type.ENDPOINTS: only_a}))
        warming = "cluster_manager.warming_clusters"
        await found(lambda: at(envoy, warming, 1))
        assert "CDS" not in {r.kind for r in feed.receipts}
        feed.show(World(3, whole.resources))
        await feed.settles(3)
        assert [r.kind for r in feed.receipts] == ["CDS", "EDS"]


async def at(envoy: Envoy, stat: str, value: int) -> bool:
    return await envoy.stat(stat) == value


@BOTH
async def test_finding_2_of_a_changed_cluster_delta_does_not_ask_and_sotw_repeats_itself(
    api, authority, upstream, tmp_path, heard
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path), asyncio.timeout(SOON):
        await source.feeds[0].settles(1)
        before = [r for r in heard if r.type_url == Type.ENDPOINTS][-1]
        heard.clear()
        source.feeds[0].show(world(2, "a", upstream, cluster("a", seconds=2)))
        await source.feeds[0].settles(2)
        asked = [r for r in heard if r.type_url == Type.ENDPOINTS]
        if api == "DELTA_GRPC":
            assert not any(r.resource_names_subscribe for r in asked)
        else:
            assert asked[0] == before


@BOTH
async def test_finding_2_a_changed_cluster_is_warm_at_once_because_its_endpoints_follow(
    api, authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        assert await envoy.serves() == 200
        source.feeds[0].show(world(2, "a", upstream, cluster("a", seconds=2)))
        await source.feeds[0].settles(2)
        assert await envoy.serves() == 200
        assert await envoy.stat("cluster_manager.warming_clusters") == 0
        assert source.peers[0].envoy_version.startswith("1.")


@BOTH
async def test_o1_a_route_moves_to_a_new_cluster_and_the_old_goes_without_a_failed_request(
    api, authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        seen = {await envoy.serves()}

        async def traffic() -> None:
            while True:
                seen.add(await envoy.serves())

        calls = asyncio.create_task(traffic())
        for revision, (old, new) in enumerate([("a", "b"), ("b", "a"), ("a", "c")], start=2):
            source.feeds[0].show(world(revision, new, upstream, cluster(new)))
            await source.feeds[0].settles(revision)
            assert await envoy.clusters() == {new}, f"{old} stayed"
        calls.cancel()
        assert seen == {200}


@BOTH
async def test_finding_3_a_rejected_cluster_leaves_the_last_good_one_and_holds_up_no_other(
    api, authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        feed = source.feeds[0]
        feed.show(world(2, "a", upstream, cluster("a", bad=True)))
        await feed.until(lambda: any("ring_size" in r.rejected for r in feed.receipts))
        feed.show(world(3, "b", upstream, cluster("a", bad=True), cluster("b")))
        version = await feed.answered("RDS")
        await feed.until(lambda: feed.receipts[-1].kind == "RDS" and feed.receipts[-1] != version)
        assert await envoy.serves() == 200
        assert await envoy.clusters() == {"a", "b"}
        assert await envoy.stat("cluster_manager.warming_clusters") == 0
        assert len([r for r in feed.receipts if r.rejected]) == 1
        feed.show(world(4, "b", upstream, cluster("a", seconds=3), cluster("b")))
        await feed.settles(4)


@BOTH
async def test_n4_a_rejected_cluster_holds_up_nothing_when_envoy_comes_back(
    api, authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    bad = cluster("a", bad=True)
    async with meeting(api, source, authority, tmp_path) as (envoy, server), asyncio.timeout(SOON):
        first = source.feeds[0]
        source.world = world(2, "a", upstream, bad)
        first.show(source.world)
        await first.until(lambda: any("ring_size" in r.rejected for r in first.receipts))
        await first.until(lambda: first.receipts[-1].rejected == "")
        await server.stop(0)
        source.opened.clear()
        again = Server(source, lambda: authority.tls(CONTROL_PLANE, SERVER_NAME), Tally())
        await again.start(f"127.0.0.1:{server.port}")
        await source.opened.wait()
        second = source.feeds[1]
        await second.answered("RDS")
        for revision, names in ((3, "b"), (4, "bc")):
            others = [cluster(name) for name in names]
            second.receipts.clear()
            second.show(world(revision, names[-1], upstream, bad, *others))
            await second.answered("RDS")  # clusters were acknowledged: no gate was waited for
            assert {r.kind for r in second.receipts} >= {"CDS", "EDS"}
            assert await envoy.serves() == 200
        assert not any(r.rejected for r in second.receipts)
        assert second.late == []
        assert await envoy.clusters() == {"a", "b", "c"}
        await again.stop(0)


@BOTH
async def test_finding_4_the_good_ones_of_a_rejected_response_are_applied(
    api, authority, upstream, tmp_path, monkeypatch
):
    # Envoy keeps the rejection back while the good one warms, and the bad one for ever.
    monkeypatch.setattr("meshfed.xds.subscription.GATE", 0.3)
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        feed = source.feeds[0]
        feed.show(world(2, "a", upstream, cluster("a"), cluster("bad", bad=True), cluster("b")))

        async def applied() -> bool:
            return await envoy.clusters() == {"a", "b"}

        await found(applied)
        assert feed.receipts[-1].kind == "EDS"
        feed.show(world(3, "b", upstream, cluster("b")))
        await feed.settles(3)
        assert [r.kind for r in feed.receipts if "ring_size" in r.rejected] == ["CDS"]


@BOTH
async def test_finding_5_the_node_comes_once_a_stream(api, authority, upstream, tmp_path, heard):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path), asyncio.timeout(SOON):
        source.feeds[0].show(world(2, "a", upstream, cluster("a", seconds=2)))
        await source.feeds[0].settles(2)
    first, *others = heard
    assert first.ByteSize() > 50_000
    assert len(others) > 4
    assert max(each.ByteSize() for each in others) < 1_000


def test_finding_5_our_own_bootstrap_says_so():
    there = {"control_plane": "a:1", "admin": "a:1", "bind": "0.0.0.0", "folder": Path()}
    ours = bootstrap(node_id="n", identity="i", trust_domain="t", **there)
    assert ours["dynamic_resources"]["ads_config"]["set_node_on_first_message_only"] is True


@BOTH
async def test_finding_6_nothing_has_a_time_to_live(api, authority, upstream, tmp_path, said):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        source.feeds[0].show(world(2, "b", upstream, cluster("b")))
        await source.feeds[0].settles(2)
        kind = DeltaDiscoveryResponse if api == "DELTA_GRPC" else DiscoveryResponse
        responses = [kind.FromString(body) for body in said]
        assert {response.type_url for response in responses} >= {*Type} - {Type.SECRET}
        for response in responses:
            packed = response.resources
            if api == "DELTA_GRPC":
                assert not any(each.HasField("ttl") for each in packed)
                packed = [each.resource for each in packed]
            assert {each.type_url for each in packed} <= {response.type_url}
        assert await envoy.serves() == 200
        shown = (await envoy.admin.get("/stats", params={"type": "TextReadouts"})).text
        assert 'control_plane.identifier: "meshfed"' in shown, "T11"


@BOTH
async def test_f3_n5_a_rejection_that_envoy_keeps_back_holds_up_routes_for_a_while_only(
    api, authority, upstream, tmp_path, monkeypatch
):
    # Beside a good one, a bad cluster keeps CDS paused, and its own rejection with it.
    monkeypatch.setattr("meshfed.xds.subscription.GATE", 0.3)
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting(api, source, authority, tmp_path) as (envoy, _), asyncio.timeout(SOON):
        feed = source.feeds[0]
        feed.show(world(2, "b", upstream, cluster("a", bad=True), cluster("b")))
        await feed.until(lambda: [r.kind for r in feed.receipts].count("RDS") == 2)
        assert await envoy.serves() == 200
        feed.show(world(3, "b", upstream, cluster("a", seconds=3), cluster("b")))
        await feed.settles(3)
        assert [r.kind for r in feed.receipts if "ring_size" in r.rejected] == ["CDS"]
        assert await envoy.stat("cluster_manager.warming_clusters") == 0


async def test_d5_d7_an_envoy_that_comes_back_is_sent_no_cluster_and_no_listener(
    authority, upstream, tmp_path
):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting("DELTA_GRPC", source, authority, tmp_path) as (envoy, server):
        await server.stop(0)
        assert await envoy.serves() == 200
        source.opened.clear()
        tally = Tally()
        again = Server(source, lambda: authority.tls(CONTROL_PLANE, SERVER_NAME), tally)
        await again.start(f"127.0.0.1:{server.port}")
        async with asyncio.timeout(SOON):
            await source.opened.wait()
            await source.feeds[1].answered("RDS")
            await source.feeds[1].answered("EDS")
            await source.feeds[1].settles(1)
        await again.stop(0)
        assert tally.resources == {"EDS": 1, "RDS": 1}
        assert await envoy.serves() == 200


@pytest.mark.soak
async def test_t14_a_proxy_that_stopped_is_noticed(authority, upstream, tmp_path):
    source = Source(world(1, "a", upstream, cluster("a")))
    async with meeting("DELTA_GRPC", source, authority, tmp_path) as (envoy, server):
        envoy.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(45):
            await source.feeds[0].closed.wait()
        assert server.streams == 0
