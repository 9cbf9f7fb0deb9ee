"""Azure that throttles, fails, forgets and comes back, in hours that pass at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from arm.direct import Direct, Hours

from meshfed.catalog.model import Evidence, Identity, Observation, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, ScaleSet, Vm, vm
from meshfed.demo.arm.world import Fault, World, throttled
from meshfed.providers.azure.pace import Budget, Pace, breath, remaining, slower, turn
from meshfed.providers.azure.provider import AzureProvider

STORE = "bookstore.shop:8080"
TAGS = {"meshfed.service": STORE, "meshfed.identity": "bookstore.shop"}
GROUP = f"weu/{SUBSCRIPTION}/rg-1"
SET = f"{GROUP}/uni"
NOTHING = "lists nothing any more, neither machines nor network interfaces: was a right taken away?"


class Seen:
    """What a provider told, while hours pass."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.arm = Direct(world)
        self.hours = Hours()
        self.told: list[Observation] = []
        options = {"subscriptions": [SUBSCRIPTION]}
        self.provider = AzureProvider(
            name="weu", options=options, base=Path(), pace=self.hours.pace(), arm=self.arm
        )

    @property
    def now(self) -> dict[str, Observation]:
        return {each.scope: each for each in self.told}

    async def after(self, seconds: float) -> list[Observation]:
        """What is told in so many seconds."""
        before = len(self.told)
        await self.hours.pass_by(seconds)
        return self.told[before:]

    async def calls(self, seconds: float) -> int:
        before = self.world.total
        await self.hours.pass_by(seconds)
        return self.world.total - before

    async def watch(self) -> None:
        async for each in self.provider.observe():
            self.told.append(each)


@asynccontextmanager
async def seen(world: World) -> AsyncIterator[Seen]:
    with ThreadPoolExecutor(1) as one:
        asyncio.get_running_loop().set_default_executor(one)
        found = Seen(world)
        watching = asyncio.create_task(found.watch())
        try:
            await found.hours.pass_by(0)
            yield found
        finally:
            watching.cancel()
            await asyncio.wait({watching})


@pytest.fixture
def world() -> World:
    made = World()
    made.resources.vms = [vm(f"vm-{n}", f"10.0.0.{n}", STORE) for n in range(1, 6)]
    made.resources.sets = [ScaleSet("uni", tags=dict(TAGS), instances=[instance("0")])]
    return made


def instance(number: str) -> Vm:
    return Vm(number, [Nic("nic0", [Ip(f"10.1.0.{number}")])])


def addresses(observation: Observation) -> set[str]:
    return {each.address for each in observation.endpoints}


# How fast


async def test_a_subscription_is_listed_once_in_its_interval(world: World) -> None:
    world.page = 200
    async with seen(world) as azure:
        assert azure.world.total == 4 + 2
        assert await azure.calls(300) == 10 * (4 + 2)
        assert len(azure.told) == 2  # nothing is new


async def test_what_is_asked_for_is_looked_at_early_but_not_at_once(world: World) -> None:
    async with seen(world) as azure:
        await azure.provider.refresh(GROUP)
        assert await azure.after(4) == []
        (again,) = await azure.after(1)
        assert (again.scope, again.evidence) == (GROUP, Evidence.LISTED)


async def test_with_little_left_it_is_asked_less_often_and_not_early(world: World) -> None:
    world.left = {"x-ms-ratelimit-remaining-subscription-reads": 25}  # of 250
    world.page = 200
    async with seen(world) as azure:
        await azure.after(2)  # between calls it waits, too
        await azure.provider.refresh(GROUP)
        assert await azure.calls(59) == 0
        assert await azure.calls(2) > 0
        assert azure.provider.remaining() == {(SUBSCRIPTION, "subscription-reads"): 25}


async def test_many_minutes_to_wait_are_waited_and_are_told_at_once(world: World) -> None:
    async with seen(world) as azure:
        world.faults = [throttled(1200)]
        found = {each.scope: each for each in await azure.after(31)}
        why = "429 OperationNotAllowed: HighCostGet30Min: The server rejected the request"
        assert found[GROUP].evidence is Evidence.FAULT
        assert found[GROUP].fault.startswith(why)
        await azure.provider.refresh(GROUP)
        assert await azure.calls(1190) == 0
        world.faults = []
        assert addresses({e.scope: e for e in await azure.after(30)}[GROUP]) >= {"10.0.0.1"}


async def test_a_storm_of_refusals_without_a_time_is_met_with_ever_fewer_calls(
    world: World,
) -> None:
    async with seen(world) as azure:
        calm = await azure.calls(3600)
        world.faults = [throttled()]
        assert await azure.calls(3600) < calm / 10
        assert all(each.evidence is Evidence.FAULT for each in azure.now.values())
        world.faults = []
        await azure.after(300)
        assert all(each.evidence is Evidence.LISTED for each in azure.now.values())


