"""A sidecar that is not connected, or has no certificate: who is told to do what about it."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from meshfed.catalog.bearings import Bearings, Connected, Replica
from meshfed.catalog.joins import Given, Joins
from meshfed.catalog.model import Identity, Known, Mesh, Workload
from meshfed.catalog.resolved import resolve
from meshfed.catalog.store import Catalog, migrate
from meshfed.catalog.tokens import Token
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.seen import Seen
from meshfed.federation.explain.sidecar import certified, connected
from meshfed.federation.explain.step import Step

WEB = Identity("web", "shop")
TOKEN = Token("3f9a01c4", "5e" * 32, WEB, (), 1, "2999-01-01T00:00:00.000Z")
GIVEN = Given("a1", "2999-01-08T00:00:00.000Z")
NOON = 1_790_000_000.0
BOOTSTRAP = "meshfed proxy bootstrap"
AGENT = "journalctl -u meshfed-agent"


def machine(name: str) -> Workload:
    scope = f"registered/{name}"
    return Workload(name, "registered", scope, identity=WEB, addresses=("10.0.0.9",))


def alone(workload: Workload) -> Known:
    scope = workload.scope
    return Known(workload.provider, scope, workloads=frozenset({workload}))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A mesh of one machine that joined, and of one that somebody registered."""
    url = f"sqlite:///{tmp_path}/meshfed.db"
    migrate(url)

    async def fill() -> None:
        with closing(Catalog(url)) as catalog:
            await catalog.configure("shop.example", permissive=False)
            await Joins(catalog).create(TOKEN, "ann@desk")
            await Joins(catalog).join(alone(machine("joined-1")), TOKEN.id, GIVEN, "a test")
            await catalog.register("by-hand-1", alone(machine("by-hand-1")), "ann@desk")
            await catalog.record("replica-1", 1, (), (), ())

    asyncio.run(fill())
    return url


@pytest.mark.parametrize(
    ("name", "told", "untold"),
    [("joined-1", AGENT, BOOTSTRAP), ("by-hand-1", f"{BOOTSTRAP} by-hand-1", AGENT)],
)
def test_why_names_what_starts_the_sidecar_that_is_not_connected(
    url: str, command: Callable[..., object], name: str, told: str, untold: str
) -> None:
    said = command("why", name, "--catalog", url).err
    (line,) = [line for line in said.splitlines() if "is not connected" in line]
    assert told in line
    assert untold not in line


def facts(workload: Workload, *proxies: Connected, joined: bool) -> Facts:
    mesh = Mesh("shop.example", workloads={workload.id: workload})
    serving = (Replica("r1", 7, NOON - 1),)
    who = frozenset({workload.id} if joined else ())
    bearings = Bearings(7, NOON - 60, None, serving, proxies, {}, {}, joined=who)
    return Facts(mesh, resolve(mesh), bearings, NOON)


def proxy(workload: Workload, state: str) -> Connected:
    id_, name = workload.id, workload.name
    return Connected(id_, name, str(WEB), "r1", state, "told so", None, NOON - 60, "1.40.0")


def remedied(steps: list[Step]) -> str:
    (step,) = steps
    return step.remedy


@pytest.mark.parametrize("state", ["expiring", "behind"])
def test_what_the_agent_does_is_asked_of_nobody_else(state: str) -> None:
    here = machine("joined-1")
    sick = replace(proxy(here, state), behind=3)
    assert "meshfed-agent" in remedied(list(connected(facts(here, sick, joined=True), here)))
    assert "meshfed-agent" not in remedied(list(connected(facts(here, sick, joined=False), here)))


@pytest.mark.parametrize(("joined", "told"), [(True, AGENT), (False, BOOTSTRAP)])
def test_a_certificate_that_ended_is_had_anew_in_the_way_it_was_had(
    joined: bool, told: str
) -> None:
    here, seen = machine("store-1"), Seen(ended="2026-12-01T00:00:00Z")
    steps = list(certified(facts(here, joined=joined), seen, here, "2026-12-02T00:00:00Z"))
    assert told in remedied(steps)
