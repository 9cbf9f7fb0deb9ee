"""What people say of a workload's health goes before what its provider says, on both databases."""

from dataclasses import replace

import pytest
from msgspec import structs

from meshfed.catalog.model import Endpoint, Health, Identity, Known, ServiceName, Workload
from meshfed.catalog.overrides import Override, State
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.catalog.workloads import Unfound, override

WEB = ServiceName("web", "shop")
ANN = "ann@desk"
DRAINED = Override(State.DRAINED, "kernel update", ANN)
SICK = (Health.UNHEALTHY, "not ready")


def known(
    name: str, provider: str = "rack", health: Health = Health.HEALTHY, why: str = ""
) -> Known:
    here = Workload(name, provider, provider, identity=Identity("web", "shop"))
    serves = Endpoint(
        WEB, 80, "10.0.0.9", 8080, here.id, provider, provider, health=health, health_reason=why
    )
    return Known(provider, provider, workloads=frozenset({here}), endpoints=frozenset({serves}))


async def verdict(catalog: Catalog) -> tuple[Health, str]:
    (endpoint,) = (await catalog.read()).endpoints[WEB]
    return endpoint.health, endpoint.health_reason


async def see(catalog: Catalog, known: Known) -> int | None:
    return await catalog.believe(known, kind="hosts", cause="")


async def test_its_word_holds_whatever_the_provider_says_and_then_the_provider_s_last_one(
    catalog: Catalog,
) -> None:
    await see(catalog, known("web-1"))
    assert await override(catalog, "web-1", DRAINED, ANN)
    held = (Health.DRAINING, "drained by ann@desk: kernel update")
    assert await verdict(catalog) == held
    # The same observation is no news, another one is kept, and neither moves the verdict.
    assert await see(catalog, known("web-1")) is None
    assert await see(catalog, known("web-1", health=SICK[0], why=SICK[1])) is not None
    assert await verdict(catalog) == held
    assert await override(catalog, "web-1", replace(DRAINED, state=State.DISABLED), ANN)
    assert (await verdict(catalog))[0] == Health.UNHEALTHY
    assert await override(catalog, "web-1", None, ANN)
    assert await verdict(catalog) == SICK
    assert not await override(catalog, "web-1", None, ANN)


async def test_a_machine_that_went_and_came_is_drained_still(catalog: Catalog) -> None:
    await see(catalog, known("web-1"))
    await override(catalog, "web-1", DRAINED, ANN)
    await see(catalog, Known("rack", "rack"))
    await see(catalog, known("web-1"))
    assert (await verdict(catalog))[0] == Health.DRAINING


async def test_followers_hear_of_it_and_history_says_who_and_why(
    catalog: Catalog, url: str
) -> None:
    await see(catalog, known("web-1"))
    before = await catalog.read()
    await override(catalog, "web-1", DRAINED, ANN)
    after, changed = await catalog.advance(before)
    assert (changed.endpoints, changed.shape) == ({WEB}, False)
    assert after.endpoints[WEB][0].health == Health.DRAINING
    asked = "select what, change, who from mesh_changes where revision = 2 order by what"
    assert query(url, asked).rows == (
        ("endpoint", "drained", ANN),
        ("workload", "drained: kernel update", ANN),
    )
    health = query(url, "select health, health_reason from mesh_endpoints").rows
    assert health == (("draining", "drained by ann@desk: kernel update"),)


async def test_of_several_of_one_name_it_wants_an_id(catalog: Catalog) -> None:
    await see(catalog, known("web-1"))
    await catalog.believe(known("web-1", "other"), kind="hosts", cause="")
    with pytest.raises(Unfound, match="2 workloads are called web-1; use an id: "):
        await override(catalog, "web-1", DRAINED, ANN)
    (one,) = known("web-1").workloads
    assert await override(catalog, one.id, DRAINED, ANN)
    with pytest.raises(Unfound, match="no workload nobody"):
        await override(catalog, "nobody", DRAINED, ANN)


async def test_of_several_claims_each_keeps_its_provider_s_word(catalog: Catalog) -> None:
    """What stands moves from one provider to another, and the word of people with it."""
    first, second = known("web-1"), known("web-1", "other")
    (here,) = first.workloads
    also = frozenset(structs.replace(each, workload=here.id) for each in second.endpoints)
    await see(catalog, first)
    await override(catalog, "web-1", DRAINED, ANN)
    await catalog.believe(replace(second, endpoints=also), kind="hosts", cause="")
    assert (await verdict(catalog))[0] == Health.DRAINING
    await see(catalog, Known("rack", "rack"))
    assert (await verdict(catalog))[0] == Health.DRAINING
