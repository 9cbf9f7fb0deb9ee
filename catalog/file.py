"""The file of a catalog on SQLite: its name, how it is read, and that it is away."""

import os
from pathlib import Path
from urllib.parse import unquote

DIRECTORY = "it is a directory: name a file in it"


class Away(Exception):
    """The database cannot be reached or written; what was last read from it still holds."""


def sqlite_file(url: str) -> str | None:
    """The file of a SQLite URL, in which % and ? stand for themselves only as %25 and %3F."""
    scheme, found, rest = url.partition(":///")
    return unquote(rest.partition("?")[0]) if found and scheme == "sqlite" else None


def which(path: Path) -> tuple[int, int] | None:
    """Tells a file from another one that takes its place; None while there is none."""
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


def readable(path: Path) -> str:
    """How SQLite opens a file to read it and nothing else: a URI. Raises Away."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    log, index = (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))
    if index.exists() or os.access(path.absolute().parent, os.W_OK, effective_ids=True):
        return address
    # Readers of a catalog make files beside it. Where they cannot, and nobody has, it is still.
    if log.exists() and log.stat().st_size > 0:
        raise Away(
            f"the catalog is away: commits stand in {log} that are not in {path.name} yet, and"
            " nothing can be written here: copy both to a folder that can be, and read them there"
        )
    return f"{address}&immutable=1"
