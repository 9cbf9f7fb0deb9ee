"""`meshfed demo`: a story in a folder of its own, told on a screen; nothing of it stays."""

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from meshfed.federation.demo import envoys, inventories, outages
from meshfed.federation.demo import proxyless as balancing
from meshfed.federation.demo.folder import furnish
from meshfed.federation.demo.measure import Json, findings, result
from meshfed.federation.demo.platforms import HOSTS
from meshfed.federation.demo.processes import Broken, Processes
from meshfed.federation.demo.screen import Screen, summary
from meshfed.federation.demo.story import Story
from meshfed.federation.demo.tour import Tour
from meshfed.federation.demo.toured import summary as toured_summary

SECONDS = 60.0  # unless told otherwise
T = TypeVar("T")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Somebody has seen enough."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to say at the end."""

    said: Json
    table: Table
    findings: tuple[str, ...]


def run(
    seconds: float | None = None,
    output: str = "table",
    platforms: tuple[str, ...] = (HOSTS,),
    *,
    grpc: bool = False,
) -> int:
    """Play it for about so long; 0 when every promise was kept, else 1 and a line for each."""
    if output not in ("table", "json"):
        return fail("the demo prints a table or json", code=2)
    if not sys.platform.startswith("linux"):
        return fail("the demo needs Linux: each host has a loopback address of its own, 127.0.1.x")
    screen = Screen(Console(), quiet=output == "json")
    deadline = time.monotonic() + (SECONDS if seconds is None else seconds)
    try:
        playing = proxyless if grpc else partial(sidecars, platforms, envoys.binary())
        told = asyncio.run(stoppable(tell(partial(playing, deadline), screen)))
    except (Broken, envoys.NoEnvoy) as why:
        return fail(str(why))
    except Stopped as stopped:
        return 128 + stopped.number
    if output == "json":
        print(json.dumps(told.said, indent=2))
    else:
        screen.console.print(told.table)
    return fail(*told.findings) if told.findings else 0


def fail(*lines: str, code: int = 1) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code


async def stoppable(telling: Coroutine[None, None, T]) -> T:
    """Until a signal says otherwise: then it is cancelled, and takes everything down. Stopped."""
    task, caught = asyncio.current_task(), list[int]()
    assert task is not None, "a coroutine runs in a task"

    def stop(number: int) -> None:
        if not caught:  # pressing Ctrl-C again does not interrupt the taking down
            caught.append(number)
            task.cancel()

    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await telling
    except asyncio.CancelledError:
        if caught:
            raise Stopped(caught[0]) from None
        raise


async def tell(play: Callable[[Processes, Screen], Awaitable[Told]], screen: Screen) -> Told:
    """Play a story in a private folder, and leave neither process nor file. Raises Broken."""
    with tempfile.TemporaryDirectory(prefix="meshfed-demo-") as name:
        try:
            async with asyncio.TaskGroup() as tasks:
                processes = Processes(Path(name), tasks)
                try:
                    return await play(processes, screen)
                finally:
                    await processes.stop_all()
        except ExceptionGroup as group:
            broken = group.subgroup(Broken)
            if broken is None:
                raise
            raise first(broken) from None  # the other errors follow from it


async def sidecars(
    platforms: tuple[str, ...], envoy: Path, deadline: float, processes: Processes, screen: Screen
) -> Told:
    if platforms == (HOSTS,):
        return await bookstore(envoy, deadline, processes, screen)
    return await tour(platforms, envoy, deadline, processes, screen)


async def bookstore(envoy: Path, deadline: float, processes: Processes, screen: Screen) -> Told:
    story = Story(furnish(processes.folder), envoy, deadline, processes, screen)
    async with screen.following(story.shown):
        measured = await story.tell()
    return Told(result(measured), summary(measured), findings(measured))


async def tour(
    platforms: tuple[str, ...], envoy: Path, deadline: float, processes: Processes, screen: Screen
) -> Told:
    folder, more = await inventories.furnish(processes.folder, platforms, processes)
    story = Tour(folder, platforms, envoy, deadline, processes, screen)
    async with screen.following(story.shown):
        toured = await story.tell(more)
    return Told(outages.result(toured), toured_summary(toured), outages.findings(toured))


async def proxyless(deadline: float, processes: Processes, screen: Screen) -> Told:
    folder, more = await inventories.furnish(
        processes.folder, balancing.PROVIDERS, processes, balancing.SOURCE
    )
    story = balancing.Proxyless(folder, deadline, processes, screen)
    async with screen.following(story.shown):
        balanced = await story.tell(more)
    return Told(
        balancing.result(balanced), balancing.summary(balanced), tuple(balancing.findings(balanced))
    )


def first(group: ExceptionGroup[Broken]) -> Broken:
    error = group.exceptions[0]
    return first(error) if isinstance(error, ExceptionGroup) else error
