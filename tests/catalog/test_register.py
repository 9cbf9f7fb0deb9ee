"""What is kept of workloads that people register, on both databases."""

import asyncio
from dataclasses import replace

import pytest

from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.past import at as past_at
from meshfed.catalog.past import listing
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, Taken, UnknownScope, Unregistered

LEDGER = ServiceName("ledger", "shop")
IMPLIED = Service(LEDGER, (Port(3306, "http-3306"),))


def known(name: str, address: str = "10.0.0.9", provider: str = "registered") -> Known:
    scope = f"{provider}/{name}"
    here = Workload(name, provider, scope, identity=Identity("db", "shop"), addresses=(address,))
    serves = Endpoint(LEDGER, 3306, address, 3306, here.id, provider, scope, identity=here.identity)
    return Known(provider, scope, frozenset({IMPLIED}), frozenset({here}), frozenset({serves}))


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in query(url, sql).rows]


async def test_what_is_registered_is_of_the_mesh_until_it_is_deregistered(catalog: Catalog) -> None:
    assert await catalog.register("db-1", known("db-1"), "ann@desk") == 1
    assert [e.address for e in (await catalog.read()).endpoints[LEDGER]] == ["10.0.0.9"]
    ((workload, serves),) = await catalog.registered()
    assert (workload.name, len(serves)) == ("db-1", 1)

    assert await catalog.deregister("db-1", "bob@desk") == 2
    mesh = await catalog.read()
    assert (dict(mesh.endpoints), dict(mesh.workloads), dict(mesh.services)) == ({}, {}, {})
    assert await catalog.registered() == ()


async def test_every_line_about_it_says_who_did_it(catalog: Catalog, url: str) -> None:
    await catalog.register("db-1", known("db-1"), "ann@desk")
    await catalog.deregister("db-1", "bob@desk")
    told = rows(
        url,
        "select distinct revision, provider, who, cause from mesh_changes"
        " where what in ('workload', 'endpoint') order by revision",
    )
    assert told == [
        (1, "registered", "ann@desk", "registered"),
        (2, "registered", "bob@desk", "deregistered"),
    ]


async def test_the_same_again_writes_nothing_and_another_address_replaces(catalog: Catalog) -> None:
    await catalog.register("db-1", known("db-1"), "ann@desk")
    assert await catalog.register("db-1", known("db-1"), "bob@desk") is None
    assert await catalog.register("db-1", known("db-1", "10.0.0.10"), "bob@desk") == 2
    assert [e.address for e in (await catalog.read()).endpoints[LEDGER]] == ["10.0.0.10"]


async def test_one_is_changed_without_a_look_at_the_others(catalog: Catalog) -> None:
    await catalog.register("db-1", known("db-1"), "ann@desk")
    await catalog.register("db-2", known("db-2", "10.0.0.10"), "ann@desk")
    await catalog.deregister("db-1", "ann@desk")
    assert [workload.name for workload, _ in await catalog.registered()] == ["db-2"]
    assert [e.address for e in (await catalog.read()).endpoints[LEDGER]] == ["10.0.0.10"]


async def test_a_name_that_another_provider_has_is_refused_and_nothing_is_written(
    catalog: Catalog,
) -> None:
    await catalog.believe(known("db-1", provider="rack"), kind="hosts", cause="")
    with pytest.raises(Taken, match=r"^db-1 is a workload of rack/db-1 already"):
        await catalog.register("db-1", known("db-1", "10.0.0.10"), "ann@desk")
    assert await catalog.registered() == ()
    with pytest.raises(Unregistered, match=r"rack/db-1 has it, so take it out there"):
        await catalog.deregister("db-1", "ann@desk")


async def test_a_name_that_is_free_again_may_be_registered(catalog: Catalog) -> None:
    await catalog.believe(known("db-1", provider="rack"), kind="hosts", cause="")
    await catalog.believe(Known("rack", "rack/db-1"), kind="hosts", cause="it left")
    assert await catalog.register("db-1", known("db-1"), "ann@desk") == 3


async def test_nobody_is_deregistered_who_was_not_registered(catalog: Catalog) -> None:
    with pytest.raises(Unregistered, match=r"^no workload db-1 is registered$"):
        await catalog.deregister("db-1", "ann@desk")
    assert (await catalog.read()).revision == 0


async def test_what_was_deregistered_is_no_provider_any_more_and_was_one_then(
    catalog: Catalog, url: str
) -> None:
    await catalog.register("db-1", known("db-1"), "ann@desk")
    await catalog.deregister("db-1", "ann@desk")
    assert rows(url, "select scope from mesh_providers") == []
    then = past_at(url, 1, lambda connection, _: listing(connection, "mesh_providers", "scope"))
    assert [row[:3] for row in then.rows] == [("registered", "registered", "registered/db-1")]
    assert await catalog.register("db-1", known("db-1"), "ann@desk") == 3
    assert rows(url, "select scope, state from mesh_providers") == [("registered/db-1", "good")]


async def test_two_who_register_one_name_at_once_take_turns(url: str) -> None:
    catalogs = Catalog(url), Catalog(url)
    claims = known("db-1"), known("db-1", "10.0.0.10")
    made = await asyncio.gather(
        *(each.register("db-1", said, "ann") for each, said in zip(catalogs, claims, strict=True))
    )
    assert sorted(made) == [1, 2]
    assert len((await catalogs[0].read()).endpoints[LEDGER]) == 1
    for each in catalogs:
        each.close()


async def test_a_follower_is_told_of_it(catalog: Catalog, url: str) -> None:
    elsewhere = Catalog(url)
    following = catalog.follow()
    assert await anext(following) == 0
    await elsewhere.register("db-1", known("db-1"), "ann@desk")
    assert await anext(following) == 1
    await following.aclose()
    elsewhere.close()


async def test_the_services_that_are_asked_for_are_told_as_the_mesh_has_them(
    catalog: Catalog,
) -> None:
    declared = Service(LEDGER, (Port(3306, "mysql", target=13306),))
    listed = replace(known("db-0", provider="rack"), services=frozenset({declared}))
    await catalog.believe(listed, kind="hosts", cause="")
    await catalog.register("db-1", known("db-1", "10.0.0.10"), "ann@desk")
    assert await catalog.declared([LEDGER, ServiceName("no", "shop")]) == {LEDGER: declared}


async def test_registering_is_nothing_that_could_be_paused(catalog: Catalog) -> None:
    await catalog.register("db-1", known("db-1"), "ann@desk")
    with pytest.raises(UnknownScope, match="'registered' is no provider"):
        await catalog.pause("registered", "ann@desk")
