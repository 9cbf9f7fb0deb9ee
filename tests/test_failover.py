"""What is preferred is called first, and what is next takes over, without losing a call."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import live
import pytest
import pytest_asyncio
import yaml
from applications import Web, listening
from live import INBOUND

WEB = 14101
CALLER, RACK, ONE, TWO = (f"127.0.41.{n}" for n in range(1, 5))

SERVICES = "services: {web.live: {ports: {http: {number: 8080, target: 14101}}}}\nhosts:\n"


def host(name: str, at: str, service: str = "") -> str:
    who = "caller" if name == "caller" else "web"
    serves = f", service: {service}" if service else ""
    return (
        f"  - {{name: {name}, identity: {who}.live, address: {at}, bind: {at}, application: {at},"
        f" locality: eu/{'b' if name == 'two' else 'a'}{serves}}}\n"
    )


def azure(*serving: str) -> str:
    """A host list that stands for a platform."""
    there = {"one": ONE, "two": TWO}
    return SERVICES + "".join(
        host(name, at, "web.live" if name in serving else "") for name, at in there.items()
    )


HOSTS = SERVICES + host("caller", CALLER) + host("rack", RACK, "web.live")
POLICY = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all, namespace: live}
spec: {matches: [{name: all}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: web, namespace: live}
spec:
  destination: {kind: ServiceAccount, name: web, namespace: live}
  sources: [{kind: ServiceAccount, name: caller, namespace: live}]
  rules: [{kind: HTTPRouteGroup, name: all}]
"""


@dataclass
class World:
    """A caller, one host of a rack, and two that stand for Azure."""

    mesh: live.Mesh
    webs: dict[str, AsyncExitStack]  # each application, to be stopped by itself

    async def application(self, name: str) -> None:
        running = self.webs[name] = AsyncExitStack()
        at = listening(Web(name), self.mesh.binds[name], WEB)
        await running.enter_async_context(at)

    def listed(self, *names: str) -> None:
        live.replace(self.mesh.folder / "azure.yaml", azure(*names))

    def ruled(self, **rules: object) -> None:
        live.replace(self.mesh.config, yaml.safe_dump({**self.mesh.written, "federation": rules}))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    made = live.Mesh(tmp_path_factory.mktemp("failover"), HOSTS, {"web.yaml": POLICY})
    made.binds |= {"one": ONE, "two": TWO}
    made.written["providers"] += [{"name": "azure", "type": "hosts", "path": "azure.yaml"}]
    found = World(made, {})
    found.listed("one", "two")
    found.ruled(prefer=["azure", "rack"])
    async with AsyncExitStack() as running:
        running.callback(made.end)
        for name in ("rack", "one", "two"):
            await found.application(name)
            running.push_async_callback(found.webs[name].aclose)
        await made.serve()
        await made.start("caller", "rack", "one", "two")
        yield found


