"""Terms: one replica leads, its lease is by the database's clock, and late writes are refused."""

import asyncio
import time
from contextlib import closing
from dataclasses import replace

import pytest
from pooler import pooled
from sqlalchemy import Connection, text

from meshfed.catalog.database import LOCK, Database
from meshfed.catalog.leadership import NOBODY, Deposed, Leader, take
from meshfed.catalog.model import Identity, Known, ProxyState, Receipt, Specified
from meshfed.catalog.store import Away, Catalog

KNOWN = Known("rack", "rack/a")
PROXY = ProxyState("p1", Identity("store", "shop"), "store-1", 100.0, "synced", "", "1.40.0")


def lapse(url: str) -> None:
    """The lease ends, as after three seconds without a word."""
    database = Database(url)
    database.write(lambda c: c.execute(text("update leadership set until = until - 3.1")))
    database.close()


async def test_one_leads_and_the_others_wait_for_their_turn(catalog: Catalog, url: str) -> None:
    assert await catalog.leader() == NOBODY
    assert await catalog.take("one") == 1
    assert await catalog.leader() == Leader(1, "one", held=True)
    assert await catalog.take("two") is None
    await catalog.renew(1)
    lapse(url)
    assert await catalog.leader() == Leader(1, "one", held=False)
    assert await catalog.take("two") == 2
    assert await catalog.leader() == Leader(2, "two", held=True)


async def test_of_all_who_try_at_once_one_leads(url: str) -> None:
    several = [Catalog(url) for _ in range(4)]
    epochs = await asyncio.gather(*(each.take(f"r{n}") for n, each in enumerate(several)))
    for each in several:
        each.close()
    assert [epoch for epoch in epochs if epoch] == [1]


async def test_a_lease_that_ran_out_is_kept_where_nobody_wanted_it(
    catalog: Catalog, url: str
) -> None:
    await catalog.take("one")
    lapse(url)
    await catalog.renew(1)
    assert (await catalog.leader()).held


@pytest.mark.parametrize("what", ["believe", "seen", "specify", "configure", "prune", "renew"])
async def test_what_a_leader_writes_late_is_refused(catalog: Catalog, url: str, what: str) -> None:
    await catalog.take("one")
    led = catalog.led(1)
    await led.believe(KNOWN, kind="hosts", cause="")
    lapse(url)
    await catalog.take("two")
    late = replace(KNOWN, doubt="late")
    acts = {
        "believe": lambda: led.believe(late, kind="hosts", cause=""),
        "seen": lambda: led.seen("rack", "hosts", "rack/a", fault="late"),
        "specify": lambda: led.specify(Specified("files:late")),
        "configure": lambda: led.configure("late.example", permissive=True),
        "prune": lambda: led.prune(2e9),
        "renew": lambda: led.renew(1),
    }
    before = await catalog.bearings()
    with pytest.raises(Deposed, match="two leads, since epoch 2"):
        await acts[what]()
    assert (await catalog.bearings()).revision == before.revision
    assert await catalog.known("rack", "rack/a") == KNOWN
    await catalog.led(2).believe(late, kind="hosts", cause="")


async def test_its_write_that_waited_for_its_turn_meanwhile_is_refused(postgres_url: str) -> None:
    """A leader that is stopped in the middle of a write, as the database sees it."""
    with closing(Catalog(postgres_url)) as catalog:
        await catalog.take("one")
        database = Database(postgres_url)
        with database._writing.connect() as turn, turn.begin():
            late = asyncio.create_task(catalog.led(1).believe(KNOWN, kind="hosts", cause=""))
            await asyncio.to_thread(until_waiting, postgres_url)
            assert take(turn, "two", at_once=True) == 2
        database.close()
        with pytest.raises(Deposed):
            await late
        assert await catalog.known("rack", "rack/a") is None


def until_waiting(url: str) -> None:
    waiting = (
        f"select 1 from pg_locks where locktype = 'advisory' and objid = {LOCK} and not granted"
    )
    database = Database(url)
    while database.read(lambda c: c.execute(text(waiting)).first()) is None:
        pass
    database.close()


