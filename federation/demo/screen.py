"""What a person sees of the demo: a live table while it runs, and what it measured at the end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from meshfed.federation.demo.measure import VERSIONS, Edit, Measured, Phase, begun, tally, whole

REFRESHED_EVERY = 0.25  # seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the demo stands."""

    act: str
    tally: Counter[tuple[str, str, str]]
    in_sync: int = 0
    proxies: int = 0
    change: str = ""
    last: Edit | None = None


def took(edit: Edit) -> str:
    return f"{edit.edit_to_ack_ms:.0f} ms to all ({edit.propagation_ms:.1f} from commit)"


def live(now: Progress) -> Table:
    """The table while the demo runs; counts are totals since it began."""
    table = Table(title=now.act, title_justify="left", show_header=False, min_width=72)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for row in live_rows(now):
        table.add_row(*row)
    return table


def live_rows(now: Progress) -> tuple[tuple[str, str, str], ...]:
    bought = {version: now.tally["bookbuyer", "bookstore", version] for version in VERSIONS}
    thief = Counter[tuple[str, str]]()
    for (account, path, outcome), count in now.tally.items():
        if account == "bookthief":
            thief[path, outcome] += count
    return (
        ("bookbuyer", f"bought at {VERSIONS[0]}", str(bought[VERSIONS[0]])),
        ("", f"bought at {VERSIONS[1]}", str(bought[VERSIONS[1]])),
        ("", "failed", str(now.tally["bookbuyer", "bookstore", "failed"])),
        ("bookthief", "refused at home", str(thief["sidecar", "denied"])),
        ("", "refused by bookstores", str(thief["store", "denied"])),
        ("", "refused by the ledger", str(thief["ledger", "denied"])),
        ("", "allowed", str(sum(n for (_, outcome), n in thief.items() if outcome == "allowed"))),
        ("bookwarehouse", "entries in ledger", str(now.tally["bookwarehouse", "ledger", "ok"])),
        ("proxies", "in sync", f"{now.in_sync} of {now.proxies}"),
        ("last change", now.change or "none yet", took(now.last) if now.last else ""),
    )


def summary(run: Measured) -> Table:
    """The table at the end."""
    edits = (None, *run.splits)
    table = Table("", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in (*VERSIONS, "failed", "denied", "by store", "to all"):
        table.add_column(heading, justify="right")
    for phase, edit in zip(run.phases, edits, strict=True):
        table.add_row(*phase_row(run, phase), f"{edit.edit_to_ack_ms:.0f} ms" if edit else "")
    table.add_row(*removal_row(run), f"{run.removal.edit.edit_to_ack_ms:.0f} ms")
    table.caption = (
        f"{run.proxies} proxies, {run.handshakes} mutual TLS handshakes,"
        f" {tally(run.warehouse, 'ledger')['ok']} entries in the ledger"
    )
    return table


def phase_row(run: Measured, phase: Phase) -> tuple[str, ...]:
    sold = tally(whole(run.buyer, phase.applied, phase.until), "bookstore")
    failed = tally(begun(run.buyer, phase.since, phase.until), "bookstore")["failed"]
    denied = tally(begun(run.thief, phase.since, phase.until), "sidecar")["denied"]
    counts = (*(sold[version] for version in VERSIONS), failed, denied, phase.refused)
    return ("{}/{}".format(*phase.weights), *map(str, counts))


def removal_row(run: Measured) -> tuple[str, ...]:
    edit, until = run.removal.edit, run.removal.until
    sold = tally(whole(run.buyer, edit.applied, until), "bookstore")
    failed = tally(begun(run.buyer, edit.renamed, until), "bookstore")["failed"]
    return ("one less", *map(str, (*(sold[version] for version in VERSIONS), failed)), "", "")


class Screen:
    """Shows progress: as a table that lives on a terminal, else as a line for each act."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self.console = console
        self.lively = console.is_terminal and not quiet
        self.aside = Console(stderr=True)

    def act(self, text: str) -> None:
        if not self.lively:
            self.aside.print(text, highlight=False)

    @asynccontextmanager
    async def following(self, now: Callable[[], Awaitable[Table]]) -> AsyncIterator[None]:
        """Redraw meanwhile."""
        following = asyncio.create_task(self.follow(now))
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def follow(self, now: Callable[[], Awaitable[Table]]) -> None:
        """Redraw until cancelled."""
        if not self.lively:
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as shown:
            while True:
                shown.update(await now(), refresh=True)
                await asyncio.sleep(REFRESHED_EVERY)
