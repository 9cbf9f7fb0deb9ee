"""Terms: one replica leads, its lease is by the database's clock, and late writes are refused."""

import asyncio
import os
import signal
import time
from contextlib import aclosing, closing
from dataclasses import replace

import pytest
from msgspec import structs
from sqlalchemy import Connection, text

from meshfed.catalog.database import LOCK, Database
from meshfed.catalog.follow import REVISION
from meshfed.catalog.leadership import NOBODY, Deposed, Leader, Term, take
from meshfed.catalog.model import Identity, Known, Specified
from meshfed.catalog.reports import ProxyState, Reaches, Receipt
from meshfed.catalog.store import Away, Catalog

KNOWN = Known("rack", "rack/a")
ONE, TWO = Term(1, "one"), Term(2, "two")
PROXY = ProxyState("p1", Identity("store", "shop"), "store-1", 100.0, "synced", "", "1.40.0")


def lapse(url: str, seconds: float = 3.1) -> None:
    """The database's clock goes on; after three seconds without a word the lease ends."""
    database = Database(url)
    database.write(lambda c: c.execute(text(f"update leadership set until = until - {seconds}")))
    database.close()


async def test_one_leads_and_the_others_wait_for_their_turn(catalog: Catalog, url: str) -> None:
    assert await catalog.leader() == NOBODY
    assert await catalog.take("one") == ONE
    assert await catalog.leader() == Leader(ONE, held=True)
    assert await catalog.take("two") is None
    await catalog.renew(ONE)
    lapse(url)
    assert await catalog.leader() == Leader(ONE, held=False)
    assert await catalog.take("two") == TWO
    assert await catalog.leader() == Leader(TWO, held=True)


async def test_of_all_who_try_at_once_one_leads(url: str) -> None:
    several = [Catalog(url) for _ in range(4)]
    terms = await asyncio.gather(*(each.take(f"r{n}") for n, each in enumerate(several)))
    for each in several:
        each.close()
    assert [term.epoch for term in terms if term] == [1]


async def test_a_lease_that_ran_out_is_kept_where_nobody_wanted_it(
    catalog: Catalog, url: str
) -> None:
    await catalog.take("one")
    lapse(url)
    await catalog.renew(ONE)
    assert (await catalog.leader()).held


async def test_a_clock_that_was_set_back_keeps_nobody_from_leading(
    catalog: Catalog, url: str
) -> None:
    await catalog.take("one")
    lapse(url, -3600)
    assert await catalog.take("two") == TWO


async def test_an_epoch_that_a_standby_did_not_know_is_no_excuse(catalog: Catalog) -> None:
    await catalog.take("two")
    with pytest.raises(Deposed, match="two leads, since epoch 1"):
        await catalog.led(ONE).prune(0.0)


@pytest.mark.parametrize("what", ["believe", "seen", "specify", "configure", "prune", "renew"])
async def test_what_a_leader_writes_late_is_refused(catalog: Catalog, url: str, what: str) -> None:
    await catalog.take("one")
    led = catalog.led(ONE)
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
        "renew": lambda: led.renew(ONE),
    }
    before = await catalog.bearings()
    with pytest.raises(Deposed, match="two leads, since epoch 2"):
        await acts[what]()
    assert (await catalog.bearings()).revision == before.revision
    assert await catalog.known("rack", "rack/a") == KNOWN
    await catalog.led(TWO).believe(late, kind="hosts", cause="")


async def test_a_term_begins_without_what_the_one_before_knew(catalog: Catalog, url: str) -> None:
    """A standby that is promoted gives revisions that it lost to what others write."""
    await catalog.take("one")
    await catalog.led(ONE).believe(KNOWN, kind="hosts", cause="")
    await catalog.led(ONE).seen("rack", "hosts", "rack/a")
    rows(url, "update scopes set doubt = 'theirs', fault = 'theirs' returning revision")
    await catalog.take("two", at_once=True)
    assert (await catalog.led(TWO).known("rack", "rack/a")) == replace(KNOWN, doubt="theirs")
    await catalog.led(TWO).seen("rack", "hosts", "rack/a")
    assert rows(url, "select fault from scopes") == [("",)]


