"""Tokens, and who joined with them, on both databases."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from random import Random

import pytest
from sqlalchemy import Connection, text

from meshfed.catalog.database import Database
from meshfed.catalog.events import happened
from meshfed.catalog.joins import Given, Joins, Unadmitted
from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Known,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, Taken
from meshfed.catalog.tokens import Token, UnknownToken

DB = Identity("db", "shop")
TOKEN = Token("3f9a01c4", "5e" * 32, DB, ("ledger.shop:3306",), 1, "2999-01-01T00:00:00.000Z")
ENDED = replace(TOKEN, uses=9, ends_at="2001-01-01T00:00:00.000Z")
DESK = "ann@desk"
ENDS = "2999-01-08T00:00:00.000Z"
A1, B2, C3, D4 = (Given(serial, ENDS) for serial in ("a1", "b2", "c3", "d4"))
DOOR = "join server, from 10.0.0.9"


def known(name: str, provider: str = "registered") -> Known:
    scope = f"{provider}/{name}"
    here = Workload(name, provider, scope, identity=DB, addresses=("10.0.0.9",))
    return Known(provider, scope, workloads=frozenset({here}))


def told(url: str) -> list[tuple[object, ...]]:
    asked = "select what, object, change, who, cause from mesh_changes where what in "
    return [tuple(row) for row in query(url, asked + "('token', 'join')").rows]


async def test_a_token_is_kept_with_who_made_it_and_without_its_secret(
    catalog: Catalog, url: str
) -> None:
    await Joins(catalog).create(TOKEN, DESK)
    (kept,) = await Joins(catalog).tokens()
    assert (kept.made_by, kept.used, kept.hash) == (DESK, 0, TOKEN.hash)
    assert TOKEN.hash not in repr(kept)
    said = "made: db.shop for ledger.shop:3306, 1 uses, until 2999-01-01T00:00:00.000Z"
    assert told(url) == [("token", TOKEN.id, said, DESK, "token created")]


async def test_of_many_at_once_as_many_join_as_there_are_uses(catalog: Catalog, url: str) -> None:
    await Joins(catalog).create(replace(TOKEN, uses=3), DESK)
    with closing(Catalog(url)) as replica:  # counts as well, on another connection
        doors = (Joins(catalog), Joins(replica))
        ended = await asyncio.gather(
            *(doors[n % 2].join(known(f"db-{n}"), TOKEN.id, A1, DOOR) for n in range(10)),
            return_exceptions=True,
        )
    refused = [str(each) for each in ended if each is not None]
    assert refused == [f"token {TOKEN.id} was used 3 of 3 times"] * 7
    assert len(await catalog.registered()) == 3
    (kept,) = await Joins(catalog).tokens()
    assert kept.used == 3


LEDGER = ServiceName("ledger", "shop")


def machine(name: str) -> Known:
    """Which answers for a service that other machines answer for as well."""
    here = known(name)
    (it,) = here.workloads
    endpoint = Endpoint(LEDGER, 3306, name, 3306, it.id, here.provider, here.scope, identity=DB)
    said = Service(LEDGER, (Port(3306),))
    return replace(here, services=frozenset({said}), endpoints=frozenset({endpoint}))


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each that is written in."""
    begun: list[object] = []
    write = Database.write

    def counted(database: Database, act: Callable[[Connection], object]) -> object:
        begun.append(act)
        return write(database, act)

    monkeypatch.setattr(Database, "write", counted)
    return begun


async def test_a_hundred_who_come_at_once_are_one_transaction_and_each_has_its_line(
    catalog: Catalog, url: str, transactions: list[object]
) -> None:
    joins = Joins(catalog)
    await joins.create(replace(TOKEN, uses=100), DESK)
    transactions.clear()
    doors = [f"join server, from 10.0.0.{n}" for n in range(100)]
    given = [Given(f"{n:x}", ENDS) for n in range(100)]
    await asyncio.gather(
        *(joins.join(machine(f"db-{n}"), TOKEN.id, given[n], doors[n]) for n in range(100))
    )
    assert len(transactions) == 1
    lines = [(thing, who) for what, thing, _, who, _ in told(url) if what == "join"]
    assert sorted(lines) == sorted((f"db-{n}", doors[n]) for n in range(100))
    (kept,) = await joins.tokens()
    assert kept.used == 100
    mesh = await catalog.read()
    assert len(mesh.endpoints[LEDGER]) == 100
    asked = "select serial from joined order by serial"
    with closing(Database(url)) as database:
        rows = database.read(lambda connection: connection.execute(text(asked)).all())
    assert [row[0] for row in rows] == sorted(each.serial for each in given)


