"""What is believed is stored once, in revisions without gaps, and read back as it was."""

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from meshfed.catalog.model import (
    Backend,
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Known,
    Locality,
    ObjectName,
    Policy,
    Port,
    Protocol,
    Rejected,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    Specified,
    TcpRoute,
    TrafficSplit,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.reports import ProxyState, Receipt
from meshfed.catalog.store import Away, Catalog, UnknownScope

WEB = ServiceName("web", "shop")
WEB_ID = Identity("web", "shop")


def workload(name: str = "h1", **given: Any) -> Workload:
    return Workload(
        **{"name": name, "provider": "rack", "scope": "rack/a", "identity": WEB_ID} | given
    )


def endpoint(address: str = "10.0.0.1", **given: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "service": WEB,
        "port": 80,
        "address": address,
        "target": 8080,
        "workload": workload().id,
        "provider": "rack",
        "scope": "rack/a",
        "identity": WEB_ID,
    }
    return Endpoint(**fields | given)


def known(*endpoints: Endpoint, **given: Any) -> Known:
    fields: dict[str, Any] = {
        "provider": "rack",
        "scope": "rack/a",
        "services": frozenset({Service(WEB, (Port(80),))}),
        "workloads": frozenset({workload()}),
        "endpoints": frozenset(endpoints),
    }
    return Known(**fields | given)


async def believe(catalog: Catalog, what: Known) -> int | None:
    return await catalog.believe(what, kind="hosts", cause="a test")


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    engine = create_engine(make_url(url))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]
    finally:
        engine.dispose()


def kill_connections(url: str) -> None:
    ask(url, "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()")  # fmt: skip


# What is believed


async def test_a_scope_is_read_back_as_it_was_believed(catalog: Catalog) -> None:
    everything = known(
        endpoint(
            locality=Locality("onprem", "rack-1"),
            weight=3,
            health=Health.UNHEALTHY,
            health_reason="503",
            interception=Interception.NONE,
            cluster="east",
            network="dmz",
        ),
        endpoint("2001:db8::1", identity=None),
        services=frozenset(
            {
                Service(
                    WEB,
                    (Port(80), Port(81, "sql", Protocol.TCP, 8081, 13306)),
                    "10.9.9.9",
                    plaintext=True,
                )
            }
        ),
        workloads=frozenset(
            {workload(addresses=("10.0.0.1", "2001:db8::1"), labels=(("version", "v1"),))}
        ),
        doubt="1 of 2 vanished",
        stale=frozenset({endpoint("2001:db8::1").key}),
        rejected=(Rejected("hosts.yaml:3", "port", "not a number"),),
    )
    assert await catalog.known("rack", "rack/a") is None
    assert await believe(catalog, everything)
    assert await catalog.known("rack", "rack/a") == everything


