"""One process that runs here, whoever started it: awaited and told by its pidfd."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Self

PROC = Path("/proc")


class Process:
    """A pid may be another's tomorrow; a pidfd never is (pidfd_open(2))."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """Raises ProcessLookupError."""
        self.pid = pid
        self._child = child
        self._file = os.pidfd_open(pid)

    @classmethod
    def start(cls, command: Sequence[str], user: int | None = None) -> Self:
        """It outlives who started it, whom Ctrl-C ends; `user`: its uid and gid. Raises OSError."""
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
        return cls(child.pid, child)

    async def ended(self) -> str:
        """Once it has: how, as far as its parent can know."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._file, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(self._file)
        if self._child is None:
            return "ended"
        code = self._child.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def tell(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._file, number)

    def close(self) -> None:
        os.close(self._file)


def program(process: Path) -> Path:
    """Its executable; an upgrade may have replaced that meanwhile. Raises OSError."""
    return Path(str((process / "exe").readlink()).removesuffix(" (deleted)"))


def spaces(process: Path) -> tuple[Path, ...]:
    """The namespaces in which its pid and its paths mean something. Raises OSError."""
    return tuple((process / "ns" / kind).readlink() for kind in ("pid", "mnt"))


def running(config: Path, programs: Collection[Path], proc: Path = PROC) -> int | None:
    """The pid of one of these programs that runs with this configuration.

    A command line says what its process likes, and a container's paths are not these.
    """
    ours = spaces(proc / "self")
    wanted = ("--config-path", str(config))
    for pid in sorted(int(each.name) for each in proc.iterdir() if each.name.isdecimal()):
        with suppress(OSError):  # it has just ended
            if program(proc / str(pid)) not in programs or spaces(proc / str(pid)) != ours:
                continue
            words = (proc / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace")
            if wanted in pairwise(words.split("\0")):
                return pid
    return None
