"""Tells that somebody writes to a SQLite catalog's log, as everyone does who commits.

What it was, `PRAGMA data_version` says: a checkpoint stirs the log too, and a commit is one only a
moment after it was written.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODIFIED = 0x2  # inotify(7): IN_MODIFY
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def log(file: Path) -> Iterator[int | None]:
    """A descriptor that is readable once the log was written to; None where nothing tells that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1") or (told := libc.inotify_init1(FLAGS)) < 0:
        yield None
        return
    try:
        written = f"{file.absolute()}-wal".encode()
        yield told if libc.inotify_add_watch(told, written, MODIFIED) >= 0 else None
    finally:
        os.close(told)


def drain(told: int) -> None:
    """What was told so far is heard."""
    try:
        os.read(told, 1 << 16)
    except BlockingIOError:
        return
