"""`path` says beforehand what real Envoys then do: the same requests, told and sent."""

import httpx
import live
import pytest

from meshfed.catalog.model import ServiceName
from meshfed.federation.explain.judge import Asked, Verdict
from meshfed.federation.explain.matching import Request

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUESTS = [
    pytest.param("caller", "web.live:8080", "GET", "/read/a", {}, {200}, id="allowed"),
    pytest.param("caller", "web.live", "GET", "/read/a", {}, {200}, id="the only port is meant"),
    pytest.param("caller", "web.live:8080", "GET", "/read/a?b=c", {}, {200}, id="with a query"),
    pytest.param("caller", "web.live:8080", "POST", "/read/a", {}, {403}, id="another method"),
    pytest.param("caller", "web.live:8080", "GET", "/read", {}, {403}, id="part of the path"),
    pytest.param("caller", "web.live:8080", "PUT", "/write/a", {}, {200}, id="any method"),
    pytest.param("caller", "web.live:8080", "GET", "/read/../write", {}, {403}, id="dots"),
    pytest.param("caller", "web.live:8080", "GET", "/read/%2e%2e/w", {}, {403}, id="coded dots"),
    pytest.param("caller", "web.live:8080", "POST", "/keyed", {"x-key": "open-1"}, {200},
                 id="the header that is asked for"),
    pytest.param("caller", "web.live:8080", "POST", "/keyed", {"x-key": "shut"}, {403},
                 id="the header with another value"),
    pytest.param("caller", "web.live:8080", "POST", "/keyed", {}, {403}, id="no such header"),
    pytest.param("caller", "both.live:8080", "GET", "/read/a", {}, {200}, id="two identities"),
    pytest.param("caller", "both.live:8080", "GET", "/write/a", {}, {200, 403},
                 id="allowed by one of the two identities that answer"),
    pytest.param("caller", "shop.live:8080", "GET", "/read/a", {}, {200}, id="a split"),
    pytest.param("caller", "shop.live:8080", "GET", "/write/a", {}, {200, 403},
                 id="a split of which one backend refuses"),
    pytest.param("caller", "empty.live:8080", "GET", "/", {}, {503}, id="nobody answers"),
    pytest.param("caller", "web.live:81", "GET", "/read/a", {}, {404}, id="a port that it lacks"),
    pytest.param("caller", "several.live", "GET", "/read/a", {}, {404}, id="which port?"),
    pytest.param("caller", "several.live:8082", "GET", "/read/a", {}, {200}, id="this port"),
    pytest.param("caller", "nobody.live", "GET", "/", {}, {404}, id="no such service"),
    pytest.param("caller", "open.live:8080", "GET", "/read/a", {}, {200}, id="in plaintext"),
    pytest.param("caller", "open.live:8080", "GET", "/write/a", {}, {403},
                 id="the caller enforces where nothing else does"),
    pytest.param("caller", "shut.live:8080", "GET", "/read/a", {}, {503},
                 id="no sidecar, and no plaintext"),
    pytest.param("stranger", "web.live:8080", "GET", "/read/a", {}, {404}, id="no TrafficTarget"),
    pytest.param("stranger", "shop.live:8080", "GET", "/read/a", {}, {404}, id="nor to a backend"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "authority", "method", "at", "headers", "statuses"), REQUESTS)
async def test_a_request_gets_what_path_says(
    world, source, authority, method, at, headers, statuses
):
    name, _, port = authority.partition(":")
    request = Request(method, at, {":authority": authority, **headers})
    asked = Asked(ServiceName.parse(name), int(port) if port else None, request)
    told = world.told(source, asked)
    async with world.mesh.sidecars[source].http() as client:
        got = {
            (await client.request(method, raw(client, at), headers={"host": authority, **headers}))
            .status_code
            for _ in range(1 if len(statuses) == 1 else 40)
        }  # fmt: skip
    assert told.statuses == got == statuses, told.steps
    assert (told.verdict is Verdict.ALLOWED) == (got == {200})


def raw(client: httpx.AsyncClient, at: str) -> httpx.URL:
    """A path as it stands: httpx would take the dots out of it."""
    return client.base_url.copy_with(raw_path=at.encode())


@pytest.mark.parametrize(
    ("source", "port", "allowed"),
    [
        pytest.param("caller", 3306, True, id="a port that a TCPRoute names"),
        pytest.param("caller", 3307, False, id="another port"),
        pytest.param("stranger", 3306, False, id="another caller"),
    ],
)
async def test_a_connection_is_let_through_as_path_says(world, source, port, allowed):
    told = world.told(source, Asked(ServiceName("ledger", "live"), port))
    sidecar = world.mesh.sidecars[source]
    local = {3306: 14306, 3307: 14307}[port]
    if allowed:
        await live.opened(sidecar.address, local)
    got = await live.answer(b"hello", sidecar.address, local)
    assert (told.verdict is Verdict.ALLOWED) == (got == b"hello") == allowed
    spoken = " ".join(step.what for step in told.steps)
    assert (f"{sidecar.address}:{local}" in spoken) == allowed


async def test_without_a_local_port_path_says_how_it_is_reached(world):
    told = world.told("caller", Asked(ServiceName("ledger", "live"), 3308))
    (dial,) = (step for step in told.steps if step.step == "dial")
    assert "no `local` port" in dial.what
    async with live.dial(world.mesh.sidecars["caller"].address, live.OUTBOUND) as (r, w):
        w.write(b"CONNECT ledger.live:3308 HTTP/1.1\r\nhost: ledger.live:3308\r\n\r\n")
        assert b" 200 " in await r.readuntil(b"\r\n\r\n")
        w.write(b"hello")
        assert await r.read(5) == b"hello"


async def test_encryption_is_said_endpoint_by_endpoint(world):
    encrypted = world.told("caller", Asked(ServiceName("web", "live")))
    plain = world.told("caller", Asked(ServiceName("open", "live")))
    assert [hop.mtls for hop in encrypted.hops] == [True]
    assert [hop.mtls for hop in plain.hops] == [False]
    assert "PLAINTEXT" in " ".join(step.what for step in plain.steps)


async def test_the_shares_of_a_split_and_the_policies_behind_them(world):
    told = world.told("caller", Asked(ServiceName("shop", "live")))
    assert sorted(hop.share for hop in told.hops) == [25, 75]
    policies = {name for hop in told.hops for name in hop.policies}
    assert policies == {"live/caller-server", "live/caller-spare"}
    (policy,) = (s.what for s in told.steps if s.object == "live/caller-server")
    assert policy.endswith("access.yaml)")