async def test_who_keep_coming_one_by_one_are_a_few_transactions(
    catalog: Catalog, transactions: list[object]
) -> None:
    joins = Joins(catalog, apart=0.2)
    await joins.create(replace(TOKEN, uses=100), DESK)
    transactions.clear()
    began, coming = time.monotonic(), []
    for n in range(20):
        coming.append(asyncio.create_task(joins.join(machine(f"db-{n}"), TOKEN.id, A1, DOOR)))
        await asyncio.sleep(0.02)
    await asyncio.gather(*coming)
    assert len(transactions) <= 2 + (time.monotonic() - began) / 0.2


async def test_together_they_fare_as_if_each_had_come_alone(catalog: Catalog) -> None:
    joins = Joins(catalog, apart=0.0)
    await catalog.believe(known("listed", "rack"), kind="hosts", cause="read")
    await catalog.register("here", known("here"), DESK)
    kinds = {"some": replace(TOKEN, uses=9), "few": replace(TOKEN, uses=3), "old": ENDED}
    comers = [(name, kind) for name in (*"aabcdef", "here", "listed") for kind in (*kinds, "none")]
    Random(8).shuffle(comers)

    async def fared(visit: str, *, together: bool) -> tuple[object, ...]:
        for kind, token in kinds.items():
            await joins.create(replace(token, id=f"{visit} {kind}"), DESK)
        coming = [joins.join(machine(n), f"{visit} {kind}", A1, DOOR) for n, kind in comers]
        if together:
            ended = await asyncio.gather(*coming, return_exceptions=True)
        else:
            ended = [(await asyncio.gather(each, return_exceptions=True))[0] for each in coming]
        there = [(each.name, serves) for each, serves in await catalog.registered()]
        for name, _ in there:
            if name != "here":
                await catalog.deregister(name, DESK)
        used = [each.used for each in await joins.tokens() if each.id.startswith(visit)]
        return [str(each).replace(visit, "") for each in ended], there, sorted(used)

    alone = await fared("alone", together=False)
    assert await fared("together", together=True) == alone
    refused, *_ = alone
    assert len({why.partition(" ")[2][:12] for why in refused}) > 4  # they fare differently


async def test_who_goes_before_it_is_served_keeps_nobody_waiting(catalog: Catalog) -> None:
    joins = Joins(catalog)
    await joins.create(replace(TOKEN, uses=9), DESK)
    coming = [
        asyncio.create_task(joins.join(known(f"db-{n}"), TOKEN.id, A1, DOOR)) for n in range(4)
    ]
    await asyncio.sleep(0)
    coming[0].cancel()
    coming[2].cancel()
    await asyncio.wait(coming)
    assert [each.cancelled() for each in coming] == [True, False, True, False]
    assert len(await catalog.registered()) == 4


async def test_a_name_that_stands_is_nobody_elses_and_costs_no_use(catalog: Catalog) -> None:
    await Joins(catalog).create(replace(TOKEN, uses=2), DESK)
    await Joins(catalog).join(known("db-1"), TOKEN.id, A1, DOOR)
    with pytest.raises(Unadmitted, match="db-1 is registered already"):
        await Joins(catalog).join(known("db-1"), TOKEN.id, A1, DOOR)
    await catalog.believe(known("db-2", "rack"), kind="hosts", cause="read")
    with pytest.raises(Taken, match="db-2 is a workload of rack"):
        await Joins(catalog).join(known("db-2"), TOKEN.id, A1, DOOR)
    (kept,) = await Joins(catalog).tokens()
    assert kept.used == 1


@pytest.mark.parametrize(
    ("token", "why"),
    [
        pytest.param(replace(TOKEN, ends_at="2001-01-01T00:00:00.000Z"), "ended at 2001", id="old"),
        pytest.param(replace(TOKEN, uses=0), "was used 0 of 0 times", id="no uses"),
    ],
)
async def test_a_token_that_ended_admits_nobody(catalog: Catalog, token: Token, why: str) -> None:
    await Joins(catalog).create(token, DESK)
    with pytest.raises(Unadmitted, match=why):
        await Joins(catalog).join(known("db-1"), token.id, A1, DOOR)
    assert await catalog.registered() == ()


