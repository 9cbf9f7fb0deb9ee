"""What a mesh of real Envoys lets through, what it refuses, and how soon it obeys."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import grpc
import httpx
import live
import pytest
import pytest_asyncio
from behaving import FEED, HOSTS, LEAVER, SERVER, World, running
from forged import client_hello, forged_papers, no_papers
from live import DOMAIN, INBOUND, OUTBOUND

from meshfed.federation.demo.folder import replace

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running(tmp_path_factory.mktemp("behaviour")) as made:
        yield made


# HTTP


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        pytest.param("GET", "/read/a", {}, 200, id="a path and a method that are allowed"),
        pytest.param("GET", "/read/a?b=c", {}, 200, id="a query is no part of the path"),
        pytest.param("POST", "/read/a", {}, 403, id="another method"),
        pytest.param("GET", "/write/a", {}, 403, id="another path"),
        pytest.param("GET", "/read", {}, 403, id="a part of the path"),
        pytest.param("GET", "/read/../write", {}, 403, id="a path that leads out by dots"),
        pytest.param("POST", "/keyed", {"x-key": "open-1"}, 200, id="the header that is asked for"),
        pytest.param("POST", "/keyed", {"x-key": "shut"}, 403, id="the header with another value"),
        pytest.param("POST", "/keyed", {}, 403, id="no such header"),
    ],
)
async def test_http_is_allowed_and_denied_by_the_server(world, method, path, headers, status):
    heard = len(world.webs["server"].heard)
    async with world.caller.http() as client:
        got = await client.request(method, path, headers={"host": "web.live:8080", **headers})
    assert got.status_code == status, got.text
    if status == 200:
        assert got.headers["x-name"] == "server"
        assert uri("caller") in got.headers["x-caller"]
    else:
        assert "RBAC" in got.text
        assert len(world.webs["server"].heard) == heard


async def test_without_a_traffic_target_the_client_says_why_and_the_server_refuses(world):
    async with world.stranger.http() as client:
        got = await client.get("/read/a", headers={"host": "web.live:8080"})
    assert got.status_code == 404
    assert got.text.startswith("web.live:8080 is not a service that stranger.live may call")
    assert b" 403 " in await knock_http(world.stranger, "/read/a")
    assert b" 200 " in await knock_http(world.caller, "/read/a")


@pytest.mark.parametrize(
    "authority",
    ["web.live:8080", "WEB.Live:8080", "web.live", "web.live.", "web.live.:8080", "eighty.live"],
)
async def test_an_authority_leads_to_its_service(world, authority):
    async with world.caller.http() as client:
        got = await client.get("/read/a", headers={"host": authority})
    assert (got.status_code, got.headers.get("x-name")) == (200, "server"), got.text


@pytest.mark.parametrize(
    ("authority", "why"),
    [
        pytest.param("nobody.live", "nobody.live is not a service", id="no such service"),
        pytest.param("example.org:80", "example.org:80 is not a service", id="the outside world"),
        pytest.param("web.live:9999", "on port 8080 (http)", id="a port that it lacks"),
        pytest.param("several.live", "8081 (http), 8082 (http)", id="several ports"),
        pytest.param("ledger.live:3306", "its local port 13306", id="a service that speaks tcp"),
    ],
)
async def test_an_authority_that_leads_nowhere_says_why(world, authority, why):
    async with world.caller.http() as client:
        got = await client.get("/read/a", headers={"host": authority})
    assert got.status_code == 404
    assert why in got.text


async def test_an_http_proxy_is_asked_in_absolute_form(world):
    async with world.caller.proxy() as client:
        got = await client.get("http://web.live:8080/read/a")
    assert (got.status_code, got.headers["x-name"]) == (200, "server")


async def test_a_split_divides_by_weight(world):
    """1,000 requests at 75/25: six standard deviations are 82."""
    async with world.caller.http() as client:

        async def some(_: int) -> list[str]:
            asked = {"host": "shop.live:8080"}
            got = [await client.get("/read/a", headers=asked) for _ in range(125)]
            return [each.headers["x-name"] for each in got]

        answered = await asyncio.gather(*map(some, range(8)))
    names = Counter(name for each in answered for name in each)
    assert names.keys() == {"server", "spare"}
    assert names["server"] == pytest.approx(750, abs=82)


@pytest.mark.skipif(not live.ipv6(), reason="this machine has no IPv6 loopback")
async def test_an_endpoint_has_an_ipv6_address(world):
    async with world.caller.http() as client:
        got = await client.get("/read/a", headers={"host": "six.live:8080"})
    assert (got.status_code, got.headers["x-name"]) == (200, "six")


async def test_http2_without_tls_is_understood(world):
    async with world.caller.http(http1=False, http2=True) as client:
        got = await client.get("/read/a", headers={"host": "web.live:8080"})
    assert (got.status_code, got.http_version, got.headers["x-name"]) == (200, "HTTP/2", "server")


@pytest.mark.parametrize("tunnel", [False, True], ids=["in origin form", "inside a CONNECT"])
async def test_a_websocket_passes(world, tunnel):
    async with live.dial(world.caller.address, OUTBOUND) as (reader, writer):
        if tunnel:
            writer.write(b"CONNECT web.live:8080 HTTP/1.1\r\nhost: web.live:8080\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"GET /socket HTTP/1.1\r\nhost: web.live:8080\r\nconnection: upgrade\r\n"
            b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        for word in (b"one", b"two"):
            writer.write(word)
            assert await reader.readexactly(3) == word


# gRPC


def channel(sidecar: live.Sidecar, way: str) -> grpc.aio.Channel:
    if way == "CONNECT":
        through = ("grpc.http_proxy", f"http://{sidecar.address}:{OUTBOUND}")
        return grpc.aio.insecure_channel("rpc.live:9090", options=[through])
    named = ("grpc.default_authority", "rpc.live:9090")
    return grpc.aio.insecure_channel(f"{sidecar.address}:{OUTBOUND}", options=[named])


@pytest.mark.parametrize("way", ["CONNECT", "h2c"])
async def test_grpc_is_allowed_and_denied_by_its_method(world, way):
    async with channel(world.caller, way) as through:
        said = await through.unary_unary("/live.Echo/Say")(b"hello", timeout=live.PATIENCE)
        counted = [n async for n in through.unary_stream("/live.Echo/Count")(b"3")]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await through.unary_unary("/live.Other/Say")(b"hello", timeout=live.PATIENCE)
    assert (said, counted) == (b"you said hello", [b"0", b"1", b"2"])
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


# TCP, and the application's own TLS


async def test_tcp_is_allowed_and_denied_by_its_port(world):
    caller, stranger = world.caller, world.stranger
    assert await live.answer(b"hello", caller.address, 13306) == b"hello"
    assert await live.knock(caller, SERVER, "ledger.live", 3306, b"hello") == b"hello"
    # No TCPRoute names 3307: nothing listens for it here, and there it is refused all the same.
    assert await live.refuses(caller.address, 13307)
    assert await live.knock(caller, SERVER, "ledger.live", 3307, b"hello") == b""
    assert await live.refuses(stranger.address, 13306)
    assert await live.knock(stranger, SERVER, "ledger.live", 3306, b"hello") == b""


async def test_tcp_passes_through_connect(world):
    async with live.dial(world.caller.address, OUTBOUND) as (reader, writer):
        writer.write(b"CONNECT ledger.live:3306 HTTP/1.1\r\nhost: ledger.live:3306\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"


async def test_a_server_may_speak_first_but_not_to_everybody(world):
    async with live.dial(world.caller.address, 10025) as (reader, writer):
        assert await reader.readline() == b"220 welcome\r\n"
        writer.write(b"helo\r\n")
        assert await reader.readline() == b"helo\r\n"
    assert await live.knock(world.stranger, SERVER, "greeter.live", 25, b"") == b""
    assert await live.knock(world.caller, SERVER, "greeter.live", 25, b"") == b"220 welcome\r\n"


async def test_https_is_the_applications_own_inside_the_meshs(world):
    """Authorised as a connection: its paths are nobody's business."""
    url = "https://secure.live/write/a"
    async with world.caller.proxy(verify=world.own_tls) as client:
        assert (await client.get(url)).headers["x-name"] == "secure"
    asked = b"GET /write/a HTTP/1.1\r\nhost: secure.live\r\n\r\n"
    at = (world.caller.address, 10443, world.own_tls, "secure.live")
    assert b"x-name: secure" in await live.answer(asked, *at)
    async with world.stranger.proxy(verify=world.own_tls) as client:
        with pytest.raises(httpx.ProxyError, match="404"):
            await client.get(url)
    async with world.caller.proxy(verify=world.own_tls) as client:
        with pytest.raises(httpx.ProxyError, match="404"):
            await client.get("https://secure.live:8443/write/a")
    hello = client_hello("secure.live")
    assert await live.knock(world.caller, SERVER, "secure.live", 443, hello) != b""
    assert await live.knock(world.caller, SERVER, "secure.live", 8443, hello) == b""
    assert await live.knock(world.stranger, SERVER, "secure.live", 443, hello) == b""
    assert await live.refuses(world.stranger.address, 10443)
    assert await live.refuses(world.caller.address, 18443)


