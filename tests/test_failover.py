"""What is preferred is called first, and what is next takes over, without losing a call."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import live
import pytest
import pytest_asyncio
import yaml

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

    def listed(self, *names: str) -> None:
        live.replace(self.mesh.folder / "azure.yaml", azure(*names))

    def ruled(self, **rules: object) -> None:
        live.replace(self.mesh.config, yaml.safe_dump({**self.mesh.written, "federation": rules}))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    made = live.Mesh(tmp_path_factory.mktemp("failover"), HOSTS, {"web.yaml": POLICY})
    made.binds |= {"one": ONE, "two": TWO}
    made.written["providers"] += [{"name": "azure", "type": "hosts", "path": "azure.yaml"}]
    found = World(made)
    found.listed("one", "two")
    found.ruled(prefer=["azure", "rack"])
    async with AsyncExitStack() as running:
        running.callback(made.end)
        for name, at in {"rack": RACK, "one": ONE, "two": TWO}.items():
            await running.enter_async_context(live.listening(live.Web(name), at, WEB))
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
