"""Leases of machines that joined, on both databases: heard, silent, gone, back and forgotten."""

from contextlib import closing
from dataclasses import replace

import pytest

from meshfed.catalog.byhand import PROVIDER, scope
from meshfed.catalog.joins import Given, Joins
from meshfed.catalog.leases import Beat, Leases, Word
from meshfed.catalog.model import (
    Endpoint,
    Health,
    Identity,
    Known,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.overrides import Override, State
from meshfed.catalog.reader import query
from meshfed.catalog.schema import GONE, MISSED, NEW
from meshfed.catalog.store import Catalog
from meshfed.catalog.tokens import Token
from meshfed.catalog.workloads import override

WEB = ServiceName("web", "shop")
IDENTITY = Identity("web", "shop")
LATER, MUCH_LATER = "2999-01-01T00:00:30.000Z", "2999-01-01T00:01:00.000Z"
ENDS = "2999-01-08T00:00:00.000Z"
TOKEN = Token("3f9a01c4", "5e" * 32, IDENTITY, ("web.shop:80",), 9, ENDS, probes=("tcp:80",))
WELL = Word()


def machine(name: str) -> Known:
    where = scope(name)
    here = Workload(name, PROVIDER, where, identity=IDENTITY, addresses=("10.0.0.9",))
    ports = ((80, 8080), (81, 8081))
    serves = (
        Endpoint(WEB, port, "10.0.0.9", target, here.id, PROVIDER, where, identity=IDENTITY)
        for port, target in ports
    )
    implied = Service(WEB, tuple(Port(port, f"http-{port}") for port, _ in ports))
    return Known(PROVIDER, where, frozenset({implied}), frozenset({here}), frozenset(serves))


def workload(name: str = "web-1") -> Workload:
    (here,) = machine(name).workloads
    return here


async def joined(catalog: Catalog, name: str = "web-1") -> Leases:
    await Joins(catalog).create(TOKEN, "ann@desk")
    await Joins(catalog).join(machine(name), TOKEN.id, Given("a1", ENDS), "join server")
    leases = Leases(catalog)
    await leases.renew([Beat(workload(name), LATER, WELL)])
    return leases


async def health(catalog: Catalog) -> dict[int, tuple[Health, str]]:
    endpoints = (await catalog.read()).endpoints.get(WEB, ())
    return {each.port: (each.health, each.health_reason) for each in endpoints}


FINE = (Health.HEALTHY, "")


async def test_a_sign_of_life_moves_nothing_but_its_lease(catalog: Catalog, url: str) -> None:
    leases = await joined(catalog)
    before = (await catalog.read()).revision
    await leases.renew([Beat(workload(), MUCH_LATER)])
    await leases.renew([Beat(workload(), MUCH_LATER, WELL)])  # what is known already is no news
    assert (await catalog.read()).revision == before
    assert query(url, "select lease_until from mesh_workloads").rows == ((MUCH_LATER,),)
    assert await Joins(catalog).probes(workload().id) == ("tcp:80",)


@pytest.mark.parametrize(
    ("word", "verdicts"),
    [
        pytest.param(
            Word(failing=((8081, "tcp:8081: refused"),)),
            {80: FINE, 81: (Health.UNHEALTHY, "tcp:8081: refused")},
            id="one application",
        ),
        pytest.param(
            Word(draining="Preempt", failing=((8081, "no"),)),
            {80: (Health.DRAINING, "Preempt"), 81: (Health.DRAINING, "Preempt")},
            id="the machine ends",
        ),
        pytest.param(
            Word(draining="Preempt", lost="no Envoy"),
            {80: (Health.UNHEALTHY, "no Envoy"), 81: (Health.UNHEALTHY, "no Envoy")},
            id="nothing can be called",
        ),
    ],
)
async def test_what_its_agent_says_is_the_verdict_of_each_endpoint(
    catalog: Catalog, word: Word, verdicts: dict[int, tuple[Health, str]]
) -> None:
    leases = await joined(catalog)
    await leases.renew([Beat(workload(), LATER, word)])
    assert await health(catalog) == verdicts
    await leases.renew([Beat(workload(), LATER, WELL)])
    assert await health(catalog) == {80: FINE, 81: FINE}


UNHEARD = (Health.UNHEALTHY, "it joined, and its agent has not been heard yet")


async def test_it_is_called_once_its_agent_was_heard_and_renewing_changes_nothing(
    catalog: Catalog, url: str
) -> None:
    await Joins(catalog).create(TOKEN, "ann@desk")
    await Joins(catalog).join(machine("web-1"), TOKEN.id, Given("a1", ENDS), "join server")
    assert await health(catalog) == {80: UNHEARD, 81: UNHEARD}
    await Joins(catalog).renew(workload(), "a1", Given("b2", ENDS), "web-1")
    assert await health(catalog) == {80: UNHEARD, 81: UNHEARD}
    await Leases(catalog).renew([Beat(workload(), LATER, WELL)])
    assert await health(catalog) == {80: FINE, 81: FINE}
    await Joins(catalog).renew(workload(), "b2", Given("c3", ENDS), "web-1")
    assert await health(catalog) == {80: FINE, 81: FINE}
    before = (await catalog.read()).revision
    with closing(Catalog(url)) as replica:  # one that has just been started
        await Leases(replica).renew([Beat(workload(), MUCH_LATER, WELL)])
    assert (await catalog.read()).revision == before
    assert await health(catalog) == {80: FINE, 81: FINE}


async def test_one_that_is_attested_is_called_once_its_agent_was_heard(catalog: Catalog) -> None:
    joins, given, policy = Joins(catalog), Given("a1", ENDS), replace(TOKEN, hash="")
    await joins.attest(machine("web-1"), policy, "vm-9", given, "join server")
    assert await health(catalog) == {80: UNHEARD, 81: UNHEARD}
    leases = Leases(catalog)
    await leases.renew([Beat(workload(), LATER, WELL)])
    (lease,) = await leases.every()
    await leases.miss([lease], "nothing")
    await joins.attest(machine("web-1"), policy, "vm-9", given, "join server")
    assert await health(catalog) == {80: UNHEARD, 81: UNHEARD}
    await leases.renew([Beat(workload(), MUCH_LATER, WELL)])
    assert await health(catalog) == {80: FINE, 81: FINE}


async def test_it_has_a_lease_from_joining_on(catalog: Catalog) -> None:
    """Else one that dies before its agent was ever heard would stand for ever."""
    await Joins(catalog).create(TOKEN, "ann@desk")
    await Joins(catalog).join(machine("web-1"), TOKEN.id, Given("a1", ENDS), "join server")
    (lease,) = await Leases(catalog).every()
    assert lease.silence == NEW
    await Leases(catalog).miss([lease], "nothing")
    assert (await health(catalog))[80] == (Health.UNHEALTHY, "nothing")


async def test_a_word_is_news_whichever_replica_took_in_the_one_before(
    catalog: Catalog, url: str
) -> None:
    leases = await joined(catalog)
    with closing(Catalog(url)) as replica:
        await Leases(replica).renew([Beat(workload(), LATER, Word(draining="Preempt"))])
    assert (await health(catalog))[80] == (Health.DRAINING, "Preempt")
    await leases.renew([Beat(workload(), LATER, WELL)])
    assert (await health(catalog))[80] == FINE


async def test_people_s_word_goes_before_its_agent_s(catalog: Catalog) -> None:
    leases = await joined(catalog)
    await override(catalog, "web-1", Override(State.DRAINED, "disk", "ann@desk"), "ann@desk")
    await leases.renew([Beat(workload(), LATER, Word(lost="no Envoy"))])
    assert (await health(catalog))[80] == (Health.DRAINING, "drained by ann@desk: disk")
    await override(catalog, "web-1", None, "ann@desk")
    assert (await health(catalog))[80] == (Health.UNHEALTHY, "no Envoy")


async def test_one_that_is_silent_is_not_called_then_taken_away_and_back_when_heard(
    catalog: Catalog, url: str
) -> None:
    leases = await joined(catalog)
    (lease,) = await leases.every()
    await leases.miss([lease], "its agent said nothing for 30 s")
    assert (await health(catalog))[80] == (Health.UNHEALTHY, "its agent said nothing for 30 s")
    (lease,) = await leases.every()
    assert lease.silence == MISSED
    await leases.bury([lease])
    mesh = await catalog.read()
    assert (mesh.endpoints.get(WEB), list(mesh.services)) == (None, [WEB])
    kept = await leases.joined(workload().id)
    assert kept is not None
    assert kept.silence == GONE
    await leases.renew([Beat(workload(), MUCH_LATER, known=machine("web-1"))])
    assert await health(catalog) == {80: FINE, 81: FINE}
    (lease,) = await leases.every()
    assert lease.silence == ""
    told = query(url, "select change from mesh_changes where what = 'join' order by revision").rows
    assert [str(change).partition(":")[0] for (change,) in told] == [
        "admitted by token 3f9a01c4, as web.shop",
        "silent",
        "gone",
        "back",
    ]


async def test_a_sign_of_life_that_comes_after_all_makes_it_well_though_it_is_no_news(
    catalog: Catalog,
) -> None:
    """It was on its way when the lease was found to be over."""
    leases = await joined(catalog)
    (lease,) = await leases.every()
    await leases.miss([lease], "nothing")
    late = Beat(workload(), MUCH_LATER, WELL)
    assert await leases.renew([late]) == frozenset()
    assert await health(catalog) == {80: FINE, 81: FINE}
    (lease,) = await leases.every()
    await leases.miss([lease], "nothing")
    (lease,) = await leases.every()
    await leases.bury([lease])
    assert await leases.renew([late]) == {workload().id}  # it has to say what it serves
    (lease,) = await leases.every()
    assert lease.silence == GONE


async def test_who_was_heard_in_between_is_not_silent(catalog: Catalog) -> None:
    leases = await joined(catalog)
    (lease,) = await leases.every()
    await leases.renew([Beat(workload(), MUCH_LATER)])
    await leases.miss([lease], "nothing")
    await leases.bury([lease])
    await leases.forget([lease])
    assert await health(catalog) == {80: FINE, 81: FINE}


async def test_one_that_cannot_come_back_is_forgotten_and_its_name_is_free(
    catalog: Catalog,
) -> None:
    leases = await joined(catalog)
    (lease,) = await leases.every()
    await leases.miss([lease], "nothing")
    await leases.forget([lease])
    assert await leases.every() == ()
    assert await catalog.registered() == ()
    await Joins(catalog).join(machine("web-1"), TOKEN.id, Given("b2", ENDS), "join server")


async def test_who_has_left_meanwhile_stays_away(catalog: Catalog) -> None:
    leases = await joined(catalog)
    await catalog.deregister("web-1", "ann@desk")
    await leases.renew([Beat(workload(), MUCH_LATER, Word(lost="no Envoy"))])
    assert await health(catalog) == {}
    assert await leases.joined(workload().id) is None
    assert await Joins(catalog).called(workload().id) == "web-1"  # to say who it was
    assert await Joins(catalog).called("0123456789abcdef") == ""
