"""What is kept of machines that people attached to services, on both databases."""

from dataclasses import replace

import pytest

from meshfed.catalog.model import Identity, Interception, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, Otherwise, Unattached

STORE, LEDGER = ServiceName("bookstore", "shop"), ServiceName("ledger", "shop")
VM = "/subscriptions/s/resourcegroups/g/providers/microsoft.compute/virtualmachines/vm-1"
ATTACHED = Attachment(VM, STORE, 80, 8080, Identity("bookstore", "shop"), weight=3)
OTHER = replace(ATTACHED, service=LEDGER, port=3306, target=3306)


async def attached(catalog: Catalog) -> tuple[Attachment, ...]:
    return (await catalog.orders("any provider")).attached


async def test_what_is_attached_stays_so_until_it_is_detached(catalog: Catalog) -> None:
    assert await catalog.attach(ATTACHED, "ann@desk") == 1
    assert await catalog.attach(OTHER, "ann@desk") == 2
    assert await attached(catalog) == (ATTACHED, OTHER)
    assert await catalog.detach(VM, LEDGER, "bob@desk") == 3
    assert await attached(catalog) == (ATTACHED,)
    assert await catalog.detach(VM, None, "bob@desk") == 4
    assert await attached(catalog) == ()


async def test_who_did_it_is_in_the_history(catalog: Catalog, url: str) -> None:
    await catalog.attach(ATTACHED, "ann@desk")
    await catalog.attach(replace(ATTACHED, weight=9), "ann@desk")
    await catalog.detach(VM, None, "bob@desk")
    sql = "select revision, object, change, who, cause from mesh_changes where what = 'attachment'"
    name = f"bookstore.shop:80 at {VM}"
    assert [tuple(row) for row in query(url, f"{sql} order by revision").rows] == [
        (1, name, "joined", "ann@desk", "attached"),
        (2, name, "changed", "ann@desk", "attached"),
        (3, name, "left", "bob@desk", "detached"),
    ]


async def test_the_same_again_writes_nothing(catalog: Catalog) -> None:
    await catalog.attach(ATTACHED, "ann@desk")
    assert await catalog.attach(ATTACHED, "bob@desk") is None


async def test_a_machine_is_one_whatever_it_is_attached_to(catalog: Catalog) -> None:
    await catalog.attach(ATTACHED, "ann@desk")
    for another in ({"identity": None}, {"interception": Interception.NONE}):
        with pytest.raises(Otherwise, match="a machine is one: detach it first"):
            await catalog.attach(replace(OTHER, **another), "ann@desk")  # type: ignore[arg-type]  # of two kinds
    assert await catalog.attach(replace(ATTACHED, identity=None), "ann@desk") == 2


async def test_what_nobody_attached_cannot_be_detached(catalog: Catalog) -> None:
    with pytest.raises(Unattached, match="nothing is attached at"):
        await catalog.detach(VM, None, "ann@desk")
    await catalog.attach(ATTACHED, "ann@desk")
    with pytest.raises(Unattached, match=r"nothing is attached to ledger.shop at"):
        await catalog.detach(VM, LEDGER, "ann@desk")


async def test_scopes_that_were_reported_are_remembered(catalog: Catalog) -> None:
    await catalog.seen("weu", "azure", "weu/a")
    await catalog.seen("other", "azure", "other/a")
    assert await catalog.scopes("weu") == {"weu/a"}