async def test_a_revoked_token_admits_nobody_and_is_revoked_once(catalog: Catalog) -> None:
    joins = Joins(catalog)
    await joins.create(TOKEN, DESK)
    await joins.revoke(TOKEN.id, DESK)
    with pytest.raises(Unadmitted, match="was revoked at"):
        await joins.join(known("db-1"), TOKEN.id, A1, DOOR)
    with pytest.raises(UnknownToken, match="was revoked at"):
        await joins.revoke(TOKEN.id, DESK)
    with pytest.raises(UnknownToken, match="no token 00000000"):
        await joins.revoke("00000000", DESK)


async def test_what_is_renewed_or_refused_moves_nothing_and_signs_no_other_change(
    catalog: Catalog, url: str
) -> None:
    joins = Joins(catalog)
    await joins.create(TOKEN, DESK)
    await joins.join(known("db-1"), TOKEN.id, A1, DOOR)
    before = (await catalog.read()).revision
    (workload,) = known("db-1").workloads
    await joins.renew(workload, "a1", B2, DOOR)
    await joins.refused("db-9", "token: unknown", "join server, from 192.0.2.66")
    assert (await catalog.read()).revision == before
    assert [(each[1], each[2]) for each in told(url)][1:] == [
        ("db-1", f"admitted by token {TOKEN.id}, as db.shop"),
        ("db-1", "renewed, as db.shop"),
        ("db-9", "refused: token: unknown"),
    ]
    events = await catalog.ask(lambda connection: happened(connection, "db-1", ""))
    assert {each.who for each in events.events} == {DOOR}


async def test_who_left_or_became_another_is_not_renewed(catalog: Catalog) -> None:
    joins = Joins(catalog)
    await joins.create(TOKEN, DESK)
    await joins.join(known("db-1"), TOKEN.id, A1, DOOR)
    (workload,) = known("db-1").workloads
    await joins.leave(workload, "a1", DOOR)
    assert await joins.standing(workload.id) is None
    with pytest.raises(Unadmitted, match="changed at the same moment"):
        await joins.renew(workload, "a1", B2, DOOR)


async def test_only_the_last_certificate_renews_or_the_one_before_if_its_answer_was_lost(
    catalog: Catalog,
) -> None:
    joins = Joins(catalog)
    await joins.create(TOKEN, DESK)
    await joins.join(known("db-1"), TOKEN.id, A1, DOOR)
    (workload,) = known("db-1").workloads
    await joins.renew(workload, "a1", B2, DOOR)
    await joins.renew(workload, "a1", C3, DOOR)  # b2 never came
    await joins.renew(workload, "c3", D4, DOOR)
    for old in ("a1", "b2"):
        with pytest.raises(Unadmitted, match="not the last certificate that db-1 was given"):
            await joins.renew(workload, old, D4, DOOR)
        with pytest.raises(Unadmitted, match="not the last certificate"):
            await joins.leave(workload, old, DOOR)


async def test_what_a_certificate_renewed_ends_with_its_workload(catalog: Catalog) -> None:
    joins = Joins(catalog)
    await joins.create(replace(TOKEN, uses=2), DESK)
    await joins.join(known("db-1"), TOKEN.id, A1, DOOR)
    await catalog.deregister("db-1", DESK)
    await joins.join(known("db-1"), TOKEN.id, B2, DOOR)
    (workload,) = known("db-1").workloads
    with pytest.raises(Unadmitted, match="not the last certificate"):
        await joins.renew(workload, "a1", C3, DOOR)


async def test_with_which_token_a_workload_joined_is_in_the_view(
    catalog: Catalog, url: str
) -> None:
    await Joins(catalog).create(TOKEN, DESK)
    await Joins(catalog).join(known("db-1"), TOKEN.id, A1, DOOR)
    await catalog.register("db-2", known("db-2"), DESK)
    asked = "select name, joined_by, joined_at is not null from mesh_workloads order by name"
    joined, registered = query(url, asked).rows
    assert joined[:2] == ("db-1", TOKEN.id)
    assert registered[:2] == ("db-2", None)
    assert (bool(joined[2]), bool(registered[2])) == (True, False)
