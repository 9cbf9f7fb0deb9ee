"""One agent to a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCKS = Path("/proc/locks")


class Another(Exception):
    """An agent runs there already; one line."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raises Another, and OSError. The lock ends with its process, however that ends."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(held, folder)
        yield
    finally:
        os.close(held)


def _lock(held: int, folder: Path) -> None:
    """Raises Another."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        who = holder(os.fstat(held).st_ino, LOCKS.read_text())
        raise Another(f"{folder}: another agent is running{who and f', pid {who}'}") from error


def holder(inode: int, locks: str) -> str:
    """The pid that has locked it, as proc_locks(5) tells; nothing, where it is not seen here."""
    for line in locks.splitlines():
        _, kind, _, _, pid, where, *_ = (*line.split(), *[""] * 7)
        if kind == "FLOCK" and where.rpartition(":")[2] == str(inode) and pid != "-1":
            return pid
    return ""
