"""`make bench`: how fast this machine is at what a mesh waits for. A program, not a test."""

import asyncio
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from figures import Figure, shown, told
from history import Growth, history
from inside import inside
from propagation import propagation
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from meshfed.federation.admin.logs import configure
from meshfed.federation.demo.processes import Broken


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


async def measured(proxies: int, times: int) -> tuple[list[Figure], Growth]:
    with tempfile.TemporaryDirectory(prefix="meshfed-bench-") as name:
        parts = await inside(Path(name), times)
        whole = await propagation(Path(name), proxies, times)
        return [*whole, *parts], await history(f"sqlite:///{name}/history.db")


def machine() -> str:
    python = f"Python {platform.python_version()}"
    # Others' work on the same cores is in every figure.
    busy = f"load {os.getloadavg()[0]:.1f} before"
    return f"{os.cpu_count()} cores, {busy}, {platform.system()} {platform.release()}, {python}"


def table(figures: list[Figure]) -> Table:
    made = Table(box=SIMPLE_HEAD)
    made.add_column("what, and how it was measured", overflow="fold")
    for name in ("median", "p95", "times"):
        made.add_column(name, justify="right", no_wrap=True)
    for each in figures:
        times = str(len(each.milliseconds))
        what = f"{each.what}\n[dim]{each.how}[/dim]"
        made.add_row(what, shown(each.median), shown(each.p95), times)
    return made


def bench(
    proxies: Annotated[int, typer.Option(min=1, help="Connected proxies.")] = 100,
    times: Annotated[int, typer.Option(min=5, help="How often everything is measured.")] = 20,
    output: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> None:
    """Measure propagation through a real control plane, and the parts by themselves.

    Example: make bench ARGS="--proxies 300 -o json"
    """
    configure()
    progress, where = Console(stderr=True), machine()
    with progress.status(f"measuring on {where}; about a minute"):
        try:
            figures, growth = asyncio.run(measured(proxies, times))
        except* Broken as broken:
            print(*broken.exceptions, sep="\n", file=sys.stderr)
            raise typer.Exit(1) from None
    if output is Format.JSON:
        said = [told(each) for each in figures]
        print(json.dumps({"machine": where, "figures": said, "history": asdict(growth)}, indent=2))
    else:
        console = Console()
        console.print(table(figures))
        console.print(str(growth), highlight=False, soft_wrap=True)
        console.print(where, style="dim")


if __name__ == "__main__":
    typer.run(bench)
