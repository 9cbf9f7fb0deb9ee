"""History is kept as long as it is wanted, and taken away where nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from believing import ask, believe
from sqlalchemy import create_engine

from meshfed.catalog import past
from meshfed.catalog.model import (
    Changed,
    Endpoint,
    Identity,
    Known,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.moment import Moment, Unknown
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.prune import prune, prune_once

NOON = 1795435200.0  # 2026-11-23T12:00:00Z
WEB = ServiceName("web", "shop")
HOST = Workload("store-1", "rack", "rack/a", identity=Identity("store", "shop"))


def known(weight: int, count: int = 1) -> Known:
    endpoints = (
        Endpoint(WEB, 80, f"10.0.{n >> 8}.{n & 255}", 8080, HOST.id, "rack", "rack/a",
                 weight=weight, identity=HOST.identity)
        for n in range(count)
    )  # fmt: skip
    services = frozenset({Service(WEB, (Port(80),))})
    return Known("rack", "rack/a", services, frozenset({HOST}), frozenset(endpoints))


@pytest.fixture
async def lived(url: str) -> AsyncIterator[tuple[Catalog, list[float]]]:
    """Ten weights in ten minutes; the catalog, and its clock."""
    clock = [NOON]
    with closing(Catalog(url, clock=lambda: clock[0])) as catalog:
        await catalog.configure("shop.example", permissive=True)
        for weight in range(1, 11):
            clock[0] = NOON + 60 * weight
            await believe(catalog, known(weight))
        yield catalog, clock


def weight(url: str, at: float) -> tuple[int, int]:
    """The revision at a moment, and what the endpoint weighed."""

    def look(connection: Any, moment: Moment) -> tuple[int, int]:
        answer = past.listing(connection, "mesh_endpoints", "service")
        return moment.revision, answer.rows[0][answer.columns.index("weight")]

    return past.at(url, datetime.fromtimestamp(at, UTC), look)


def vacuumed(url: str, table: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with closing(engine.raw_connection()) as connection:
        connection.driver_connection.execute(f"vacuum {table}")
    engine.dispose()


async def test_what_is_pruned_is_only_what_ended_before(
    lived: tuple[Catalog, list[float]], url: str
) -> None:
    catalog, _ = lived
    before = NOON + 60 * 5 + 30
    assert await prune_once(catalog.prune, before) > 0
    assert await catalog.prune(before) == 0
    assert ask(url, "select count(*) from endpoints") == [(6,)]
    for minute in range(6, 11):
        assert weight(url, NOON + 60 * minute + 1) == (minute + 1, minute)
    assert weight(url, before) == (6, 5)  # what was in force at the boundary
    with pytest.raises(Unknown, match="beyond what is kept: history begins with revision 6"):
        weight(url, before - 1)


async def test_revisions_before_the_boundary_are_beyond_what_is_kept(
    lived: tuple[Catalog, list[float]], url: str
) -> None:
    catalog, _ = lived
    await prune_once(catalog.prune, NOON + 330)
    assert past.at(url, 6, lambda _, moment: moment.revision) == 6
    with pytest.raises(Unknown, match="revision 5 is beyond what is kept"):
        past.at(url, 5, lambda _, moment: moment)


async def test_who_was_away_for_longer_than_history_is_kept_has_nothing_that_left(
    url: str,
) -> None:
    clock = [NOON]
    with closing(Catalog(url, clock=lambda: clock[0])) as catalog:
        await catalog.configure("shop.example", permissive=True)
        await believe(catalog, known(1, count=5))
        held = await catalog.read()
        for minute, count in ((1, 3), (2, 4)):
            clock[0] = NOON + 60 * minute
            await believe(catalog, known(1, count=count))
        await prune_once(catalog.prune, NOON + 120)
        newest, changed = await catalog.advance(held)
        assert newest == await catalog.read()
        assert (changed.endpoints, changed.shape) == ({WEB}, True)


async def test_what_stands_stays_however_old_it_is(
    lived: tuple[Catalog, list[float]], url: str
) -> None:
    catalog, _ = lived
    before = await catalog.read()
    assert await prune_once(catalog.prune, NOON + 10**6) > 0
    assert await catalog.read() == before
    assert weight(url, NOON + 10**6) == (11, 10)
    assert ask(url,
               "select what, object from mesh_changes order by object") == [
        ("mesh", "permissive"), ("mesh", "trust_domain"),
        ("endpoint", "web.shop:80 at 10.0.0.0:8080"),  # by which the revision is known
    ]  # fmt: skip
    await believe(catalog, known(11))
    assert weight(url, NOON + 10**6 + 1) == (12, 11)


async def test_who_follows_a_mesh_that_stood_for_longer_reads_what_moved_alone(url: str) -> None:
    clock = [NOON]
    with closing(Catalog(url, clock=lambda: clock[0])) as catalog:
        await believe(catalog, known(1))
        held = await catalog.read()
        clock[0] += 3600  # a line under the revision that stands, which is younger than that
        await catalog.seen("rack", "hosts", "rack/a", fault="gone")
        assert ask(url, "select count(distinct at) from changes") == [(2,)]
        await prune_once(catalog.prune, NOON + 60)
        assert await catalog.read() == held
        clock[0] += 60
        more = known(1).services | {Service(ServiceName("api", "shop"), (Port(80),))}
        await believe(catalog, replace(known(1), services=more))
        newest, changed = await catalog.advance(held)
        assert newest == await catalog.read()
        assert (changed.endpoints, changed.shape) == (frozenset(), True)


async def test_a_revision_is_known_by_its_first_line_wherever_postgres_puts_the_next(
    postgres_url: str,
) -> None:
    clock = [NOON]
    with closing(Catalog(postgres_url, clock=lambda: clock[0])) as catalog:
        for weights in (1, 2):
            await believe(catalog, known(weights, count=200))
        clock[0] += 60
        await believe(catalog, known(3))
        held = await catalog.read()
        await prune_once(catalog.prune, NOON)
        vacuumed(postgres_url, "changes")  # what is told next goes to where the old lines were
        clock[0] += 60
        await catalog.seen("rack", "hosts", "rack/a", fault="gone")
        assert ask(postgres_url, "select change from changes order by ctid limit 1") == [
            ("failing: gone",)
        ]
        assert await catalog.advance(held) == (held, Changed())


async def test_a_catalog_that_is_away_is_pruned_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfed.federation.prune.EVERY", 0.001)
    file = tmp_path / "late.db"
    with closing(Catalog(f"sqlite:///{file}")) as catalog:
        pruning = asyncio.create_task(prune(catalog, timedelta(0), timedelta(0)))
        await asyncio.sleep(0.02)  # tables that are not there are a catalog that is away
        await asyncio.to_thread(migrate, f"sqlite:///{file}")
        await catalog.configure("shop.example", permissive=False)
        for weights in range(1, 4):
            await believe(catalog, known(weights))
        async with asyncio.timeout(10):
            while len(ask(f"sqlite:///{file}", "select id from endpoints")) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        pruning.cancel()


async def test_a_step_is_small(lived: tuple[Catalog, list[float]], url: str) -> None:
    catalog, clock = lived
    for weights in (20, 21):
        clock[0] += 60
        await believe(catalog, known(weights, 900))
    clock[0] += 60
    assert await catalog.prune(clock[0]) == 200


async def test_writers_come_in_between(lived: tuple[Catalog, list[float]], url: str) -> None:
    catalog, clock = lived
    for weights in (20, 21):
        await believe(catalog, known(weights, 500))
    clock[0] += 3600
    pruning = asyncio.create_task(prune_once(catalog.prune, clock[0]))
    for weights in (22, 23, 24):
        await believe(catalog, known(weights))
    assert not pruning.done()
    assert await pruning > 500
