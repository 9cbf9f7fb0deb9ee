"""The demo's processes: watched while it runs, and gone when it is, however it ends."""

import asyncio
import ctypes
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL
LONGEST_LINE = 1 << 27  # bytes of an application's report: what it did while this process stalled
PR_SET_PDEATHSIG = 1  # prctl(2)


class Broken(Exception):
    """The demo cannot go on; the message says what happened and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """One process, and the file with what it says of itself."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def ask(self, **order: object) -> dict[str, Any]:
        """One line of JSON for one line of JSON, from a child that was started with pipes."""
        assert self.process.stdin is not None, "it was started without a pipe"
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        answer = await self.reports.readline()
        if not answer:
            raise Broken(f"{self.name} ended: {last_words(self.log)}")
        told: dict[str, Any] = json.loads(answer)
        return told

    @property
    def reports(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None, "it was started without a pipe"
        return self.process.stdout


def last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Without MESHFED_…, which would point the demo at somebody's real catalog."""
    return {name: value for name, value in ours.items() if not name.startswith("MESHFED_")}


def tied_to(parent: int) -> Callable[[], None]:
    """For a child, between fork and exec: be killed with the parent, even if that is killed -9."""
    libc = ctypes.CDLL(None)

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be watched
            os._exit(1)

    return tie


class Processes:
    """Every child that was started and has not been stopped; one that ends by itself ends all."""

    def __init__(self, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.tasks = tasks
        self.running: list[Child] = []
        self.tie = tied_to(os.getpid())

    async def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        pipe: bool = False,
        more: Mapping[str, str] = MappingProxyType({}),  # for its environment
    ) -> Child:
        log = self.folder / f"{name}.log"
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if pipe else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipe else written,
                stderr=written,
                cwd=self.folder,
                env={**environment(os.environ), **more},
                limit=LONGEST_LINE,
                start_new_session=True,  # Ctrl-C is the runner's, which stops the rest in order
                preexec_fn=self.tie,
            )
        child = Child(name, process, log)
        self.running.append(child)
        self.tasks.create_task(self.watch(child))
        return child

    async def watch(self, child: Child) -> None:
        code = await child.process.wait()
        if child in self.running:
            raise Broken(f"{child.name} ended with {code}: {last_words(child.log)}")

    async def stop(self, *children: Child) -> None:
        """SIGTERM to all of them at once, and SIGKILL to those that do not listen."""
        for child in children:
            self.running.remove(child)
            if child.process.returncode is None:
                child.process.terminate()
        await asyncio.gather(*(end(child) for child in children))

    async def kill(self, *children: Child) -> None:
        """As if their machine had lost its power."""
        for child in children:
            self.running.remove(child)
            child.process.kill()
        await asyncio.gather(*(child.process.wait() for child in children))

    async def stop_all(self) -> None:
        await self.stop(*self.running)


async def end(child: Child) -> None:
    try:
        await asyncio.wait_for(child.process.wait(), PATIENCE)
    except TimeoutError:
        child.process.kill()
        await child.process.wait()
