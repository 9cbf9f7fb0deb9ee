"""Scale sets of one name in several groups are several: where they serve, and who may join."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.catalog.records import Record
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, Resources, ScaleSet, Vm, vm
from meshfed.demo.arm.server import ENVIRONMENT, Server
from meshfed.federation.join.attested import Attested
from meshfed.federation.join.policy import policies
from meshfed.federation.settings import Settings
from meshfed.providers.azure.access import Line
from meshfed.providers.azure.lists import Inventory, Reader, look, machines
from meshfed.providers.azure.options import cloud
from meshfed.providers.azure.records import records
from meshfed.providers.azure.resolve import Choice, resolve

SHOP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/Shop"
STORE = f"{SHOP}/providers/Microsoft.Compute/virtualMachineScaleSets/Store"
ELSEWHERE = STORE.replace(SUBSCRIPTION, "00000000-0000-0000-0000-0000000000ee")
TAGS = {"meshfed.service": "web.shop:80", "meshfed.identity": "web.shop"}


def member(name: str, address: str, group: str) -> Vm:
    return Vm(name, [Nic(f"{name}-nic", [Ip(address)])], group=group, scale_set="store")


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path)
    server.begin()
    yield server
    server.end()


def listed(azure: Server, base: Path, resources: Resources) -> Inventory:
    azure.world.resources.vms, azure.world.resources.sets = resources.vms, resources.sets

    async def read() -> Inventory:
        line = Line(cloud(azure.cloud, base), "client_secret")

        async def heard(headers: Mapping[str, str]) -> None:
            del headers

        try:
            reader = Reader(line, asyncio.Semaphore(8), heard, {})
            return await look(reader, SUBSCRIPTION, lambda _: True, public=False)
        finally:
            await line.close()

    return asyncio.run(read())


FLEXIBLE = Resources(
    vms=[member("flex-shop", "10.0.0.1", "Shop"), member("flex-till", "10.0.0.2", "Till")],
    sets=[
        ScaleSet("Store", "Shop", "Flexible", tags=TAGS),
        ScaleSet("store", "Till", "Flexible"),
    ],
)
UNIFORM = Resources(
    sets=[
        ScaleSet("Store", "Shop", tags=TAGS, instances=[vm("0", "10.0.0.1")]),
        ScaleSet("store", "Till", instances=[vm("1", "10.0.0.2")]),
    ]
)
SETS = pytest.mark.parametrize("sets", [FLEXIBLE, UNIFORM], ids=["Flexible", "Uniform"])


@SETS
def test_what_is_tagged_or_attached_is_one_of_them(
    azure: Server, tmp_path: Path, sets: Resources
) -> None:
    found = listed(azure, tmp_path, sets)
    theirs = Attachment(STORE.lower(), ServiceName("till", "shop"), 80, 80, Identity("web", "shop"))
    seen = resolve(Choice("weu"), machines(found), {theirs.resource: [theirs]}, {})
    serving = {(str(e.service), e.address) for s in seen.values() for e in s.endpoints.values()}
    assert serving == {("till.shop", "10.0.0.1"), ("web.shop", "10.0.0.1")}


def joining(*scale_sets: str) -> Settings:
    said = {
        "name": "shop",
        "method": "azure-attested",
        "subscription": SUBSCRIPTION,
        "scale_sets": scale_sets,
        "identity": "shop.live",
    }
    lists = [{"name": "weu", "type": "azure"}]
    return Settings.model_validate({"join": {"policies": [said]}, "providers": lists})


def refused(settings: Settings, one: Record) -> str:
    (policy,) = policies(settings)
    return policy.refuses(Attested(one.machine, SUBSCRIPTION, "n"), one)


@SETS
def test_who_joins_as_a_member_of_one_of_them_is_told_by_its_id(
    azure: Server, tmp_path: Path, sets: Resources
) -> None:
    found = records(listed(azure, tmp_path, sets), public=False).values()
    shop, till = sorted(found, key=lambda each: each.address)
    by_id, other = joining(STORE), STORE.lower().replace("/shop/", "/till/")
    assert refused(by_id, shop) == ""
    assert refused(by_id, till) == f"its scale set is {other}, not {STORE.lower()}"
    assert refused(joining("Store"), till) == ""  # a name is any of that name
    alone = Record("m", f"{SHOP.lower()}/providers/microsoft.compute/virtualmachines/alone")
    assert refused(by_id, alone) == f"its scale set is none, not {STORE.lower()}"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (SHOP, f"{SHOP!r} is neither a scale set's name nor its id"),
        ("Shop/Store", "'Shop/Store' is neither a scale set's name nor its id"),
        (f"{STORE}/virtualMachines/0", "is neither a scale set's name nor its id"),
        (ELSEWHERE, "is of another subscription, whose machines do not join by this policy"),
    ],
)
def test_an_id_that_fits_nobody_is_refused(said: str, why: str) -> None:
    with pytest.raises(ValidationError) as error:
        joining(said)
    assert why in str(error.value)
    assert "scale_sets" in str(error.value)
