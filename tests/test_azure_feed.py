"""What outlives a control plane of Azure's machines: attachments, doubts, and what was believed."""

import asyncio

from arm.fleet import ALL, STORE
from arm.meshed import GROUP, REFRESH, Meshed
from skipping import skipping

from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, ScaleSet, Vm, vm

HOUR = 3600.0
OWN = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-1/providers/microsoft.compute"


@skipping
async def test_a_subscription_that_lists_nothing_keeps_all_it_had_until_somebody_accepts_it(
    meshed: Meshed,
) -> None:
    async with meshed.running():
        meshed.world.hidden = {"Rg-1"}
        await asyncio.sleep(HOUR)  # in which a list would have been believed
        assert meshed.addresses == ALL
        for scope in (GROUP, f"{GROUP}/uni"):
            await meshed.catalog.accept(scope, "ann@desk")
        await asyncio.sleep(REFRESH)
        assert meshed.addresses == set()
        assert [proxy.addresses[-1] for proxy in meshed.proxies] == [set(), set()]


@skipping
async def test_a_group_that_was_deleted_while_nobody_looked_is_gone_after_some_doubt(
    meshed: Meshed,
) -> None:
    meshed.world.resources.vms.append(vm("vm-9", "10.9.0.9", STORE, group="Rg-2"))
    async with meshed.running():
        assert meshed.addresses == ALL | {"10.9.0.9"}
    meshed.world.resources.vms.pop()
    async with meshed.running():
        await asyncio.sleep(10.0)
        assert meshed.addresses == ALL | {"10.9.0.9"}
        await asyncio.sleep(2 * REFRESH)
        assert meshed.addresses == ALL


@skipping
async def test_what_is_attached_is_found_stays_over_a_restart_and_says_who_did_it(
    meshed: Meshed,
) -> None:
    there = Vm("7", [Nic("nic0", [Ip("10.1.1.7")])])
    meshed.world.resources.sets.append(ScaleSet("store", instances=[there]))
    store = ServiceName("bookstore", "shop")
    resource = f"{OWN}/virtualmachinescalesets/store"
    attachment = Attachment(resource, store, 8080, 8080, Identity("bookstore", "shop"))
    async with meshed.running():
        assert meshed.addresses == ALL
        await meshed.catalog.attach(attachment, "ann@desk")
        await asyncio.sleep(REFRESH)
        assert [proxy.addresses for proxy in meshed.proxies] == [[ALL, ALL | {"10.1.1.7"}]] * 2
    async with meshed.running():
        await asyncio.sleep(REFRESH)
        sql = "select count(*) from mesh_endpoint_history where address = '10.1.1.7'"
        assert meshed.rows(sql) == [(1,)]  # it was not missing first
        await meshed.catalog.detach(resource, None, "bob@desk")
        await asyncio.sleep(REFRESH)
        assert [proxy.addresses for proxy in meshed.proxies] == [[ALL | {"10.1.1.7"}, ALL]] * 2
    sql = "select who, change from mesh_changes where what = 'attachment' order by revision"
    assert [who for who, _ in meshed.rows(sql)] == ["ann@desk", "bob@desk"]
