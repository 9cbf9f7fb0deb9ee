"""From Azure's lists to the catalog: what changes there ends right here, and nothing flaps."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copy

import pytest
from arm.direct import Direct
from prometheus_client import CollectorRegistry

from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, Resources, ScaleSet, Vm, vm
from meshfed.demo.arm.world import Fault, World
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence
from meshfed.providers.azure.pace import Pace
from meshfed.providers.azure.provider import AzureProvider

STORE = "bookstore.shop:8080"
TAGS = {"meshfed.service": STORE, "meshfed.identity": "bookstore.shop"}
GROUP = f"weu/{SUBSCRIPTION}/rg-1"
FASTER = 100  # the feed's seconds in one of ours
UNTOUCHED = {f"10.0.0.{n}" for n in range(2, 6)}


class Fed:
    """A provider of a world, its feed, and the catalog behind them."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.url = world, url
        self.catalog = Catalog(url)
        self.presence = Presence(Metrics(CollectorRegistry()))

    def feed(self) -> Feed:
        provider = AzureProvider(
            name="weu",
            options={"subscriptions": [SUBSCRIPTION]},
            base=Path(),
            pace=Pace(0.05),
            arm=Direct(self.world),
        )
        clock = lambda: FASTER * time.monotonic()  # noqa: E731
        return Feed(provider, "azure", self.catalog, self.presence, clock)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in query(self.url, sql).rows]

    def addresses(self) -> set[object]:
        return {address for (address,) in self.rows("select address from mesh_endpoints")}

    async def until(self, addresses: set[str]) -> None:
        async with asyncio.timeout(5):
            async for _ in self.catalog.follow():
                if self.addresses() == addresses:
                    return

    async def stood(self, state: str) -> str:
        """Until the group is in a state; the reason."""
        sql = f"select state, doubt, reason from mesh_providers where scope = '{GROUP}'"
        async with asyncio.timeout(5):
            while True:
                ((found, doubt, reason),) = self.rows(sql)
                if found == state:
                    return str(reason or doubt)
                await asyncio.sleep(0.02)  # standing moves no revision

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.feed().run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of which each test has a copy: to make one takes longer than most of them."""
    path = tmp_path_factory.mktemp("migrated") / "catalog.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def fed(migrated: Path, tmp_path: Path) -> AsyncIterator[Fed]:
    url = f"sqlite:///{copy(migrated, tmp_path)}"
    world = World(page=200)
    world.resources.vms = [vm(f"vm-{n}", f"10.0.0.{n}", STORE) for n in range(1, 6)]
    made = Fed(world, url)
    await made.catalog.configure("shop.example", permissive=False)
    yield made
    made.catalog.close()


ALL = UNTOUCHED | {"10.0.0.1"}


def first(name: str, value: object) -> Callable[[Resources], None]:
    return lambda resources: setattr(resources.vms[0], name, value)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        pytest.param(lambda r: r.vms.pop(0), UNTOUCHED, id="scale in"),
        pytest.param(lambda r: r.vms.append(vm("vm-9", "10.0.0.9", STORE)), ALL | {"10.0.0.9"},
                     id="scale out"),
        pytest.param(first("power", "deallocated"), UNTOUCHED, id="deallocated"),
        pytest.param(first("provisioning", "Deleting"), UNTOUCHED, id="being deleted"),
        pytest.param(first("nics", [Nic("new", [Ip("10.0.0.77")])]), UNTOUCHED | {"10.0.0.77"},
                     id="another interface"),
        pytest.param(first("tags", {}), UNTOUCHED, id="its tag is taken away"),
    ],
)  # fmt: skip
async def test_a_change_ends_right_in_catalog_and_history_and_nothing_else_moves(
    fed: Fed, change: Callable[[Resources], None], left: set[str]
) -> None:
    async with fed.running():
        await fed.until(ALL)
        change(fed.world.resources)
        await fed.until(left)
        await asyncio.sleep(0.2)  # nothing comes after it
        assert fed.addresses() == left
    sql = "select address, count(*) from mesh_endpoint_history group by address"
    assert dict(fed.rows(sql)) == dict.fromkeys(left | ALL, 1)


async def test_another_tag_moves_the_machine_to_that_service(fed: Fed) -> None:
    async with fed.running():
        await fed.until(ALL)
        fed.world.resources.vms[0].tags = TAGS | {"meshfed.service": "ledger.shop:80"}
        async with asyncio.timeout(5):
            async for _ in fed.catalog.follow():
                found = dict(fed.rows("select address, service from mesh_endpoints"))
                if found["10.0.0.1"] == "ledger.shop":
                    break
    assert len(found) == 5


async def test_a_reimage_is_the_same_endpoint_unwell_and_well_again(fed: Fed) -> None:
    async with fed.running():
        await fed.until(ALL)
        for power, health in (("stopped", "unhealthy"), (None, "unknown"), ("running", "healthy")):
            fed.world.resources.vms[0].power = power
            async with asyncio.timeout(5):
                async for _ in fed.catalog.follow():
                    sql = "select health from mesh_endpoints where address = '10.0.0.1'"
                    if fed.rows(sql) == [(health,)]:
                        break
    sql = "select change from mesh_endpoint_history where address = '10.0.0.1' and change = 'left'"
    assert fed.rows(sql) == []


async def test_a_subscription_that_fails_is_doubted_with_the_reason_and_believed_again(
    fed: Fed,
) -> None:
    async with fed.running():
        await fed.until(ALL)
        fed.world.faults = [Fault(403, "AuthorizationFailed", "networkInterfaces")]
        why = "403 AuthorizationFailed: needs Microsoft.Network/networkInterfaces/read"
        assert await fed.stood("failing") == why
        assert fed.addresses() == ALL
        assert fed.rows("select distinct stale, doubt from mesh_endpoints") == [(True, why)]
        fed.world.faults = []
        assert await fed.stood("good") == ""
        assert fed.rows("select distinct stale from mesh_endpoints") == [(False,)]


async def test_a_subscription_that_lists_nothing_keeps_all_it_had_until_somebody_accepts_it(
    fed: Fed,
) -> None:
    async with fed.running():
        await fed.until(ALL)
        fed.world.hidden = {"Rg-1"}
        assert "lists nothing any more" in await fed.stood("failing")
        await asyncio.sleep(1.0)  # 100 s, in which a list would have been believed
        assert fed.addresses() == ALL
        await fed.catalog.accept(GROUP, "ann@desk")
        await fed.until(set())


async def test_a_group_that_was_deleted_while_nobody_looked_is_gone_after_some_doubt(
    fed: Fed,
) -> None:
    fed.world.resources.vms.append(vm("vm-9", "10.9.0.9", STORE, group="Rg-2"))
    async with fed.running():
        await fed.until(ALL | {"10.9.0.9"})
    fed.world.resources.vms.pop()
    async with fed.running():
        await fed.until(ALL)


async def test_what_is_attached_in_the_catalog_is_found_and_stays_over_a_restart(fed: Fed) -> None:
    there = Vm("7", [Nic("nic0", [Ip("10.1.0.7")])])
    fed.world.resources.sets = [ScaleSet("store", instances=[there])]
    own = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-1/providers/microsoft.compute"
    store = Identity("store", "shop")
    attachment = Attachment(
        f"{own}/virtualmachinescalesets/store", ServiceName("store", "shop"), 80, 80, store
    )
    async with fed.running():
        await fed.until(ALL)
        await fed.catalog.attach(attachment, "ann@desk")
        await fed.until(ALL | {"10.1.0.7"})
    async with fed.running():
        await asyncio.sleep(0.3)  # it is not missing first
        sql = "select count(*) from mesh_endpoint_history where address = '10.1.0.7'"
        assert fed.rows(sql) == [(1,)]
        await fed.catalog.detach(attachment.resource, None, "ann@desk")
        await fed.until(ALL)
