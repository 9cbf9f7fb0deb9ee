"""`meshfed demo`: the story in a folder of its own, told on a screen; nothing of it stays."""

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

from rich.console import Console

from meshfed.federation.demo import envoys
from meshfed.federation.demo.folder import furnish
from meshfed.federation.demo.measure import Measured, findings, result
from meshfed.federation.demo.processes import Broken, Processes
from meshfed.federation.demo.screen import Screen, summary
from meshfed.federation.demo.story import Story

SECONDS = 60.0  # unless told otherwise
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Somebody has seen enough."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run(seconds: float | None = None, output: str = "table") -> int:
    """Play it for about so long; 0 when every promise was kept, else 1 and a line for each."""
    if output not in ("table", "json"):
        return fail("the demo prints a table or json", code=2)
    if not sys.platform.startswith("linux"):
        return fail("the demo needs Linux: each host has a loopback address of its own, 127.0.1.x")
    screen = Screen(Console(), quiet=output == "json")
    deadline = time.monotonic() + (SECONDS if seconds is None else seconds)
    try:
        measured = asyncio.run(stoppable(told(envoys.binary(), deadline, screen)))
    except (Broken, envoys.NoEnvoy) as why:
        return fail(str(why))
    except Stopped as stopped:
        return 128 + stopped.number
    if output == "json":
        print(json.dumps(result(measured), indent=2))
    else:
        screen.console.print(summary(measured))
    found = findings(measured)
    return fail(*found) if found else 0


def fail(*lines: str, code: int = 1) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code


async def stoppable(telling: Coroutine[None, None, Measured]) -> Measured:
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


async def told(envoy: Path, deadline: float, screen: Screen) -> Measured:
    """Play the story in a private folder, and leave neither process nor file. Raises Broken."""
    with tempfile.TemporaryDirectory(prefix="meshfed-demo-") as name:
        folder = furnish(Path(name))
        try:
            async with asyncio.TaskGroup() as tasks:
                processes = Processes(folder.path, tasks)
                story = Story(folder, envoy, deadline, processes, screen)
                following = tasks.create_task(screen.follow(story.progress))
                try:
                    return await story.tell()
                finally:
                    following.cancel()
                    await processes.stop_all()
        except ExceptionGroup as group:
            broken = group.subgroup(Broken)
            if broken is None:
                raise
            raise first(broken) from None  # the other errors follow from it


def first(group: ExceptionGroup[Broken]) -> Broken:
    error = group.exceptions[0]
    return first(error) if isinstance(error, ExceptionGroup) else error
