"""Notices when a file has become another one: edited, replaced, swapped behind a link, or gone."""

import asyncio
import os
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

STEP = 5  # ms; watchfiles looks this often whether the kernel has said something
DEBOUNCE = 25  # ms; a folder that never rests is looked into this often all the same
POLL = 1.0  # seconds; for file systems whose changes the kernel does not tell (NFS)
QUIET = 0.1  # seconds without a change, after which a file that is written in place is whole
PATIENCE = 20  # times QUIET; a file that never rests is read all the same


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells one state of a file from another."""

    file: tuple[int, int]  # device and inode
    size: int
    times: tuple[int, int]  # modified, changed

    def written_into(self, before: "Mark | None") -> bool:
        """The same file with other content; a file that was replaced is whole from the start."""
        return before is not None and self.file == before.file and self != before


def mark(path: Path) -> Mark | None:
    """The file's mark, or None when there is none to be seen."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return Mark((stat.st_dev, stat.st_ino), stat.st_size, (stat.st_mtime_ns, stat.st_ctime_ns))


def folders(path: Path) -> frozenset[Path]:
    """Where something moves when the file changes: beside its name, and beside what it links to."""
    real = Path(os.path.realpath(path))  # Path.resolve raises when links lead in a circle
    return frozenset(f for f in (path.parent, real.parent) if f.is_dir())


async def quiet(path: Path, before: Mark | None) -> Mark | None:
    """The file's mark, once nobody is in the middle of writing into it."""
    now = await asyncio.to_thread(mark, path)
    if now is None or not now.written_into(before):
        return now
    for _ in range(PATIENCE):
        await asyncio.sleep(QUIET)
        now, earlier = await asyncio.to_thread(mark, path), now
        if now == earlier:
            break
    return now


async def follow(path: Path, wake: asyncio.Event) -> None:
    """Sets `wake` whenever the file may have changed; for ever."""
    while True:
        try:
            await _watch(path, wake)
        except* (OSError, WatchfilesRustInternalError):
            # The folder is gone, not there yet or closed to us, the kernel has no watches left, or
            # watchfiles cannot tell of a file whose name is not text: POLL sees.
            await asyncio.sleep(POLL)
        wake.set()


async def _watch(path: Path, wake: asyncio.Event) -> None:
    """Watches until the folders to be watched are others."""
    watched = await asyncio.to_thread(folders, path)
    if not watched:
        raise FileNotFoundError(path.parent)
    changes = awatch(
        *watched,
        watch_filter=None,
        debounce=DEBOUNCE,
        step=STEP,
        recursive=False,
        rust_timeout=int(POLL * 1000),
        yield_on_timeout=True,  # a folder that was replaced says nothing any more
    )
    async with aclosing(changes):
        async for _ in changes:
            wake.set()
            if await asyncio.to_thread(folders, path) != watched:
                return
