"""What changes in Azure ends right in catalog, history and proxies, and nothing flaps."""

import asyncio
from collections.abc import Callable

import pytest
from arm.fleet import ALL, LEDGER, OTHERS, STORE, TAGS, instance, member
from arm.meshed import GROUP, REFRESH, SOLD, Meshed
from skipping import skipping

from meshfed.demo.arm.resources import Ip, Nic, Resources, ScaleSet, Vm, vm

WHILE = 100.0  # seconds, in which Azure is asked three times


def named(resources: Resources, name: str) -> Vm:
    return next(each for each in resources.vms if each.name == name)


Change = Callable[[Resources], object]


def put(name: str, what: str, value: object) -> Change:
    return lambda resources: setattr(named(resources, name), what, value)


def tag(number: int, tags: dict[str, str]) -> Change:
    return lambda resources: setattr(resources.sets[number], "tags", tags)


CHANGES: list[tuple[str, Change, set[str], set[str]]] = [  # and who is gone, and who came
    ("a machine is deleted", lambda r: r.vms.pop(0), {"10.0.0.1"}, set()),
    ("a machine comes", lambda r: r.vms.append(vm("vm-7", "10.0.0.7", STORE)), set(), {"10.0.0.7"}),
    ("a Flexible set scales in", lambda r: r.vms.remove(named(r, "flex_2")), {"10.2.0.2"}, set()),
    ("a Flexible set scales out", lambda r: r.vms.append(member("flex_3", "10.2.0.3", "flex")),
     set(), {"10.2.0.3"}),
    ("a Uniform set scales in", lambda r: r.sets[3].instances.pop(), {"10.1.0.1"}, set()),
    ("a Uniform set scales out", lambda r: r.sets[3].instances.append(instance(2)),
     set(), {"10.1.0.2"}),
    ("a machine is deallocated", put("vm-1", "power", "deallocated"), {"10.0.0.1"}, set()),
    ("a machine is being deleted", put("vm-1", "provisioning", "Deleting"), {"10.0.0.1"}, set()),
    ("its service tag is removed", put("vm-1", "tags", {}), {"10.0.0.1"}, set()),
    ("a Flexible set's tag is removed", tag(0, {}), {"10.2.0.1", "10.2.0.2"}, set()),
    ("a Uniform set's tag is removed", tag(3, {}), {"10.1.0.0", "10.1.0.1"}, set()),
    ("another interface", put("vm-1", "nics", [Nic("new", [Ip("10.0.0.77")])]),
     {"10.0.0.1"}, {"10.0.0.77"}),
    ("another interface, the same address", put("vm-1", "nics", [Nic("new", [Ip("10.0.0.1")])]),
     set(), set()),
    ("to a set of the same service", put("flex_1", "scale_set", "twin"), set(), set()),
    ("out of its set", put("flex_1", "scale_set", ""), {"10.2.0.1"}, set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "gone", "came"), [pytest.param(*rest, id=what) for what, *rest in CHANGES]
)
@skipping
async def test_a_change_ends_right_in_catalog_history_and_proxies_and_moves_nothing_else(
    meshed: Meshed, change: Change, gone: set[str], came: set[str]
) -> None:
    left = ALL - gone | came
    async with meshed.running():
        assert meshed.addresses == ALL
        change(meshed.world.resources)
        await asyncio.sleep(WHILE)
        assert meshed.addresses == left
        assert meshed.standing == ("good", "")
        after = meshed.revision
        await asyncio.sleep(WHILE)
        assert meshed.revision == after
        for proxy in meshed.proxies:
            assert proxy.addresses == ([ALL, left] if left != ALL else [ALL])
            assert not [name for name in proxy.told if not name.startswith(SOLD)]
    assert history(meshed, STORE) == {each: (1, each in left) for each in ALL | came}


OTHER = [
    ("its tag says so", put("vm-1", "tags", OTHERS), {"10.0.0.1"}),
    ("its Uniform set's tag says so", tag(3, OTHERS), {"10.1.0.0", "10.1.0.1"}),
    ("it moves to another set", put("flex_1", "scale_set", "other"), {"10.2.0.1"}),
]


@pytest.mark.parametrize(
    ("change", "moved"), [pytest.param(*rest, id=what) for what, *rest in OTHER]
)
@skipping
async def test_a_machine_of_another_service_leaves_one_and_joins_the_other(
    meshed: Meshed, change: Change, moved: set[str]
) -> None:
    async with meshed.running():
        change(meshed.world.resources)
        await asyncio.sleep(WHILE)
        for proxy in meshed.proxies:
            assert proxy.addresses == [ALL, ALL - moved]
            assert {name.partition("|")[0] for name in proxy.told} == {
                "bookstore.shop",
                "ledger.shop",
            }
        assert meshed.standing == ("good", "")
    assert history(meshed, STORE) == {each: (1, each not in moved) for each in ALL}
    assert history(meshed, LEDGER) == dict.fromkeys(moved | {"10.0.0.8"}, (1, True))


def history(meshed: Meshed, service: str) -> dict[object, tuple[object, bool]]:
    """How many rows each address ever had in a service, and whether the last still stands."""
    ever = "select address, count(*), max(valid_to is null) from mesh_endpoint_history"
    found = meshed.rows(f"{ever} where service = '{service.partition(':')[0]}' group by address")
    return {address: (rows, bool(stands)) for address, rows, stands in found}