def failed(traffic: live.Traffic) -> list[str]:
    return [name for _, name in traffic.made if name not in ("rack", "one", "two")]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_next_takes_over_when_the_preferred_leaves_and_returns(world: World) -> None:
    world.ruled(prefer=["azure", "rack"])
    world.listed("one", "two")
    async with live.traffic(world.mesh.sidecars["caller"], "web.live", "/") as traffic:
        await traffic.settled({"one", "two"})
        world.listed()
        await traffic.settled({"rack"})
        world.listed("one")
        await traffic.settled({"one"})
    assert failed(traffic) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_what_comes_over_open_connections_once_a_host_serves_no_more_was_not_heard(
    world: World,
) -> None:
    """Its callers may hear of it a moment later than it does; this one does not hear of it at all.

    What the host's sidecar says then is for theirs, which asks another.
    """
    world.ruled()
    world.listed("one", "two")
    caller, one = (world.mesh.sidecars[name] for name in ("caller", "one"))
    papers, name = caller.tls("http/1.1"), live.server_name("web.live", 8080)
    asked = b"GET / HTTP/1.1\r\nhost: web.live\r\n\r\n"

    async def serves() -> bool:
        return bool(await live.answer(asked, ONE, INBOUND, papers, name))

    async def serves_no_more() -> bool:
        return "cluster.local|web.live|8080.upstream_cx_total" not in await one.stats()

    await live.until("one serves", serves)
    async with live.dial(ONE, INBOUND, papers, name) as (reader, writer):
        writer.write(asked)
        assert b"x-name: one" in await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len("one GET / "))
        world.listed("two")
        await live.until("the end of its cluster", serves_no_more)
        writer.write(asked)
        said = await reader.readuntil(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 503 "), said
    assert b"\r\nx-meshfed-unheard: NC\r\n" in said


@pytest.mark.asyncio(loop_scope="module")
async def test_an_application_that_is_away_behind_its_sidecar_costs_no_call_while_another_is_there(
    world: World,
) -> None:
    world.ruled()
    world.listed("one")
    async with live.traffic(world.mesh.sidecars["caller"], "web.live", "/") as traffic:
        await traffic.settled({"one", "rack"})
        await world.webs["one"].aclose()
        await traffic.settled({"rack"})
        assert len(failed(traffic)) <= 1, "more than the one that it may have heard as it ended"
        await world.webs["rack"].aclose()
        await traffic.settled({"503"}, 5)
        got = await traffic.client.get("/", headers=traffic.headers)
        assert "x-meshfed-unheard" not in got.headers, "it is for sidecars alone"
        for name in ("one", "rack"):
            await world.application(name)
        await traffic.settled({"one", "rack"})


@pytest.mark.asyncio(loop_scope="module")
async def test_a_service_goes_from_host_to_host_and_many_callers_lose_nothing(
    world: World,
) -> None:
    """Who comes to it is called a moment before its own sidecar listens, and left alone for that.

    Not for so long that nobody is there once the other goes, three seconds later.
    """
    world.ruled()
    live.replace(world.mesh.hosts, SERVICES + host("caller", CALLER) + host("rack", RACK))
    world.listed("one", "two")
    sidecar = world.mesh.sidecars["caller"]
    async with AsyncExitStack() as calling:
        callers = [
            await calling.enter_async_context(live.traffic(sidecar, "web.live", "/"))
            for _ in range(20)  # at once: more than Envoy tries again of by itself
        ]
        await callers[0].settled({"one", "two"})
        world.listed("two")
        await callers[0].settled({"two"})
        world.listed("one", "two")
        await asyncio.sleep(3)
        world.listed("one")
        await callers[0].settled({"one"})
    live.replace(world.mesh.hosts, HOSTS)
    assert [name for each in callers for name in failed(each)] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_calls_spill_over_as_hosts_die_that_their_provider_still_lists(world: World) -> None:
    world.ruled(prefer=["azure", "rack"], minimum_healthy="50%")
    world.listed("two")
    async with live.traffic(world.mesh.sidecars["caller"], "web.live", "/") as traffic:
        await traffic.settled({"two"})
        world.mesh.sidecars.pop("two").process.kill()
        await traffic.settled({"rack"})
        world.listed("one", "two")
        await traffic.settled({"one"})  # one of two is enough
        world.ruled(prefer=["azure", "rack"], minimum_healthy="100%")
        await traffic.settled({"one", "rack"})
        await world.mesh.start("two")
        await traffic.settled({"one", "two"})
    assert failed(traffic) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_an_edited_rule_moves_the_calls_at_once_and_weights_share_them_out(
    world: World,
) -> None:
    world.ruled(prefer=["azure", "rack"])
    world.listed("one", "two")
    async with live.traffic(world.mesh.sidecars["caller"], "web.live", "/") as traffic:
        await traffic.settled({"one", "two"})
        world.ruled(services={"web.live": {"prefer": ["rack", "azure"]}})
        await traffic.settled({"rack"})
        world.ruled(services={"web.live": {"prefer": ["same-zone"]}})
        await traffic.settled({"rack", "one"})  # a variant of its own, so another cluster
        world.ruled(weights={"azure": 20, "rack": 80})
        await traffic.settled({"one", "two", "rack"})
        await traffic.more(200)
        shares = Counter(name for _, name in traffic.made[-200:])
        assert 130 < shares["rack"] < 190  # five sigma around 160
    assert failed(traffic) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_most_may_be_dead_though_listed_and_every_call_finds_who_is_not(
    world: World,
) -> None:
    """Of three that nobody is at, Envoy leaves two alone: it ejects no more than half of five."""
    world.ruled()
    dead = "".join(host(f"dead-{n}", f"127.0.41.{n}", "web.live") for n in range(11, 14))
    async with live.traffic(world.mesh.sidecars["caller"], "web.live", "/") as traffic:
        live.replace(world.mesh.folder / "azure.yaml", azure("one") + dead)
        await traffic.settled({"one", "rack"})
        await traffic.more(300)
        world.listed("one", "two")
        await traffic.settled({"one", "two", "rack"})
    assert failed(traffic) == []
