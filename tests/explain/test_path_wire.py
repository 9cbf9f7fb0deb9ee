"""`path` says beforehand what real Envoys then do: the same requests, told and sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import live
import pytest
import pytest_asyncio

from meshfed.catalog.model import ServiceName
from meshfed.federation.explain.callers import callers
from meshfed.federation.explain.facts import Facts, gathered
from meshfed.federation.explain.judge import Asked, Known, Path, Verdict
from meshfed.federation.explain.matching import Request
from meshfed.federation.explain.path import path

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEBS = {"server": "127.0.5.1", "spare": "127.0.5.2"}
WEB, LEDGER = 14101, 14103

HOSTS = """\
services:
  web.live:    {ports: {http: {number: 8080, target: 14101}}}
  both.live:   {ports: {http: {number: 8080, target: 14101}}}
  shop.live:   {ports: {http: 8080}}
  shop-a.live: {ports: {http: {number: 8080, target: 14101}}}
  shop-b.live: {ports: {http: {number: 8080, target: 14101}}}
  empty.live:  {ports: {http: 8080}}
  several.live:
    ports: {one: {number: 8081, target: 14101}, two: {number: 8082, target: 14101}}
  open.live:   {ports: {http: {number: 8080, target: 14101}}, plaintext: allow}
  shut.live:   {ports: {http: {number: 8080, target: 14101}}}
  ledger.live:
    protocol: tcp
    ports:
      open:   {number: 3306, target: 14103, local: 14306}
      closed: {number: 3307, target: 14103, local: 14307}
      bare:   {number: 3308, target: 14103}
hosts:
  - {name: caller, identity: caller.live,
     address: 127.0.4.1, bind: 127.0.4.1, application: 127.0.4.1}
  - {name: stranger, identity: stranger.live,
     address: 127.0.4.2, bind: 127.0.4.2, application: 127.0.4.2}
  - {name: server, identity: server.live,
     address: 127.0.5.1, bind: 127.0.5.1, application: 127.0.5.1,
     service: [web.live, both.live, shop-a.live, several.live, ledger.live]}
  - {name: spare, identity: spare.live, service: [both.live, shop-b.live],
     address: 127.0.5.2, bind: 127.0.5.2, application: 127.0.5.2}
  - {name: bare, identity: bare.live, service: [open.live, shut.live], interception: none,
     address: 127.0.5.1}
"""

ROUTES = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: web, namespace: live}
spec:
  matches:
    - {name: read, pathRegex: /read/.*, methods: [GET]}
    - {name: keyed, pathRegex: /keyed, methods: [GET, POST], headers: [{x-key: "open-.*"}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: writing, namespace: live}
spec:
  matches: [{name: write, pathRegex: /write/.*, methods: ["*"]}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: open, namespace: live}
spec:
  matches: {name: open, ports: [3306, 3308]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: shop, namespace: live}
spec:
  service: shop
  backends: [{service: shop-a, weight: 75}, {service: shop-b, weight: 25}]
"""


def target(source: str, destination: str, *rules: str) -> str:
    told = ", ".join(f"{{kind: {rule.split()[0]}, name: {rule.split()[1]}}}" for rule in rules)
    return f"""\
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {source}-{destination}, namespace: live}}
spec:
  destination: {{kind: ServiceAccount, name: {destination}, namespace: live}}
  sources: [{{kind: ServiceAccount, name: {source}, namespace: live}}]
  rules: [{told}]
"""


ACCESS = (
    target("caller", "server", "HTTPRouteGroup web", "HTTPRouteGroup writing")
    # Beside an HTTPRouteGroup a TCPRoute narrows it: one of its own.
    + target("caller", "spare", "HTTPRouteGroup web")
    + target("caller", "bare", "HTTPRouteGroup web")
    + target("caller", "server", "TCPRoute open").replace("caller-server", "caller-server-tcp")
)


@dataclass
class World:
    mesh: live.Mesh
    facts: Facts

    def told(self, source: str, asked: Asked) -> Path:
        (who,) = callers(self.facts.mesh, source, self.facts.resolved)
        known = Known(self.facts.bearings.policies, self.facts.trouble())
        return path(self.facts.mesh, who, asked, known, self.facts.resolved)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("path")
    async with AsyncExitStack() as running:
        for name, address in WEBS.items():
            web = live.listening(live.Web(name), address, WEB)
            await running.enter_async_context(web)
        await running.enter_async_context(live.listening(live.echo, WEBS["server"], LEDGER))
        policy = {"routes.yaml": ROUTES, "access.yaml": ACCESS}
        mesh = live.mesh(folder, HOSTS, policy, "caller", "stranger", *WEBS)
        made = await running.enter_async_context(mesh)
        yield World(made, await asyncio.to_thread(gathered, f"sqlite:///{folder}/meshfed.db"))


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
