"""What platforms list of machines, on both databases."""

from dataclasses import dataclass

from msgspec import structs

from meshfed.catalog.inventory import Inventory
from meshfed.catalog.records import Record
from meshfed.catalog.store import Catalog
from meshfed.federation.inventory import LOT, write

PARENT = "/subscriptions/s/"


def record(machine: str, **more: str) -> Record:
    resource = f"{PARENT}resourcegroups/shop/providers/microsoft.compute/x/{machine}"
    return Record(machine, resource, tags=(("role", "store"),), **more)


@dataclass
class Kept:
    """What a provider lists, one time after the other."""

    catalog: Catalog

    async def lists(self, *records: Record) -> None:
        now = {each.machine: each for each in records}
        before = await Inventory(self.catalog).of("weu")
        await write(Inventory(self.catalog), "weu", before, now)
        assert await Inventory(self.catalog).of("weu") == now


async def test_what_is_listed_is_kept_altered_and_taken_away(catalog: Catalog) -> None:
    kept = Kept(catalog)
    a, b = record("a", address="10.0.0.1"), record("b")
    await kept.lists(a, b)
    await kept.lists(structs.replace(a, address="10.0.0.2"), record("c"))
    await kept.lists()


async def test_no_follower_hears_of_it(catalog: Catalog) -> None:
    before = (await catalog.read()).revision
    await Kept(catalog).lists(record("a"))
    assert (await catalog.read()).revision == before


async def test_a_machine_is_found_in_the_subscription_that_is_attested_alone(
    catalog: Catalog,
) -> None:
    inventory = Inventory(catalog)
    await Kept(catalog).lists(record("a"))
    other = structs.replace(record("a"), resource="/subscriptions/other/x")
    await inventory.write("another", (), [other])
    assert await inventory.find("a", PARENT) == record("a")
    assert await inventory.find("a", "/subscriptions/other/") == other
    assert await inventory.find("a", "/subscriptions/s2/") is None
    assert await inventory.find("b", PARENT) is None


async def test_thousands_are_written_in_lots(catalog: Catalog) -> None:
    many = [record(str(n)) for n in range(LOT + 10)]
    await Kept(catalog).lists(*many)
    await Kept(catalog).lists(*(structs.replace(each, address="10.0.0.1") for each in many))