async def test_nothing_changed_is_nothing_written(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    before = activity(url)
    assert await believe(catalog, known(endpoint())) is None
    assert activity(url) == before


def activity(url: str) -> Any:
    """What moves with every write, whatever it writes."""
    if url.startswith("sqlite"):
        path = make_url(url).database
        wal = Path(f"{path}-wal")
        return (wal.stat().st_size, wal.stat().st_mtime_ns, Path(str(path)).stat().st_mtime_ns)
    tables = ("state", "scopes", "statements", "services", "workloads", "endpoints", "changes")
    return [ask(url, f"select xmin::text, xmax::text, ctid::text from {one}") for one in tables]


async def test_an_empty_scope_is_known_once_it_was_believed(catalog: Catalog) -> None:
    empty = known(services=frozenset(), workloads=frozenset())
    assert await believe(catalog, empty)
    assert await catalog.known("rack", "rack/a") == empty


CHANGES = [
    pytest.param([endpoint()], [endpoint(), endpoint("10.0.0.2")], ["joined"], id="joined"),
    pytest.param([endpoint(), endpoint("10.0.0.2")], [endpoint()], ["left"], id="left"),
    pytest.param([endpoint()], [endpoint(weight=2)], ["weight changed"], id="weight"),
    pytest.param([endpoint()], [endpoint(health=Health.DRAINING)], ["health lost"], id="health"),
    pytest.param([endpoint()], [endpoint(identity=Identity("x", "y"))], ["identity changed"],
                 id="identity"),
    pytest.param([endpoint()], [endpoint(cluster="c")], ["changed"], id="anything else"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "told"), CHANGES)
async def test_a_change_is_one_revision_and_says_what_happened(
    catalog: Catalog, url: str, before: list[Endpoint], after: list[Endpoint], told: list[str]
) -> None:
    first = await believe(catalog, known(*before))
    second = await believe(catalog, known(*after))
    assert (first, second) == (1, 2)
    changes = ask(
        url, "select change, object, provider, cause from mesh_changes where revision = 2"
    )
    assert [change for change, *_ in changes] == told
    assert all(row[2:] == ("rack", "a test") for row in changes)


async def test_history_tells_what_was_there_at_every_revision(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    await believe(catalog, known(endpoint(weight=2)))
    await believe(catalog, known())
    history = ask(
        url,
        "select weight, valid_from_revision, valid_to_revision, change"
        " from mesh_endpoint_history order by valid_from_revision",
    )
    assert history == [(1, 1, 2, "joined"), (2, 2, 3, "weight changed, left")]


async def test_staleness_is_a_change_and_a_doubt_about_nothing_more_is_told(
    catalog: Catalog, url: str
) -> None:
    there = known(endpoint())
    await believe(catalog, there)
    doubted = dataclasses.replace(there, doubt="vanished", stale=frozenset({endpoint().key}))
    assert await believe(catalog, doubted) == 2
    assert ask(url, "select stale, doubt from mesh_endpoints") == [(True, "vanished")]
    assert ask(url, "select state, doubt from mesh_providers") == [("doubted", "vanished")]
    assert await believe(catalog, there) == 3
    assert ask(url, "select stale, doubt from mesh_endpoints") == [(False, "")]


async def test_entries_left_out_are_told_without_a_revision(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    wrong = (Rejected("hosts.yaml:3", "port", "not a number"),)
    assert await believe(catalog, known(endpoint(), rejected=wrong)) is None
    assert ask(url, "select reason from mesh_providers") == [("hosts.yaml:3: port: not a number",)]


async def test_revision_times_never_go_back_though_the_clock_does(url: str) -> None:
    clock = [2_000_000_000.0]
    with closing(Catalog(url, clock=lambda: clock[0])) as catalog:
        await believe(catalog, known(endpoint()))
        clock[0] = 1_000_000_000.0
        await believe(catalog, known())
    at = [row[0] for row in ask(url, "select at from mesh_changes order by revision")]
    assert set(at) == {"2033-05-18T03:33:20.000Z"}


async def test_writers_at_once_make_revisions_without_gaps(catalog: Catalog, url: str) -> None:
    def scope(number: int) -> Known:
        name = f"rack/{number}"
        its = endpoint(f"10.0.0.{number}", scope=name)
        return known(its, scope=name, workloads=frozenset())

    with closing(Catalog(url)) as other:
        writes = [believe((catalog, other)[n % 2], scope(n)) for n in range(1, 21)]
        revisions = await asyncio.gather(*writes)
    assert sorted(r for r in revisions if r) == list(range(1, 21))
    assert len((await catalog.read()).endpoints[WEB]) == 20


# Several providers


def claimed(provider: str, **given: Any) -> Known:
    scope = f"{provider}/a"
    claim = endpoint(provider=provider, scope=scope, **given)
    return known(claim, provider=provider, scope=scope, workloads=frozenset())


async def test_an_endpoint_that_two_claim_is_the_first_ones_by_name(
    catalog: Catalog, url: str
) -> None:
    listing = "select provider, identity, conflict from mesh_endpoints"
    await believe(catalog, claimed("rack"))
    await believe(catalog, claimed("azure", identity=Identity("other", "shop")))
    assert ask(url, listing) == [("azure", "other.shop", "rack claims it too, as web.shop")]
    (there,) = (await catalog.read()).endpoints[WEB]
    assert there.provider == "azure"
    assert await catalog.known("rack", "rack/a") == claimed("rack")
    await believe(catalog, dataclasses.replace(claimed("azure"), endpoints=frozenset()))
    assert ask(url, listing) == [("rack", "web.shop", "")]


@pytest.mark.parametrize("declares", ["a", "b"])
async def test_a_declared_port_goes_before_one_that_an_endpoint_implies(
    catalog: Catalog, declares: str
) -> None:
    declared = Port(8080, "grpc", Protocol.GRPC)
    for provider in ("a", "b"):
        port = declared if provider == declares else Port(8080, "http-8080")
        said = frozenset({Service(WEB, (port,))})
        await catalog.believe(Known(provider, f"{provider}/x", said), kind="test", cause="")
    assert (await catalog.read()).services[WEB].ports == (declared,)


async def test_a_service_is_the_union_of_what_providers_say(catalog: Catalog) -> None:
    def says(provider: str, *ports: Port, **given: Any) -> Known:
        service = Service(WEB, ports, **given)
        return Known(provider, f"{provider}/a", services=frozenset({service}))

    await believe(catalog, says("rack", Port(80, "rack"), Port(90, "more")))
    await believe(catalog, says("azure", Port(80, "azure"), vip="10.9.9.9"))
    union = (await catalog.read()).services[WEB]
    assert union == Service(WEB, (Port(80, "azure"), Port(90, "more")), "10.9.9.9")
    await believe(catalog, Known("azure", "azure/a"))
    assert (await catalog.read()).services[WEB].vip == ""
    await believe(catalog, Known("rack", "rack/a"))
    assert (await catalog.read()).services == {}


# Reading on


@pytest.mark.parametrize(
    ("after", "endpoints", "shape"),
    [
        pytest.param(known(endpoint(weight=9)), {WEB}, False, id="a weight is not shape"),
        pytest.param(known(endpoint(health=Health.DRAINING)), {WEB}, False, id="nor is health"),
        pytest.param(known(endpoint(identity=Identity("x", "y"))), {WEB}, True,
                     id="an identity is: SAN lists change"),
        pytest.param(known(endpoint(target=9)), {WEB}, True,
                     id="what a workload serves is: its listener changes"),
        pytest.param(known(endpoint(), workloads=frozenset()), set(), True, id="a workload is"),
        pytest.param(known(services=frozenset()), {WEB}, True, id="a service is"),
    ],
)  # fmt: skip
async def test_advancing_reads_what_moved_and_comes_to_the_same_mesh(
    catalog: Catalog, after: Known, endpoints: set[ServiceName], shape: bool
) -> None:
    await catalog.configure("shop.example", permissive=False)
    await believe(catalog, known(endpoint()))
    before = await catalog.read()
    await believe(catalog, after)
    newer, changed = await catalog.advance(before)
    assert (changed.endpoints, changed.shape) == (endpoints, shape)
    assert newer == await catalog.read()
    assert await catalog.advance(newer) == (newer, type(changed)())


async def test_settings_of_the_mesh_are_shape_and_written_once(catalog: Catalog) -> None:
    assert await catalog.configure("shop.example", permissive=False) == 1
    assert await catalog.configure("shop.example", permissive=False) is None
    before = await catalog.read()
    await catalog.configure("shop.example", permissive=True)
    newer, changed = await catalog.advance(before)
    assert newer.permissive
    assert changed.shape


async def test_a_catalog_that_was_put_back_is_read_whole(catalog: Catalog) -> None:
    await believe(catalog, known(endpoint()))
    ahead = dataclasses.replace(await catalog.read(), revision=99)
    newer, changed = await catalog.advance(ahead)
    assert newer.revision == 1
    assert (changed.endpoints, changed.shape) == ({WEB}, True)


# Following


async def test_followers_hear_of_every_process_and_only_the_latest(
    catalog: Catalog, url: str
) -> None:
    async with aclosing(catalog.follow()) as revisions:
        assert await anext(revisions) == 0
        await believe(catalog, known(endpoint()))
        assert await anext(revisions) == 1
        with closing(Catalog(url)) as other:
            await believe(other, known(endpoint(weight=2)))
            assert await anext(revisions) == 2
            await believe(other, known(endpoint(weight=3)))
            await believe(other, known(endpoint(weight=4)))
        assert await newest(revisions, 4) == 4


async def newest(revisions: AsyncIterator[int], wanted: int) -> int:
    async with asyncio.timeout(10):
        async for revision in revisions:
            if revision >= wanted:
                return revision
    raise AssertionError("the followers ended")


async def test_what_moves_no_revision_wakes_no_follower(catalog: Catalog) -> None:
    async with aclosing(catalog.follow()) as revisions:
        assert await anext(revisions) == 0
        await catalog.seen("rack", "hosts", "rack/a", fault="gone")
        await believe(catalog, known(endpoint()))
        assert await anext(revisions) == 1


async def test_followers_outlive_their_connection(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        async with aclosing(catalog.follow()) as revisions:
            assert await anext(revisions) == 0
            kill_connections(postgres_url)
            assert await anext(revisions) == 0
            await believe(catalog, known(endpoint()))
            assert await newest(revisions, 1) == 1


# The database away


async def test_a_catalog_works_again_after_its_connections_were_cut(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        await believe(catalog, known(endpoint()))
        kill_connections(postgres_url)
        assert await believe(catalog, known()) == 2


async def test_a_locked_database_is_away_and_nothing_is_lost(sqlite_url: str) -> None:
    with closing(Catalog(sqlite_url)) as catalog:
        await believe(catalog, known(endpoint()))
        await hurry(catalog)
        with closing(sqlite3.connect(make_url(sqlite_url).database or "")) as other:
            other.execute("begin immediate")
            with pytest.raises(Away, match="locked"):
                await believe(catalog, known())
            assert (await catalog.read()).endpoints[WEB] == (endpoint(),)
        assert await believe(catalog, known()) == 2


async def hurry(catalog: Catalog) -> None:
    """Give up on a lock at once, on the connection that is pooled."""
    await asyncio.to_thread(
        catalog._database.read, lambda c: c.exec_driver_sql("pragma busy_timeout = 1")
    )


async def test_a_full_disk_is_away_until_there_is_room(sqlite_url: str) -> None:
    def many(count: int) -> Known:
        return known(*(endpoint(f"10.1.{n // 200}.{n % 200}") for n in range(count)))

    with closing(Catalog(sqlite_url)) as catalog:
        await believe(catalog, known(endpoint()))
        with closing(sqlite3.connect(make_url(sqlite_url).database or "")) as look:
            (pages,) = look.execute("pragma page_count").fetchone()
        await asyncio.to_thread(
            catalog._database.read, lambda c: c.exec_driver_sql(f"pragma max_page_count = {pages}")
        )
        with pytest.raises(Away, match="full"):
            await believe(catalog, many(1000))
        assert (await catalog.read()).endpoints[WEB] == (endpoint(),)
        await asyncio.to_thread(
            catalog._database.read, lambda c: c.exec_driver_sql("pragma max_page_count = 100000")
        )
        assert await believe(catalog, many(1000)) == 2


async def test_a_file_that_is_no_database_is_away(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    file.write_bytes(b"no database at all " * 500)
    with closing(Catalog(f"sqlite:///{file}")) as catalog, pytest.raises(Away, match="not a data"):
        await catalog.read()


async def test_a_standby_is_away_until_it_is_promoted(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        await believe(catalog, known(endpoint()))
        standby(postgres_url, "on")
        with pytest.raises(Away, match="read-only"):
            await believe(catalog, known())
        standby(postgres_url, "off")
        assert await believe(catalog, known()) == 2


def standby(url: str, only_reads: str) -> None:
    """As a server behaves that is not the primary any more, or not yet."""
    database = make_url(url).database
    engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
    with closing(engine.connect()) as admin:
        admin.execute(text("set default_transaction_read_only = off"))
        admin.execute(
            text(f'alter database "{database}" set default_transaction_read_only = {only_reads}')
        )
    engine.dispose()
    kill_connections(url)


@pytest.mark.parametrize(
    "nowhere",
    ["sqlite:////nowhere/at/all.db", "postgresql+psycopg://nobody@127.0.0.1:9/nothing"],
)
async def test_a_database_that_is_not_there_is_away(nowhere: str) -> None:
    with closing(Catalog(nowhere)) as catalog, pytest.raises(Away):
        await catalog.read()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("mysql://somewhere", "neither sqlite nor postgresql"),
        ("sqlite://", "is a file"),
        ("meshfed.db", "neither sqlite:///FILE"),
    ],
)
def test_a_wrong_address_says_what_it_should_be(wrong: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Catalog(wrong)


async def test_a_catalog_on_a_file_is_private(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    with closing(Catalog(f"sqlite:///{file}")) as catalog, pytest.raises(Away, match="no such"):
        await catalog.read()
    assert file.stat().st_mode & 0o777 == 0o600


# Policies

LETS_IN = TrafficTarget(
    ObjectName("shop", "lets-in"),
    destination=WEB_ID,
    sources=frozenset({Identity("buyer", "shop")}),
    rules=(Rule("HTTPRouteGroup", "all"),),
)
ALL = RouteGroup(
    ObjectName("shop", "all"),
    (HttpMatch("all"), HttpMatch("some", "/a", frozenset({"GET"}), (("x", "y"),))),
)
SQL = TcpRoute(ObjectName("shop", "sql"), frozenset({3306, 5432}))
SPLIT = TrafficSplit(
    ObjectName("shop", "split"),
    WEB,
    (Backend(WEB, 1), Backend(ServiceName("w2", "shop"), 0)),
    ("all",),
)


def specified(*policies: Policy, source: str = "files:p", **given: Any) -> Specified:
    placed = tuple((policy, f"p/{policy.name.name}.yaml:1") for policy in policies)
    return Specified(source, placed, **given)


def refused(policy: Policy | None, kind: str, file: str) -> Any:
    return (policy.name if policy else None, kind, Rejected(f"{file}:1", "spec", "wrong"))


async def test_policies_are_read_back_by_kind_and_name(catalog: Catalog) -> None:
    assert await catalog.specify(specified(SPLIT, LETS_IN, SQL, ALL)) == 1
    assert (await catalog.read()).policies == (ALL, SQL, SPLIT, LETS_IN)
    assert await catalog.specify(specified(ALL, SQL, LETS_IN, SPLIT)) is None


async def test_a_policy_that_is_gone_from_its_source_is_gone(catalog: Catalog) -> None:
    await catalog.specify(specified(LETS_IN, ALL))
    before = await catalog.read()
    await catalog.specify(specified(ALL))
    newer, changed = await catalog.advance(before)
    assert newer.policies == (ALL,)
    assert changed.shape


async def test_a_source_that_cannot_be_read_changes_nothing_and_shows(
    catalog: Catalog, url: str
) -> None:
    await catalog.specify(specified(LETS_IN, ALL))
    assert await catalog.specify(specified(fault="no such folder")) is None
    assert (await catalog.read()).policies == (ALL, LETS_IN)
    providers = ask(url, "select type, state, doubt from mesh_providers")
    assert providers == [("specification", "doubted", "no such folder")]
    await catalog.specify(specified(LETS_IN, ALL))
    assert ask(url, "select state, doubt from mesh_providers") == [("good", "")]


@pytest.mark.parametrize(
    ("rejection", "stands"),
    [
        pytest.param(refused(LETS_IN, "TrafficTarget", "p/lets-in.yaml"), (ALL, LETS_IN),
                     id="what became wrong stays as it was"),
        pytest.param(refused(None, "", "p/lets-in.yaml"), (ALL, LETS_IN),
                     id="so does all of a file that is not YAML any more"),
        pytest.param(refused(None, "", "p/other.yaml"), (ALL,),
                     id="another file's mistake keeps nothing"),
        pytest.param(refused(SPLIT, "TrafficSplit", "p/split.yaml"), (ALL,),
                     id="nor does another object's"),
    ],
)  # fmt: skip
async def test_bad_input_loses_nothing(
    catalog: Catalog, url: str, rejection: Any, stands: tuple[Policy, ...]
) -> None:
    await catalog.specify(specified(LETS_IN, ALL))
    await catalog.specify(specified(ALL, rejected=(rejection,)))
    assert (await catalog.read()).policies == stands
    ((field, reason),) = ask(
        url, "select field, reason from mesh_policies where state = 'rejected'"
    )
    assert field == "spec"
    kept = LETS_IN in stands and rejection[0]
    assert reason.endswith("the previous version stays in force") == bool(kept)


async def test_of_two_sources_with_one_object_the_first_by_name_counts(
    catalog: Catalog, url: str
) -> None:
    other = dataclasses.replace(LETS_IN, sources=frozenset())
    await catalog.specify(specified(LETS_IN, source="files:b"))
    await catalog.specify(specified(other, source="files:a"))
    assert (await catalog.read()).policies == (other,)
    assert ask(url, "select source, state, reason from mesh_policies order by source") == [
        ("files:a", "accepted", ""),
        ("files:b", "shadowed", "files:a has the same object and comes first"),
    ]
    await catalog.specify(specified(source="files:a"))
    assert (await catalog.read()).policies == (LETS_IN,)


async def test_one_object_twice_in_a_source_is_the_first_and_a_rejection(
    catalog: Catalog, url: str
) -> None:
    twice = Specified("files:p", ((ALL, "a.yaml:1"), (ALL, "b.yaml:7")))
    await catalog.specify(twice)
    assert (await catalog.read()).policies == (ALL,)
    assert ask(url, "select reason from mesh_policies where state = 'rejected'") == [
        ("b.yaml:7: the same object stands at a.yaml:1: remove one of them",)
    ]


# Providers and operators


async def test_a_provider_that_fails_and_comes_back_is_told_once_each(
    catalog: Catalog, url: str
) -> None:
    await believe(catalog, known(endpoint()))
    for fault in ("timeout", "timeout", "", ""):
        await catalog.seen("rack", "hosts", "rack/a", fault=fault)
    told = ask(url, "select change from mesh_changes where what = 'provider' order by revision")
    assert [change for (change,) in told] == ["first seen", "failing: timeout", "answers again"]
    assert ask(url, "select state, reason from mesh_providers") == [("good", "")]
    assert (await catalog.read()).revision == 1


async def test_what_is_believed_while_a_provider_fails_does_not_tell_it_again(
    catalog: Catalog, url: str
) -> None:
    for fault in ("", "timeout", "timeout", ""):
        await believe(catalog, known(endpoint()))
        await catalog.seen("rack", "hosts", "rack/a", fault=fault)
        state, reason = ("failing", fault) if fault else ("good", "")
        assert ask(url, "select state, reason from mesh_providers") == [(state, reason)]
    told = ask(url, "select change from mesh_changes where what = 'provider' order by revision")
    assert [change for (change,) in told] == ["first seen", "failing: timeout", "answers again"]


async def test_orders_are_kept_and_wake_followers(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    await catalog.pause("rack", "ann")
    assert (await catalog.orders("rack")).paused
    assert ask(url, "select state from mesh_providers") == [("paused",)]
    await catalog.resume("rack", "ann")
    await catalog.accept("rack/a", "ann")
    orders = await catalog.orders("rack")
    assert (orders.paused, orders.accepted) == (False, {"rack/a"})
    told = ask(url, "select change, who from mesh_changes where who <> '' order by revision")
    assert told == [("paused", "ann"), ("resumed", "ann"), ("accepted", "ann")]
    assert (await catalog.read()).revision == 4


async def test_an_acceptance_is_used_up_by_the_belief_it_allowed(catalog: Catalog) -> None:
    doubted = known(endpoint(), doubt="half gone")
    await believe(catalog, doubted)
    await catalog.accept("rack/a", "ann")
    await believe(catalog, doubted)
    assert (await catalog.orders("rack")).accepted == {"rack/a"}
    await believe(catalog, known())
    assert (await catalog.orders("rack")).accepted == frozenset()


@pytest.mark.parametrize(
    "order",
    [
        lambda catalog: catalog.accept("rack/b", "ann"),
        lambda catalog: catalog.pause("azure", "ann"),
        lambda catalog: catalog.resume("files:p", "ann"),
    ],
)
async def test_an_order_about_nothing_names_what_there_is(
    catalog: Catalog, order: Callable[[Catalog], Any]
) -> None:
    await believe(catalog, known(endpoint()))
    await catalog.specify(specified(ALL))
    with pytest.raises(UnknownScope, match="there is rack"):
        await order(catalog)


# Proxies and certificates


def proxy(name: str = "p1", **given: Any) -> ProxyState:
    return ProxyState(
        **{"proxy": name, "identity": WEB_ID, "workload": "h1", "connected_since": 0.0} | given
    )


async def test_receipts_become_what_each_proxy_has(catalog: Catalog, url: str) -> None:
    await catalog.record("r1", 7, [proxy()], [], [Receipt("p1", "CDS", "v1", 1.0, 2.0)])
    await catalog.record("r1", 7, [], [], [Receipt("p1", "CDS", "v2", 3.0, 4.0, "no such thing")])
    sync = "select sent_version, acked_version, nack, acked_at, nack_at from mesh_proxy_sync"
    assert ask(url, sync) == [
        ("v2", "v1", "no such thing", "1970-01-01T00:00:02.000Z", "1970-01-01T00:00:04.000Z")
    ]
    await catalog.record("r1", 7, [], [], [Receipt("p1", "CDS", "v3", 5.0, 6.0)])
    assert ask(url, sync) == [("v3", "v3", None, "1970-01-01T00:00:06.000Z", None)]


async def test_a_proxy_that_moved_is_not_forgotten_by_the_replica_it_left(
    catalog: Catalog, url: str
) -> None:
    receipt = Receipt("p1", "CDS", "v1", 1.0, 2.0)
    clusters = (("web|80", "web.shop", 0, 3, "v1"),)
    await catalog.record("r1", 1, [proxy(clusters=clusters)], [], [receipt])
    await catalog.record("r2", 1, [proxy(state="behind", behind=1)], [], [])
    await catalog.record("r1", 1, [], ["p1"], [])
    assert ask(url, "select replica, state from mesh_proxies") == [("r2", "behind")]
    assert ask(url, "select cluster, endpoints from mesh_clusters") == [("web|80", 3)]
    await catalog.record("r2", 1, [], ["p1"], [])
    for view in ("mesh_proxies", "mesh_proxy_sync", "mesh_clusters"):
        assert ask(url, f"select * from {view}") == []


async def test_proxies_of_a_replica_that_says_nothing_are_silent(url: str) -> None:
    with closing(Catalog(url, clock=lambda: 0.0)) as catalog:
        await catalog.record("r1", 1, [proxy()], [], [])
    assert ask(url, "select state from mesh_proxies") == [("silent",)]


async def test_the_first_authority_that_is_kept_stands(catalog: Catalog, url: str) -> None:
    assert await catalog.authority() is None
    with closing(Catalog(url)) as other:
        kept = await asyncio.gather(
            catalog.keep_authority("one", b"1"), other.keep_authority("two", b"2")
        )
    assert kept[0] == kept[1] == await catalog.authority()