# Who may not even begin


async def test_sidecars_lend_their_identity_to_their_own_address_only(world):
    for port in (OUTBOUND, 13306, 10025, 10443):
        assert not await live.refuses("127.0.2.1", port)
        assert await live.refuses("127.0.2.99", port)


@pytest.mark.skipif(not live.outside(), reason="this machine has no address beyond loopback")
async def test_a_sidecar_on_all_addresses_lends_its_identity_to_none_of_them(world):
    await world.mesh.start("wide")
    try:
        for port, open_to_others in ((INBOUND, True), (OUTBOUND, False), (13306, False)):
            assert not await live.refuses("127.0.0.1", port)
            assert await live.refuses(live.outside(), port) is not open_to_others
        assert await live.answer(b"hello", "127.0.0.1", 13306) == b"hello"
    finally:
        world.mesh.stop("wide")


def uri(account: str) -> str:
    return f"URI=spiffe://{DOMAIN}/ns/live/sa/{account}"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: web.live:8080\r\n\r\n".encode()


async def knock_http(who: live.Sidecar, path: str) -> bytes:
    return await live.knock(who, SERVER, "web.live", 8080, get(path), alpn="http/1.1")


async def test_permissive_lets_everyone_in_but_nobody_without_a_certificate(world):
    """And once it is off again, they are out within a second."""
    stranger, mesh = world.stranger, world.mesh
    await mesh.change(lambda: mesh.permit(everything=True))
    try:
        async with stranger.http() as client:
            got = await client.post("/write/a", headers={"host": "web.live:8080"})
            assert (got.status_code, got.headers.get("x-name")) == (200, "server"), got.text
            assert uri("stranger") in got.headers["x-caller"]
            await live.opened(stranger.address, 13307)
            assert await live.answer(b"hello", stranger.address, 13307) == b"hello"
            await refused_without_a_certificate(world)
            off = mesh.permit(everything=False)
            by_client, by_server = await asyncio.gather(
                first_refusal(lambda: asked(client)),
                first_refusal(lambda: knock_http(stranger, "/write/a")),
            )
        assert by_client - off < 1
        assert by_server - off < 1
    finally:
        mesh.permit(everything=False)
    await live.until_refused(stranger.address, 13307)
    assert await live.knock(stranger, SERVER, "ledger.live", 3307, b"hello") == b""


