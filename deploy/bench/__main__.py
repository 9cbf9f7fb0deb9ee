"""`make bench`: how fast this machine is at what a mesh waits for. A program, not a test."""

import asyncio
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from cold import Cold, cold
from figures import Figure, shown, told
from history import Growth, history
from inside import inside
from joins import Joins
from leases import Leases, joined_and_renewed
from propagation import propagation
from readiness import readiness
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scale import Scale, both, reference, rows

from meshfed.federation.admin.logs import configure
from meshfed.federation.demo.processes import Broken


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


SUSTAINED = 60.0  # seconds
OFTEN = 5  # times as many, where a 99th percentile must be reached
RENEWED = 40.0  # seconds
ON_SQLITE = "sqlite:///meshfed.db"
STARTS = 3  # of a control plane with twice the endpoints


@dataclass(frozen=True, slots=True)
class Large:
    """What many endpoints cost."""

    databases: list[Scale]
    start: Cold


@dataclass(frozen=True, slots=True)
class Machines:
    """What machines that join cost."""

    joins: Joins
    leases: Leases

    @property
    def figures(self) -> list[Figure]:
        return [*self.joins.figures(), *self.leases.figures()]

    def told(self) -> dict[str, object]:
        return {"joins": self.joins.told(), "leases": self.leases.told()}


async def measured(proxies: int, times: int) -> tuple[list[Figure], Growth]:
    with tempfile.TemporaryDirectory(prefix="meshfed-bench-") as name:
        parts = await inside(Path(name), times)
        whole = await propagation(Path(name), proxies, times)
        with tempfile.TemporaryDirectory(dir=name) as cluster:
            whole += await readiness(Path(cluster), proxies, OFTEN * times)
        return [*whole, *parts], await history(f"sqlite:///{name}/history.db")


async def large(endpoints: int, times: int) -> Large:
    databases = await both(endpoints, 10 * times, SUSTAINED)
    with tempfile.TemporaryDirectory(prefix="meshfed-bench-") as name:
        return Large(databases, await cold(Path(name), 2 * endpoints, STARTS))


async def joining(machines: int) -> Machines:
    with tempfile.TemporaryDirectory(prefix="meshfed-bench-") as name:
        return Machines(*await joined_and_renewed(Path(name), ON_SQLITE, machines, RENEWED))


def machine() -> str:
    python = f"Python {platform.python_version()}"
    # Others' work on the same cores is in every figure.
    busy = (
        f"load {os.getloadavg()[0]:.1f} before, a million additions in {reference():.1f} ms of CPU"
    )
    return f"{os.cpu_count()} cores, {busy}, {platform.system()} {platform.release()}, {python}"


def table(figures: list[Figure]) -> Table:
    made = Table(box=SIMPLE_HEAD)
    made.add_column("what, and how it was measured", overflow="fold")
    for name in ("median", "p95", "p99", "times"):
        made.add_column(name, justify="right", no_wrap=True)
    for each in figures:
        times = str(len(each.milliseconds))
        what = f"{each.what}\n[dim]{each.how}[/dim]"
        made.add_row(what, shown(each.median), shown(each.p95), shown(each.p99), times)
    return made


def requirements(found: Large) -> Table:
    made = Table(box=SIMPLE_HEAD)
    made.add_column("what", overflow="fold")
    for one in found.databases:
        made.add_column(one.database, justify="right")
        made.add_column("must", justify="right")
    for lines in zip(*map(rows, found.databases), strict=True):
        made.add_row(lines[0][0], *(each for _, *line in lines for each in line))
    start = found.start
    taken = f"{start.clusters:.1f} s to the first answer, {start.all_endpoints:.1f} s to all"
    made.add_row(f"cold start with {start.endpoints:,} endpoints", taken, "≤ 8 s", "", "")
    return made


def bench(
    proxies: Annotated[int, typer.Option(min=1, help="Connected proxies.")] = 100,
    times: Annotated[int, typer.Option(min=5, help="How often everything is measured.")] = 20,
    endpoints: Annotated[
        int, typer.Option(help="Of a large catalog, on both databases: takes six minutes more.")
    ] = 0,
    machines: Annotated[
        int, typer.Option(help="That join, and renew their leases: 5,000 take three minutes more.")
    ] = 0,
    output: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> None:
    """Measure propagation through a real control plane, and the parts by themselves.

    Example: make bench ARGS="--endpoints 100000 -o json"
    """
    configure()
    progress, where = Console(stderr=True), machine()
    with progress.status(
        f"measuring on {where}; {'some minutes' if endpoints or machines else 'a minute'}"
    ):
        try:
            figures, growth = asyncio.run(measured(proxies, times))
            much = asyncio.run(large(endpoints, times)) if endpoints else None
            many = asyncio.run(joining(machines)) if machines else None
        except* Broken as broken:
            print(*broken.exceptions, sep="\n", file=sys.stderr)
            raise typer.Exit(1) from None
    if output is Format.JSON:
        said = [told(each) for each in figures]
        found = {"machine": where, "figures": said, "history": asdict(growth)}
        found |= {"large": asdict(much)} if much else {}
        found |= {"machines": many.told()} if many else {}
        print(json.dumps(found, indent=2))
    else:
        console = Console()
        console.print(table(figures))
        console.print(str(growth), highlight=False, soft_wrap=True)
        if much:
            console.print(requirements(much))
        if many:
            console.print(table(many.figures))
            console.print(str(many.joins), str(many.leases), sep="\n", highlight=False)
        console.print(where, style="dim")


if __name__ == "__main__":
    typer.run(bench)
