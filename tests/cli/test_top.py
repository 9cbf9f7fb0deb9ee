"""How many calls go where: rates of what the catalog says, and what is said when it is silent."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from meshfed.catalog import traffic
from meshfed.catalog.store import Catalog
from meshfed.federation.cli.top import Counted, Edge, Look, Rate, before, rates, since, table
from meshfed.federation.minutes import beginning

Run = Callable[..., Any]  # how it ended: code, out, err, lines

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
STORE = Edge("buyer.shop", "store.shop", "", "vm", "eu/1")
LEDGER = STORE._replace(service="ledger.shop")


def look(seconds: float, **minutes: tuple[int, int, int]) -> Look:
    """`look(70, m0=(600, 6, 0), m1=(100, 0, 2))`: what was said of store.shop by then."""
    counted = {(STORE, minute): Counted(*counts) for minute, counts in minutes.items()}
    return Look(NOON + timedelta(seconds=seconds), counted)


def test_at_first_it_is_of_this_minute_and_the_one_before() -> None:
    now = look(90, m0=(600, 6, 0), m1=(300, 3, 2))
    assert since(now.at) == NOON
    assert rates(before(deque(), now), now) == {STORE: Rate(10.0, 99.0, 2)}


def test_then_it_is_of_what_happened_since_an_earlier_look() -> None:
    earlier, now = look(45, m0=(500, 0, 9)), look(70, m0=(560, 6, 9), m1=(65, 4, 1))
    assert rates(before(deque([earlier]), now), now) == {STORE: Rate(5.0, 92.0, 1)}


def test_a_look_of_a_moment_ago_is_no_measure() -> None:
    earlier, now = look(69, m0=(600, 0, 0)), look(70, m0=(700, 0, 0))
    assert before(deque([earlier]), now) == Look(NOON, {})


def test_where_nothing_ended_there_is_no_success_to_speak_of() -> None:
    earlier, now = look(50, m0=(500, 5, 3)), look(70, m0=(500, 5, 3))
    assert rates(earlier, now) == {STORE: Rate(0.0, None, 3)}


def test_the_busiest_come_first() -> None:
    counted = {(STORE, "m"): Counted(1, 0, 0), (LEDGER, "m"): Counted(2, 0, 0)}
    assert [*rates(look(0), Look(NOON + timedelta(minutes=1), counted))] == [LEDGER, STORE]


def test_a_name_cannot_speak_to_the_terminal() -> None:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(table({STORE._replace(zone="\x1b[2J[red]"): Rate(1, 50, 0)}, ""))
    assert "\\x1b[2J[red]" in captured.get()


def test_it_is_printed_once_in_every_format(url: str, meshfed: Run) -> None:
    async def fill() -> None:
        edge = traffic.Edge("buyer.shop", "store.shop", "store-v1.shop", "vm", "eu/1")
        with closing(Catalog(url)) as catalog:
            await catalog.count("one", {(beginning(time.time()), edge): traffic.Load(600, 60, 3)})

    asyncio.run(fill())
    ended = meshfed("top", "-o", "json")
    (row,) = json.loads(ended.out)
    assert 600 / 121 <= row.pop("requests_per_second") <= 600 / 60  # of 60 to 120 s
    assert row == {
        "source_identity": "buyer.shop",
        "service": "store.shop",
        "version": "store-v1.shop",
        "platform": "vm",
        "zone": "eu/1",
        "success_percent": 90.0,
        "in_flight": 3,
    }
    for shape in ("table", "csv", "yaml"):
        assert "store-v1.shop" in meshfed("top", "-o", shape, "--catalog", url).out
    assert "store-v1.shop" in meshfed("top").out  # no terminal: nothing to redraw


def test_where_nobody_calls_it_says_where_calls_would_come_from(url: str, meshfed: Run) -> None:
    ended = meshfed("top")
    assert (ended.code, ended.out) == (0, "")
    assert ended.lines == [
        "no calls in the last minute: sidecars report them, see `meshfed get proxies`"
    ]
    assert json.loads(meshfed("top", "-o", "json").out) == []


def test_a_catalog_that_is_not_there_is_named(meshfed: Run) -> None:
    ended = meshfed("top", "--catalog", "sqlite:///nowhere.db")
    assert ended.code == 1
    assert "there is no catalog here" in ended.err
