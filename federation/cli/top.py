"""`meshfed top`: how many calls go where now, and how many of them succeed."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import (
    CONTROL,
    Cells,
    Finding,
    Format,
    rendered,
    say,
    terminal_width,
    write,
)

if TYPE_CHECKING:
    from rich.table import Table

    from meshfed.catalog.reader import Answer

BEAT = 1.0  # seconds between two looks at the catalog
SPAN = timedelta(seconds=30)  # of which a rate is; what sidecars report is written within 12 s
LEAST = timedelta(seconds=20)  # … and as long as there are less than these, of the last minutes
MINUTE = timedelta(minutes=1)

NONE = "no calls in the last minute: sidecars report them, see `meshfed get proxies`"


class Edge(NamedTuple):
    source_identity: str
    service: str
    version: str
    platform: str
    zone: str


class Counted(NamedTuple):
    """Of one edge in one minute."""

    requests: int
    failed: int
    in_flight: int


class Rate(NamedTuple):
    """How an edge fares."""

    requests_per_second: float
    success_percent: float | None  # None: nothing ended
    in_flight: int


COLUMNS = (*Edge._fields, *Rate._fields)
TITLES = ("SOURCE", "SERVICE", "VERSION", "PLATFORM", "ZONE", "REQ/S", "SUCCESS", "IN FLIGHT")


@dataclass(frozen=True, slots=True)
class Look:
    """What the catalog said of this minute and the one before it."""

    at: datetime
    counted: Mapping[tuple[Edge, str], Counted]  # by edge and minute


def since(at: datetime) -> datetime:
    """The beginning of the minute before."""
    return at.replace(second=0, microsecond=0) - MINUTE


def before(looks: "deque[Look]", now: Look) -> Look:
    """The first look of the span; else nothing, as of the beginning of the minute before."""
    if looks and now.at - looks[0].at >= LEAST:
        return looks[0]
    return Look(since(now.at), {})


def rates(earlier: Look, now: Look) -> dict[Edge, Rate]:
    """What happened between two looks, the busiest first."""
    seconds = (now.at - earlier.at).total_seconds()
    found: dict[Edge, Counted] = {}
    for (edge, minute), load in sorted(now.counted.items()):
        was = earlier.counted.get((edge, minute), Counted(0, 0, 0))
        sums = found.get(edge, Counted(0, 0, 0))
        requests, failed = load.requests - was.requests, load.failed - was.failed
        # Of several minutes the last one says what is under way.
        found[edge] = Counted(sums.requests + requests, sums.failed + failed, load.in_flight)
    made = {edge: rate(counted, seconds) for edge, counted in found.items()}
    return dict(sorted(made.items(), key=lambda each: (-each[1].requests_per_second, each[0])))


def rate(counted: Counted, seconds: float) -> Rate:
    success = None
    if counted.requests > 0:
        success = round(100 * (1 - counted.failed / counted.requests), 2)
    return Rate(round(counted.requests / seconds, 2), success, counted.in_flight)


def table(shown: Mapping[Edge, Rate], caption: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", caption=caption)
    for title in TITLES:
        made.add_column(title, justify="right" if title in TITLES[len(Edge._fields) :] else "left")
    for edge, each in shown.items():
        success = each.success_percent
        style = "" if success is None or success >= 99 else "yellow" if success >= 95 else "red"
        made.add_row(
            *(Text(cell.translate(CONTROL)) for cell in edge),
            f"{each.requests_per_second:.1f}",
            Text("" if success is None else f"{success:.2f} %", style),
            str(each.in_flight),
        )
    return made


def top(
    output: Annotated[
        Format | None,
        typer.Option(
            "-o", "--output", help="Print it once, like this, and end.", show_default=False
        ),
    ] = None,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Requests per second and success rate from whom to where, live; -o prints it once.

    Live it is of the last 30 seconds, at most 12 late; once, of this minute and the one before it.

    Example: meshfed top -o json
    """
    from meshfed.federation.cli.source import catalog_url

    url = catalog_url(catalog, config)
    if output is None and sys.stdout.isatty():
        with suppress(KeyboardInterrupt):
            _live(url)
        return
    now = _look(url)
    shown = rates(before(deque(), now), now)
    rows: list[Cells] = [(*edge, *each) for edge, each in shown.items()]
    shape = output or Format.TABLE
    if rows or shape is not Format.TABLE:
        write(rendered(COLUMNS, rows, shape, terminal_width()))
    if not rows:
        say(NONE)


def _live(url: str) -> None:
    from rich.console import Console
    from rich.live import Live

    screens = _screens(url)
    with Live(next(screens), console=Console(), screen=True, auto_refresh=False) as screen:
        for each in screens:
            screen.update(each, refresh=True)


def _screens(url: str) -> Iterator["Table"]:
    """One after each look; a catalog that is away is said below what was known before."""
    looks: deque[Look] = deque()
    shown: Mapping[Edge, Rate] = {}
    while True:
        caption = ""
        try:
            now = _look(url)
        except Finding as finding:
            if not looks:  # wrong from the start
                raise
            caption = str(finding)
        else:
            shown = rates(before(looks, now), now)
            caption = "" if shown else NONE
            looks.append(now)
            while now.at - looks[0].at > SPAN:
                looks.popleft()
        yield table(shown, caption)
        time.sleep(BEAT)


def _look(url: str) -> Look:
    from meshfed.catalog.times import stamp
    from meshfed.federation.cli.source import rows

    at = datetime.now(UTC)
    names = ", ".join((*Edge._fields, "minute", *Counted._fields))
    asked = f"select {names} from mesh_traffic where minute >= '{stamp(since(at).timestamp())}'"
    return Look(at, _counted(rows(url, asked)))


def _counted(answer: "Answer") -> dict[tuple[Edge, str], Counted]:
    width = len(Edge._fields)
    return {
        (Edge(*row[:width]), str(row[width])): Counted(*map(int, row[width + 1 :]))
        for row in answer.rows
    }