async def test_what_is_known_in_a_term_is_not_asked_again_and_nothing_of_others_is_lost(
    catalog: Catalog, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalog.take("one")
    led = catalog.led(ONE)
    await led.believe(KNOWN, kind="hosts", cause="")
    with monkeypatch.context() as unreachable:
        unreachable.delattr(led, "_database")
        assert await led.all_known("rack", ["rack/a"]) == {"rack/a": KNOWN}
    # A catalog that was put back says otherwise in the same term.
    await catalog.believe(replace(KNOWN, doubt="theirs"), kind="hosts", cause="")
    assert await led.believe(KNOWN, kind="hosts", cause="") == 3
    assert await catalog.known("rack", "rack/a") == KNOWN


async def test_its_write_that_waited_for_its_turn_meanwhile_is_refused(postgres_url: str) -> None:
    """A leader that is stopped in the middle of a write, as the database sees it."""
    with closing(Catalog(postgres_url)) as catalog:
        await catalog.take("one")
        database = Database(postgres_url)
        with database._writing.connect() as turn, turn.begin():
            late = asyncio.create_task(catalog.led(ONE).believe(KNOWN, kind="hosts", cause=""))
            await asyncio.to_thread(until_waiting, postgres_url)
            assert take(turn, "two", at_once=True) == TWO
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
    assert not (await catalog.record("one", 1, [PROXY], [], [receipt])).known
    assert (await catalog.record("one", 1, [], [], [])).known
    other = replace(PROXY, proxy="p2")
    await catalog.record("two", 1, [other], [], [structs.replace(receipt, proxy="p2")])
    await catalog.forget(["one"])
    assert set(await catalog.signs()) == {"two"}
    assert rows(url, "select proxy from proxies") == [("p2",)]
    assert rows(url, "select proxy from proxy_sync") == [("p2",)]
    forgotten = await catalog.record("one", 1, [], [], [])
    assert not forgotten.known  # so it knows that it must say all again


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
    assert await catalog.take("two") == TWO
    await catalog.leave("one")
    assert (await catalog.leader()).held


async def test_a_replica_that_was_stopped_takes_no_proxy_back(catalog: Catalog, url: str) -> None:
    await catalog.record("one", 1, [PROXY], [], [])
    await catalog.record("two", 1, [replace(PROXY, connected_since=200.0)], [], [])
    await catalog.record("one", 1, [PROXY], [], [])
    await catalog.record("one", 1, [], ["p1"], [])
    assert rows(url, "select replica from proxies") == [("two",)]


async def test_what_two_replicas_say_of_one_proxy_is_of_the_one_that_has_it(
    catalog: Catalog, url: str
) -> None:
    """A half-open stream is noticed after 40 s; its proxy is long at another replica."""
    of = "select cluster, version from mesh_clusters order by cluster"
    first = frozenset({("a", 0, "a.shop", 1, "v1")})
    both = first | {("b", 0, "b.shop", 1, "v1")}
    mine = replace(PROXY, kind=1, whole=True)
    newer = replace(mine, connected_since=200.0)
    record, told = catalog.record, Reaches(1, first)
    assert (await record("one", 1, [mine], [], [], [told])).own == {"p1"}
    assert (await record("two", 1, [newer], [], [], [told])).own == {"p1"}
    await record("two", 2, [], [], [], [Reaches(1, both, before=first)])
    assert (await record("one", 2, [replace(mine, whole=False)], [], [])).own == set()
    await record("one", 3, [], [], [], [Reaches(1, frozenset(), before=first)])
    assert rows(url, of) == [("a", "v1"), ("b", "v1")]
    await record("two", 3, [], ["p1"], [])
    assert rows(url, of) == []
    assert (await record("one", 3, [mine], [], [], [told])).own == {"p1"}
    assert rows(url, of) == [("a", "v1")]


async def test_a_proxy_goes_to_a_replica_of_the_schema_before_and_comes_back(
    catalog: Catalog, url: str
) -> None:
    """Such a one knows no classes, and leaves that column as it is."""
    new = Reaches(1, frozenset({("new", 0, "a.shop", 1, "v1")}))
    cluster = "insert into proxy_clusters (proxy, cluster, priority, endpoints)"
    goes = "insert into proxies (proxy, replica) values ('p1', 'old')"
    goes += " on conflict (proxy) do update set replica = excluded.replica returning proxy"
    for _ in range(2):
        rows(url, goes)
        rows(url, f"{cluster} values ('p1', 'old', 0, 1) on conflict do nothing returning proxy")
        assert rows(url, "select proxy, cluster from mesh_clusters") == [("p1", "old")]
        mine = replace(PROXY, connected_since=200.0, kind=1, whole=True)
        await catalog.record("new", 1, [mine], [], [], [new])
        assert rows(url, "select proxy, cluster from mesh_clusters") == [("p1", "new")]
    assert rows(url, "select proxy from proxy_clusters") == []


async def test_what_a_class_reaches_is_written_anew_where_nobody_knows_what_is_there(
    catalog: Catalog, url: str
) -> None:
    mine = replace(PROXY, kind=3, whole=True)
    old, new = (frozenset({(name, 0, f"{name}.shop", 1, "v1")}) for name in ("a", "b"))
    await catalog.record("one", 1, [mine], [], [], [Reaches(3, old), Reaches(4, old)])
    await catalog.record("one", 1, [], [], [], [Reaches(3, new), Reaches(4, frozenset())])
    assert rows(url, "select class, cluster from class_clusters") == [(3, "b")]
    await catalog.forget(["one"])
    assert rows(url, "select class, cluster from class_clusters") == []


async def test_what_was_ever_read_is_known_to_those_who_do_not_read(catalog: Catalog) -> None:
    await catalog.seen("away", "hosts", "away/a", fault="no such file")
    await catalog.specify(Specified("files:away", fault="no such folder"))
    assert await catalog.observed() == set()
    await catalog.believe(KNOWN, kind="hosts", cause="")
    await catalog.specify(Specified("files:none"))
    assert await catalog.observed() == {"rack", "files:none"}


# What stands between


async def test_a_notification_that_never_comes_is_made_up_for(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        async with aclosing(catalog.follow()) as revisions, asyncio.timeout(5):
            assert await anext(revisions) == 0
            rows(postgres_url, "update state set revision = 7 returning revision")
            assert await anext(revisions) == 7


@pytest.mark.soak
async def test_a_half_open_connection_is_given_up_within_five_seconds(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        async with aclosing(catalog.follow()) as revisions, asyncio.timeout(5):
            await anext(revisions)
            found = f"select pid from pg_stat_activity where query = '{REVISION}'"
            ((listener,),) = rows(postgres_url, found)
            os.kill(int(str(listener)), signal.SIGSTOP)
            try:
                await catalog.believe(KNOWN, kind="hosts", cause="")
                while await anext(revisions) != 1:
                    pass
            finally:
                os.kill(int(str(listener)), signal.SIGCONT)


async def test_there_is_nothing_between_us_and_a_file(sqlite_url: str) -> None:
    with closing(Catalog(sqlite_url)) as catalog:
        assert await catalog.deaf() == ""