async def test_one_set_that_is_throttled_rests_the_subscription_and_doubts_that_set_alone(
    world: World,
) -> None:
    async with seen(world) as azure:
        world.faults = [throttled(600, where="/uni/")]
        (found,) = await azure.after(31)
        assert (found.scope, found.evidence) == (SET, Evidence.FAULT)
        assert await azure.calls(590) == 0


@pytest.mark.parametrize(
    ("headers", "buckets"),
    [
        ({"x-ms-ratelimit-remaining-subscription-reads": "249"}, {"subscription-reads": 249}),
        (
            {"X-Ms-Ratelimit-Remaining-Resource": "Microsoft.Compute/HighCostGet3Min;139, "
             "Microsoft.Compute/HighCostGet30Min;698"},
            {"Microsoft.Compute/HighCostGet3Min": 139, "Microsoft.Compute/HighCostGet30Min": 698},
        ),
        ({"x-ms-ratelimit-remaining-resource": "", "Content-Type": "json"}, {}),
        ({"x-ms-ratelimit-remaining-subscription-reads": "many"}, {}),
    ],
)  # fmt: skip
def test_what_is_left_is_read_from_headers_old_and_new(
    headers: dict[str, str], buckets: dict[str, int]
) -> None:
    assert dict(remaining(headers)) == buckets


def test_the_emptiest_bucket_decides_and_an_unknown_one_is_full_at_its_most() -> None:
    one = Budget().heard({"x-ms-ratelimit-remaining-resource": "New;100"})
    assert one.share == 1.0
    assert one.heard({"x-ms-ratelimit-remaining-resource": "New;10"}).share == 0.1


def test_how_much_slower_follows_what_is_left() -> None:
    assert [slower(share) for share in (1.0, 0.2, 0.1, 0.02, 0.0)] == [1.0, 1.0, 2.0, 10.0, 10.0]


def test_between_calls_it_waits_only_with_little_left_and_ever_longer() -> None:
    assert [breath(share) for share in (1.0, 0.2, 0.1, 0.0)] == [0.0, 0.0, 1.0, 5.0]


def test_subscriptions_are_not_all_asked_at_the_same_moment() -> None:
    chances = iter((0.0, 1.0))
    pace = Pace(30.0, chance=lambda: next(chances))
    assert [turn(pace, Budget(), 0, 0.0).after for _ in range(2)] == [27.0, 33.0]


# What fails


async def test_an_hour_without_azure_leaves_everything_in_doubt_and_ends_by_itself(
    world: World,
) -> None:
    async with seen(world) as azure:
        normal = await azure.calls(3600)
        azure.arm.down = "Cannot connect to host management.azure.com:443: no such name"
        told = await azure.after(3600)
        assert {(e.scope, e.evidence, e.fault) for e in told} == {
            (scope, Evidence.FAULT, azure.arm.down) for scope in (GROUP, SET)
        }
        assert len(told) == 2  # each scope once, not at every try
        azure.arm.down = ""
        assert await azure.calls(300) <= normal
        assert len(azure.now[GROUP].endpoints) == 5


async def test_one_look_that_fails_is_no_doubt(world: World) -> None:
    async with seen(world) as azure:
        world.faults = [Fault(503, "ServerTimeout", times=1)]
        assert await azure.after(31) == []
        assert await azure.after(60) == []


async def test_a_right_that_is_taken_away_is_named_at_once(world: World) -> None:
    async with seen(world) as azure:
        world.faults = [Fault(403, "AuthorizationFailed", "Microsoft.Network/networkInterfaces")]
        (found,) = {each.fault for each in await azure.after(31)}
        assert found == "403 AuthorizationFailed: needs Microsoft.Network/networkInterfaces/read"


async def test_a_subscription_that_lists_nothing_suddenly_is_a_fault_for_as_long_as_it_lasts(
    world: World,
) -> None:
    """A role that is revoked on groups is no error: their resources are not there any more."""
    async with seen(world) as azure:
        kept, world.of[SUBSCRIPTION] = world.of[SUBSCRIPTION], type(world.resources)()
        world.hidden = {"Rg-1"}
        told = await azure.after(3600)
        assert {each.fault for each in told} == {NOTHING}
        assert {each.evidence for each in told} == {Evidence.FAULT}
        world.of[SUBSCRIPTION], world.hidden = kept, set()
        await azure.after(300)
        assert len(azure.now[GROUP].endpoints) == 5


async def test_a_group_that_may_not_be_read_any_more_is_listed_away_and_never_stated(
    world: World,
) -> None:
    world.resources.vms.append(vm("other", "10.9.0.1", STORE, group="Rg-2"))
    async with seen(world) as azure:
        world.hidden = {"Rg-2"}
        (found,) = await azure.after(31)
        assert (found.scope, found.evidence) == (f"weu/{SUBSCRIPTION}/rg-2", Evidence.LISTED)
        assert not found.endpoints


