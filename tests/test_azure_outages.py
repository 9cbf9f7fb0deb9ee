"""An Azure that throttles, refuses or is away for an hour, as proxies and people see it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from arm.buckets import Counted
from arm.fleet import ALL, STORE
from arm.meshed import GROUP, REFRESH, Meshed
from skipping import skipping

from meshfed.demo.arm.resources import SUBSCRIPTION, vm
from meshfed.demo.arm.world import Fault, World, throttled
from meshfed.providers.azure.pace import Pace
from meshfed.providers.azure.provider import AzureProvider

HOUR = 3600.0
EACH = 4 + 2  # calls of a look
CALM = EACH * round(HOUR / REFRESH)  # calls of an hour in which nothing is wrong
NAMELESS = "Cannot connect to host management.azure.com:443 ssl:default [Name or service not known]"
EXPIRED = "invalid_client: AADSTS7000222: The provided client secret keys are expired."


@dataclass(frozen=True)
class Outage:
    what: str
    begin: Callable[[Meshed], object]
    why: str
    most: int  # calls in an hour of it
    rest: float = 300.0  # seconds after it, until it is noticed to be over


def faults(*those: Callable[[], Fault]) -> Callable[[Meshed], None]:
    def begin(meshed: Meshed) -> None:
        meshed.world.faults = [each() for each in those]

    return begin


def down(why: str) -> Callable[[Meshed], None]:
    return lambda meshed: setattr(meshed.arm, "down", why)


def hidden(meshed: Meshed) -> None:
    meshed.world.hidden = {"Rg-1"}


OUTAGES = [
    Outage("a storm of 429 without a time", faults(throttled),
           "429 OperationNotAllowed: HighCostGet30Min", 60),
    Outage("a storm of 429 with half a minute", faults(lambda: throttled(31)),
           "429 OperationNotAllowed: HighCostGet30Min", 60),
    Outage("twenty minutes to wait", faults(lambda: throttled(1200)),
           "429 OperationNotAllowed: HighCostGet30Min", 4 * 3, 1200.0),
    Outage("a server that fails", faults(lambda: Fault(503, "ServerTimeout")),
           "503 ServerTimeout", 60),
    Outage("a credential that ended", down(EXPIRED), EXPIRED, 60),
    Outage("a role that is revoked", faults(lambda: Fault(403, "AuthorizationFailed")),
           "403 AuthorizationFailed: needs Microsoft.Compute/virtualMachine", 60),
    Outage("a role that is revoked for a kind",
           faults(lambda: Fault(403, "AuthorizationFailed", "networkInterfaces")),
           "403 AuthorizationFailed: needs Microsoft.Network/networkInterfaces/read", 60),
    Outage("a role that is revoked in silence", hidden, "lists nothing any more", 60),
    Outage("a name that is not found", down(NAMELESS), NAMELESS, 60),
]  # fmt: skip


@pytest.mark.parametrize("outage", [pytest.param(each, id=each.what) for each in OUTAGES])
@skipping
async def test_an_hour_of_it_takes_nothing_away_is_seen_by_all_and_is_over_by_itself(
    meshed: Meshed, outage: Outage
) -> None:
    clock = asyncio.get_running_loop().time
    async with meshed.running():
        before, begun = meshed.revision, clock()
        outage.begin(meshed)
        await asyncio.sleep(HOUR)
        assert meshed.calls(begun, clock()) <= outage.most < CALM / 10
        assert meshed.addresses == ALL
        assert [(proxy.addresses, proxy.told) for proxy in meshed.proxies] == [([ALL], set())] * 2
        state, why = meshed.standing
        assert state == "failing"
        assert outage.why in why
        assert meshed.rows("select distinct stale, doubt from mesh_endpoints") == [(True, why)]
        assert any(why in said for said in await meshed.failing("bookstore.shop"))
        assert meshed.revision == before + 1  # both scopes at once, and once for all
        meshed.world.resources.vms.append(vm("vm-7", "10.0.0.7", STORE))
        meshed.world.faults, meshed.world.hidden, meshed.arm.down = [], set(), ""
        await asyncio.sleep(outage.rest + REFRESH)
        assert meshed.standing == ("good", "")
        assert meshed.rows("select distinct stale from mesh_endpoints") == [(False,)]
        for proxy in meshed.proxies:
            assert proxy.addresses == [ALL, ALL | {"10.0.0.7"}]


@skipping
async def test_what_is_too_much_for_azure_is_asked_more_slowly_and_never_refused() -> None:
    """As many pages as 40,000 machines have, every 30 s: 800 lists a minute, of the 300 allowed."""
    pages, minutes = 200, 10
    world = World(page=1, kept={})
    world.resources.vms = [vm(f"vm-{n}", f"10.0.0.{n}", STORE) for n in range(pages)]
    arm = Counted(world)
    seen: dict[str, int] = {}

    async def watch() -> None:
        provider = AzureProvider(
            name="weu",
            options={"subscriptions": [SUBSCRIPTION]},
            base=Path(),
            pace=Pace(REFRESH, clock=asyncio.get_running_loop().time, chance=lambda: 0.5),
            arm=arm,
        )
        async for each in provider.observe():
            seen[each.scope] = len(each.endpoints)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(60.0 * minutes)
    watching.cancel()
    assert arm.refused == 0
    assert 0.8 * 300 * minutes < arm.listed <= 900 + 300 * minutes
    assert seen == {GROUP: pages}
