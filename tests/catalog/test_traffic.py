"""How many calls went where: written as sums by each replica, asked for as one, and forgotten."""

from meshfed.catalog.database import stamp
from meshfed.catalog.prune import MOST
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.catalog.traffic import Edge, Load
from meshfed.federation.prune import prune_once

NOON = 1795435200.0  # 2026-11-23T12:00:00Z
FIRST, SECOND = stamp(NOON), stamp(NOON + 60)
STORE = Edge("buyer.shop", "store.shop", "store-v1.shop", "vm", "eu/1")


def rows(url: str) -> list[tuple[object, ...]]:
    answer = query(url, "select * from mesh_traffic order by minute, service")
    assert answer.columns == ("minute", *Edge._fields, *Load._fields)
    return list(answer.rows)


async def test_to_write_a_sum_twice_is_to_write_it_once(url: str, catalog: Catalog) -> None:
    for _ in range(2):
        await catalog.count("one", {(FIRST, STORE): Load(5, 1, 2)})
    assert rows(url) == [(FIRST, *STORE, 5, 1, 2)]
    await catalog.count("one", {(FIRST, STORE): Load(9, 2, 0), (SECOND, STORE): Load(1, 0, 0)})
    assert rows(url) == [(FIRST, *STORE, 9, 2, 0), (SECOND, *STORE, 1, 0, 0)]


async def test_replicas_are_added_up(url: str, catalog: Catalog) -> None:
    for replica in ("one", "two", "three"):
        await catalog.count(replica, {(FIRST, STORE): Load(5, 1, 2)})
    assert rows(url) == [(FIRST, *STORE, 15, 3, 6)]
    await catalog.forget(["one"])  # it is gone; what it counted was counted
    assert rows(url) == [(FIRST, *STORE, 15, 3, 6)]


async def test_many_rows_at_once_are_all_there(url: str, catalog: Catalog) -> None:
    edges = [STORE._replace(service=f"s-{n}.shop") for n in range(500)]
    await catalog.count("one", {(FIRST, edge): Load(1, 0, 0) for edge in edges})
    await catalog.count("one", {(FIRST, edge): Load(2, 0, 0) for edge in edges})
    assert sum(int(str(row[6])) for row in rows(url)) == 1000


async def test_large_numbers_stay_whole(url: str, catalog: Catalog) -> None:
    most = 2**53
    for replica in ("one", "two"):
        await catalog.count(replica, {(FIRST, STORE): Load(most, most, most)})
    assert rows(url) == [(FIRST, *STORE, 2 * most, 2 * most, 2 * most)]


async def test_old_minutes_are_taken_away_a_few_at_a_time(url: str, catalog: Catalog) -> None:
    edges = [STORE._replace(service=f"s-{n}.shop") for n in range(MOST + 50)]
    await catalog.count("one", {(FIRST, edge): Load(1, 0, 0) for edge in edges})
    await catalog.count("one", {(SECOND, STORE): Load(1, 0, 0)})
    assert await catalog.prune_traffic(NOON) == 0
    assert await catalog.prune_traffic(NOON + 60) == MOST
    assert await prune_once(catalog.prune_traffic, NOON + 60) == 50
    assert rows(url) == [(SECOND, *STORE, 1, 0, 0)]