async def test_a_writer_that_stops_in_its_turn_does_not_keep_the_others_from_theirs(
    postgres_url: str,
) -> None:
    database = Database(postgres_url)
    with pytest.raises(Away, match="idle-in-transaction timeout"):
        database.write(stopped)
    database.close()


def stopped(connection: Connection) -> None:
    limit = connection.execute(text("show idle_in_transaction_session_timeout")).scalar()
    assert limit == "10s"
    connection.execute(text("set local idle_in_transaction_session_timeout = '10ms'"))
    time.sleep(0.05)
    connection.execute(text("select 1"))


# Replicas that are gone


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    database = Database(url)
    found = database.read(lambda c: [tuple(row) for row in c.execute(text(statement))])
    database.close()
    return found


async def test_a_replica_that_is_gone_is_forgotten_with_its_proxies(
    catalog: Catalog, url: str
) -> None:
    receipt = Receipt("p1", "CDS", "v1", 1.0, 2.0)
    assert not await catalog.record("one", 1, [PROXY], [], [receipt])
    assert await catalog.record("one", 1, [], [], [])
    other = replace(PROXY, proxy="p2")
    await catalog.record("two", 1, [other], [], [replace(receipt, proxy="p2")])
    await catalog.forget(["one"])
    assert set(await catalog.signs()) == {"two"}
    assert rows(url, "select proxy from proxies") == [("p2",)]
    assert rows(url, "select proxy from proxy_sync") == [("p2",)]
    assert not await catalog.record("one", 1, [], [], [])  # so it knows that it must say all again


async def test_the_leader_before_is_forgotten_at_take_over(catalog: Catalog, url: str) -> None:
    await catalog.take("one")
    await catalog.record("one", 1, [PROXY], [], [])
    lapse(url)
    await catalog.take("two")
    assert rows(url, "select replica from replicas union select proxy from proxies") == []


async def test_a_leader_that_leaves_is_followed_at_once(catalog: Catalog, url: str) -> None:
    await catalog.take("one")
    await catalog.record("one", 1, [PROXY], [], [])
    await catalog.leave("one")
    assert rows(url, "select proxy from proxies") == []
    assert await catalog.take("two") == 2
    await catalog.leave("one")
    assert (await catalog.leader()).held


async def test_a_replica_that_was_stopped_takes_no_proxy_back(catalog: Catalog, url: str) -> None:
    await catalog.record("one", 1, [PROXY], [], [])
    await catalog.record("two", 1, [replace(PROXY, connected_since=200.0)], [], [])
    await catalog.record("one", 1, [PROXY], [], [])
    await catalog.record("one", 1, [], ["p1"], [])
    assert rows(url, "select replica from proxies") == [("two",)]


async def test_what_was_ever_read_is_known_to_those_who_do_not_read(catalog: Catalog) -> None:
    await catalog.seen("away", "hosts", "away/a", fault="no such file")
    await catalog.specify(Specified("files:away", fault="no such folder"))
    assert await catalog.observed() == set()
    await catalog.believe(KNOWN, kind="hosts", cause="")
    await catalog.specify(Specified("files:none"))
    assert await catalog.observed() == {"rack", "files:none"}


# What stands between


async def test_a_pooler_that_loses_what_is_listened_to_is_named(postgres_url: str) -> None:
    async with pooled(postgres_url) as through:
        with closing(Catalog(through)) as catalog:
            assert (await catalog.bearings()).revision == 0  # nothing else is wrong with it
            assert "pool_mode=session" in await catalog.deaf()
    with closing(Catalog(postgres_url)) as catalog:
        assert await catalog.deaf() == ""


async def test_there_is_nothing_between_us_and_a_file(sqlite_url: str) -> None:
    with closing(Catalog(sqlite_url)) as catalog:
        assert await catalog.deaf() == ""