@skipping
async def test_a_machine_that_moves_to_a_set_of_another_group_is_called_all_the_while(
    meshed: Meshed,
) -> None:
    """It has another id there, so it is another machine, in another scope, at its address."""
    resources = meshed.world.resources
    async with meshed.running():
        resources.vms.remove(named(resources, "flex_1"))
        resources.sets.append(ScaleSet("far", "Rg-2", mode="Flexible", tags=dict(TAGS)))
        resources.vms.append(
            Vm("far_1", [Nic("far_1-nic", [Ip("10.2.0.1")])], group="Rg-2", scale_set="far")
        )
        await asyncio.sleep(WHILE)
        assert [proxy.addresses for proxy in meshed.proxies] == [[ALL], [ALL]]
        assert meshed.standing == ("good", "")
        where = meshed.rows("select scope from mesh_endpoints where address = '10.2.0.1'")
        assert where == [(f"{GROUP.removesuffix('rg-1')}rg-2",)]
    assert history(meshed, STORE)["10.2.0.1"] == (2, True)


@skipping
async def test_a_reimage_is_the_same_endpoint_unwell_for_a_while(meshed: Meshed) -> None:
    async with meshed.running():
        before = [dict(proxy.sold[0]) for proxy in meshed.proxies]
        for power, provisioning in (
            ("stopping", "Updating"),
            ("stopped", "Updating"),
            (None, "Updating"),  # Azure does not say, while it changes
            ("starting", "Updating"),
            ("running", "Succeeded"),
        ):
            put("vm-1", "power", power)(meshed.world.resources)
            put("vm-1", "provisioning", provisioning)(meshed.world.resources)
            await asyncio.sleep(REFRESH + 1)
        for proxy, first in zip(meshed.proxies, before, strict=True):
            assert proxy.addresses == [ALL]
            draining, unhealthy, unknown = 3, 2, 0
            healths = [each["10.0.0.1"] for each in proxy.sold[1:-1]]
            assert healths == [draining, unhealthy, unknown, unhealthy]
            assert proxy.sold[-1] == first
    sql = "select change from mesh_endpoint_history where address = '10.0.0.1' order by valid_from"
    said = [change for (change,) in meshed.rows(sql)]
    assert said == ["joined", "health lost", "changed", "health back", "health lost", "health back"]


# A look is not a moment: what comes or goes while lists are read is in some of them only


@skipping
async def test_a_machine_that_comes_while_lists_are_read_puts_nothing_in_doubt(
    meshed: Meshed,
) -> None:
    """Its interface came when the page on which it would be had been read."""
    new = vm("vm-7", "10.0.0.7", STORE)
    new.nics[0].listed = False
    async with meshed.running():
        meshed.world.resources.vms.append(new)
        await asyncio.sleep(REFRESH + 1)
        assert (meshed.standing, meshed.addresses) == (("good", ""), ALL)
        new.nics[0].listed = True
        await asyncio.sleep(REFRESH + 1)
        assert [proxy.addresses[-1] for proxy in meshed.proxies] == [ALL | {"10.0.0.7"}] * 2
    assert meshed.rows("select count(*) from mesh_provider_history where doubt <> ''") == [(0,)]


@skipping
async def test_an_interface_that_is_swapped_while_lists_are_read_puts_nothing_in_doubt(
    meshed: Meshed,
) -> None:
    one = named(meshed.world.resources, "vm-1")
    async with meshed.running():
        one.nics = [Nic("new", [Ip("10.0.0.77")], listed=False)]
        await asyncio.sleep(REFRESH + 1)
        assert (meshed.standing, meshed.addresses) == (("good", ""), ALL)
        one.nics[0].listed = True
        await asyncio.sleep(REFRESH + 1)
        left = ALL - {"10.0.0.1"} | {"10.0.0.77"}
        assert [proxy.addresses for proxy in meshed.proxies] == [[ALL, left]] * 2
    assert meshed.rows("select count(*) from mesh_provider_history where doubt <> ''") == [(0,)]


@skipping
async def test_what_is_stated_in_a_look_that_lacks_something_is_stated_again_by_the_next(
    meshed: Meshed,
) -> None:
    """Half of all machines are deallocated: too many to believe, had Azure not listed them so."""
    swapped = named(meshed.world.resources, "vm-6")
    away = {f"10.0.0.{n}" for n in range(1, 6)}
    async with meshed.running():
        for n in range(1, 6):
            put(f"vm-{n}", "power", "deallocated")(meshed.world.resources)
        swapped.nics = [Nic("new", [Ip("10.0.0.77")], listed=False)]
        await asyncio.sleep(REFRESH + 1)
        assert meshed.addresses == ALL
        swapped.nics[0].listed = True
        await asyncio.sleep(REFRESH / 3)  # what is in doubt is looked at early
        left = ALL - away - {"10.0.0.6"} | {"10.0.0.77"}
        assert [proxy.addresses for proxy in meshed.proxies] == [[ALL, left]] * 2


@skipping
async def test_an_interface_that_stays_unlisted_is_a_right_that_is_lacking_and_takes_nothing_away(
    meshed: Meshed,
) -> None:
    async with meshed.running():
        named(meshed.world.resources, "vm-1").nics[0].listed = False
        await asyncio.sleep(3 * REFRESH)
        state, why = meshed.standing
        assert (state, meshed.addresses) == ("failing", ALL)
        assert why.startswith("rg-1/vm-1: its network interface /subscriptions/")
        assert [proxy.addresses for proxy in meshed.proxies] == [[ALL]] * 2


@skipping
async def test_an_interface_that_is_not_listed_when_nothing_is_known_yet_takes_nothing_away(
    meshed: Meshed,
) -> None:
    """After a restart, a machine that cannot be read whole would seem to be gone."""
    async with meshed.running():
        assert meshed.addresses == ALL
    named(meshed.world.resources, "vm-1").nics[0].listed = False
    async with meshed.running():
        await asyncio.sleep(WHILE)
        assert (meshed.standing[0], meshed.addresses) == ("failing", ALL)
