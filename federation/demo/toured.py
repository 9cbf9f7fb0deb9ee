"""What a person sees of the story of platforms: a live table, and what it measured at the end."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from meshfed.federation.demo.folder import Host
from meshfed.federation.demo.outages import Outage, Toured, outage, sold_by_platform
from meshfed.federation.demo.platforms import ROWS

HEADINGS = ("endpoints", "answered", "ejected in", "failed", "after it", "removed in")


def live(
    act: str,
    tally: Counter[tuple[str, str, str]],
    sellers: Mapping[str, Sequence[Host]],
    in_sync: int,
) -> Table:
    """The table while it runs; counts are totals since it began."""
    table = Table(title=act, title_justify="left", show_header=False, min_width=72)
    for _ in range(3):
        table.add_column(no_wrap=True)
    for platform, there in sellers.items():
        for number, host in enumerate(there):
            sold = tally["bookbuyer", "bookstore", host.name]
            table.add_row("" if number else platform, host.name, str(sold))
    table.add_row("bookbuyer", "failed", str(tally["bookbuyer", "bookstore", "failed"]))
    table.add_row("proxies", "in sync", str(in_sync))
    return table


def summary(run: Toured) -> Table:
    """The table at the end: a line for each platform, and for its outage."""
    table = Table("", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for one in run.outages:
        table.add_row(*row(run, one))
    table.caption = (
        f"{run.proxies} proxies, one service on {len(run.sellers)} platforms; each lost its power"
        " once.\nFailed: requests until the bookbuyer's Envoy had ejected its machines."
    )
    return table


def row(run: Toured, one: Outage) -> tuple[str, ...]:
    sold, said = sold_by_platform(run), outage(run, one)
    share = 100 * sold[one.platform] / max(1, sum(sold.values()))
    return (
        one.platform,
        str(run.endpoints.get(ROWS[one.platform], 0)),
        f"{share:.0f} %",
        f"{said['ejected_ms']:.0f} ms",
        str(said["failed_before_ejection"]),
        str(said["failed_after_ejection"]),
        f"{said['removed_ms']:.0f} ms",
    )