async def refused_without_a_certificate(world: World) -> None:
    name = live.server_name("web.live", 8080)
    assert await live.answer(get("/read/a"), SERVER, INBOUND) == b""
    for papers in (no_papers(), forged_papers(uri("caller").removeprefix("URI="))):
        assert await live.answer(get("/read/a"), SERVER, INBOUND, papers, name) == b""


async def asked(client: httpx.AsyncClient) -> bytes:
    got = await client.get("/write/a", headers={"host": "web.live:8080"})
    return f" {got.status_code} ".encode()


async def first_refusal(ask: Callable[[], Awaitable[bytes]]) -> float:
    async with asyncio.timeout(live.PATIENCE):
        while True:
            moment = time.time()
            if b" 200 " not in await ask():
                return moment


# What is open, and what stays


async def test_access_that_is_removed_ends_what_it_opened_within_ten_seconds(world):
    """Through both sidecars, and from a client that heeds no policy; what is allowed stays open."""
    caller, mesh = world.caller, world.mesh
    feed = mesh.folder / "policy" / "feed.yaml"
    straight = (SERVER, INBOUND, caller.tls("meshfed"))
    async with AsyncExitStack() as open_until_the_end:

        async def dialled(*where: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await open_until_the_end.enter_async_context(live.dial(*where))

        streams = [
            await dialled(caller.address, 17000),
            await dialled(*straight, live.server_name("trickle.live", 7000)),
            # The same where somebody else may go on calling.
            await dialled(caller.address, 17001),
            await dialled(*straight, live.server_name("trickle.live", 7001)),
        ]
        reader, writer = await dialled(caller.address, 13306)
        for stream, _ in streams:
            assert await stream.readexactly(2) == b".."
        removed = time.time()
        await mesh.change(lambda: live.removed(feed))
        try:
            await live.until_refused(caller.address, 17000)
            await live.until_refused(caller.address, 17001)
            for port in (7000, 7001):
                assert await live.knock(caller, SERVER, "trickle.live", port, b"") == b""
            ends = await asyncio.gather(*(live.last_byte(stream) for stream, _ in streams))
            assert max(ends) - removed <= 10
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
        finally:
            await mesh.change(lambda: replace(feed, FEED))


async def test_a_host_that_leaves_the_list_gets_no_more_requests(world):
    mesh = world.mesh
    async with live.traffic(world.caller, "pair.live:8080", "/read/a") as traffic:
        await traffic.more(100)
        assert {name for _, name in traffic.made} == {"server", "leaver"}
        edit = await mesh.change(lambda: replace(mesh.hosts, HOSTS))
        await traffic.after(edit.applied, 200)
    try:
        assert {name for at, name in traffic.made if at > edit.applied} == {"server"}
        assert {name for _, name in traffic.made} == {"server", "leaver"}, "some of them failed"
        assert "leaver" not in {proxy["workload"] for proxy in await mesh.proxies()}
    finally:
        await mesh.change(lambda: replace(mesh.hosts, HOSTS + LEAVER))
        await live.until("the leaver's return", mesh.in_sync)


async def test_traffic_goes_on_without_a_control_plane_that_then_sends_no_cluster_or_listener(
    world,
):
    caller, mesh = world.caller, world.mesh
    before = await told(mesh)
    async with (
        live.traffic(caller, "web.live:8080", "/read/a") as traffic,
        live.dial(caller.address, 13306) as (reader, writer),
    ):
        await traffic.more(50)
        mesh.process.kill()
        assert await live.answer(b"a new one", caller.address, 13306) == b"a new one"
        await traffic.more(200)
        await mesh.serve()
        await live.until("every sidecar's return", mesh.in_sync)
        await traffic.more(50)
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
    assert {name for _, name in traffic.made} == {"server"}, "some of them failed"
    sent = {kind: await mesh.metric("meshfed_pushed_resources_total", type=kind) for kind in KINDS}
    assert (sent["CDS"], sent["LDS"]) == (0, 0)
    assert sent["EDS"] > 0, "who waits for an assignment must be answered (xDS has no other way)"
    assert await told(mesh) == before
    # It is listened to again.
    feed = mesh.folder / "policy" / "feed.yaml"
    await mesh.change(lambda: live.removed(feed))
    await mesh.change(lambda: replace(feed, FEED))


KINDS = ("CDS", "LDS", "EDS")
TOLD = ("cluster_manager.cds.update_success", "listener_manager.lds.update_success")
TOLD += ("cluster_manager.cluster_added", "listener_manager.listener_added")
TOLD += ("cluster_manager.cluster_modified", "listener_manager.listener_modified")


async def told(mesh: live.Mesh) -> dict[str, list[int]]:
    """How often each sidecar has heard of clusters and listeners, by its own count."""
    stats = {name: await sidecar.stats() for name, sidecar in mesh.sidecars.items()}
    return {name: [counted[each] for each in TOLD] for name, counted in stats.items()}