async def test_a_scope_that_only_the_catalog_remembers_is_answered_for(world: World) -> None:
    """A group that was deleted while nobody looked."""
    gone = f"weu/{SUBSCRIPTION}/gone"
    async with seen(world) as azure:
        await azure.provider.refresh(gone)
        await azure.after(6)
        assert azure.now[gone] == Observation(gone)


async def test_an_empty_subscription_has_been_read() -> None:
    async with seen(World()) as azure:
        (found,) = azure.told
        assert found == Observation(f"weu/{SUBSCRIPTION}")


async def test_a_list_that_goes_on_at_another_host_is_not_followed(world: World) -> None:
    world.elsewhere = "https://evil.test"
    async with seen(world) as azure:
        await azure.after(31)
        (found,) = azure.now.values()
        assert found.fault == "a list goes on at another host, evil.test"


async def test_a_list_that_goes_on_where_it_began_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = World.answer

    def again(self: World, url: str, path: str, query: dict[str, str]) -> object:
        query = {name: text for name, text in query.items() if name != "$skiptoken"}
        return answer(self, url, path, query)

    monkeypatch.setattr(World, "answer", again)
    async with seen(world) as azure:
        await azure.after(31)
        (found,) = azure.now.values()
        assert "a list goes on where it began" in found.fault


# What changes


async def changed(azure: Seen) -> Observation:
    """The one scope that is told anew within an interval."""
    (found,) = await azure.after(33)
    return found


CHANGES: list[tuple[str, Callable[[World], None], Evidence, set[str]]] = [
    ("a machine comes",
     lambda w: w.resources.vms.append(vm("vm-9", "10.0.0.9", STORE)),
     Evidence.LISTED, {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.9"}),
    ("a machine is gone",
     lambda w: w.resources.vms.pop() and None,
     Evidence.LISTED, {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}),
    ("a machine is deallocated",
     lambda w: setattr(w.resources.vms[0], "power", "deallocated"),
     Evidence.STATED, {"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}),
    ("its interface is another",
     lambda w: setattr(w.resources.vms[0], "nics", [Nic("new", [Ip("10.0.0.77")])]),
     Evidence.STATED, {"10.0.0.77", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}),
    ("its tag is taken away",
     lambda w: setattr(w.resources.vms[0], "tags", {}),
     Evidence.STATED, {"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "evidence", "left"),
    [pytest.param(change, weight, left, id=what) for what, change, weight, left in CHANGES],
)
async def test_a_change_is_told_once_with_what_it_weighs(
    world: World, change: Callable[[World], None], evidence: Evidence, left: set[str]
) -> None:
    async with seen(world) as azure:
        change(world)
        found = await changed(azure)
        assert (found.scope, found.evidence) == (GROUP, evidence)
        assert addresses(found) == left
        assert await azure.after(300) == []


async def test_a_member_that_moves_between_sets_stays_where_it_is(world: World) -> None:
    world.resources.sets += [ScaleSet(name, mode="Flexible") for name in ("one", "two")]
    world.resources.vms[0].scale_set = "one"
    async with seen(world) as azure:
        before = azure.now[GROUP]
        world.resources.vms[0].scale_set = "two"
        found = await changed(azure)
        assert found.endpoints == before.endpoints


async def test_a_machine_that_is_imaged_anew_is_the_same_endpoint_unwell_for_a_while(
    world: World,
) -> None:
    async with seen(world) as azure:
        keys = {each.key for each in azure.now[GROUP].endpoints}
        for power in ("stopped", None, "starting", "running"):
            world.resources.vms[0].power = power
            assert {each.key for each in (await changed(azure)).endpoints} == keys


async def test_a_set_whose_tag_is_taken_away_is_stated_to_be_out_and_not_listed_any_more(
    world: World,
) -> None:
    async with seen(world) as azure:
        world.resources.sets[0].tags = {}
        found = await changed(azure)
        assert (found.scope, found.evidence, found.endpoints) == (SET, Evidence.STATED, frozenset())
        world.calls.clear()
        await azure.after(33)
        assert not [each for each in world.calls if each.startswith("set ")]


async def test_what_is_attached_is_looked_for_at_once(world: World) -> None:
    world.resources.sets.append(ScaleSet("new", instances=[instance("7")]))
    own = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-1/providers/microsoft.compute"
    attachment = Attachment(
        f"{own}/virtualmachinescalesets/new",
        ServiceName("ledger", "shop"),
        80,
        80,
        Identity("ledger", "shop"),
    )
    async with seen(world) as azure:
        azure.provider.attach([attachment])
        (found,) = await azure.after(6)
        assert (found.scope, addresses(found)) == (f"{GROUP}/new", {"10.1.0.7"})
        azure.provider.attach([])
        (found,) = await azure.after(6)
        assert (found.evidence, addresses(found)) == (Evidence.STATED, set())
