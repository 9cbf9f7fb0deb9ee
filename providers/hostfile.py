"""The file of a host list: which one it is, what stands in it, and whether that is right."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from meshfed.catalog.document import Unreadable
from meshfed.catalog.model import Observation, Rejected
from meshfed.catalog.ranges import NO_RANGES, Ranges
from meshfed.providers.formats import FORMATS
from meshfed.providers.hostlist import nearest
from meshfed.providers.listing import listing
from meshfed.providers.observed import observation

OPTIONS = ("path", "format")


def check(
    text: str,
    file: str,
    provider: str = "validate",
    kind: str = "",
    virtual: Ranges = NO_RANGES,
) -> Observation:
    """What a host list says, without asking DNS; `rejected` and `fault` are what is wrong."""
    with uncollected():
        listed = listing(text, file, kind, virtual)
        return observation(listed, provider, f"{provider}/{Path(file).name}")


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cyclic garbage meanwhile: while ten thousand hosts are read (1.7 s, and no
    cycles) it found none, but held up every thread for 0.2 s at a time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def chosen(options: Mapping[str, object]) -> tuple[str, str]:
    """The path and the format. Raises ValueError: `key: why`."""
    for key in options:
        if key not in OPTIONS:
            raise ValueError(f"{key}: unknown key; {nearest(key, OPTIONS)}")
    path, kind = options.get("path", ""), options.get("format", "")
    if not isinstance(path, str):
        raise ValueError("path: must be text: put it in quotes")
    if not path:
        raise ValueError("path: missing: say which file lists the hosts")
    if kind not in ("", *FORMATS) or not isinstance(kind, str):
        raise ValueError(f"format: {kind!r} is none of {', '.join(FORMATS)}")
    return path, kind


def read(path: Path, file: str) -> str:
    """The text of a host list; `file` is what its user calls it. Raises Unreadable."""
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise Unreadable(Rejected(f"{file}:1", "", "not a file: `path` names one host list"))
        return decoded(path.read_bytes(), file)
    except OSError as error:
        why = f"{error.strerror or error}: put the file back, or accept that its hosts are gone"
        raise Unreadable(Rejected(f"{file}:1", "", why)) from error


def decoded(data: bytes, file: str) -> str:
    """Text, with or without a byte order mark. Raises Unreadable."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        why = f"not UTF-8 ({error.reason}): save the file as UTF-8"
        raise Unreadable(Rejected(f"{file}:{line}", "", why)) from error
