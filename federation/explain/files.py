"""Policy files that are not in use yet, read as `serve` would read them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from meshfed.catalog.model import Rejected, Specified
from meshfed.federation.specification.files import Held, Text, held, piped, scan

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Given:
    """What the files say, and which they are, by absolute path."""

    specified: Specified
    files: frozenset[str]
    rejected: tuple[Rejected, ...]


def given(paths: Iterable[Path], stdin: TextIO) -> Given:
    """Files, directories with files, and `-`."""
    texts: list[Text] = []
    faults: list[Rejected] = []
    for path in paths:
        if path == STDIN:
            text = piped(stdin)
            texts += [] if text.fault else [text]
            faults += [Rejected("stdin", "", text.fault)] if text.fault else []
            continue
        seen = scan(path.absolute())
        if seen.fault:
            faults.append(Rejected(str(path), "", seen.fault))
        texts += seen.texts
    specified = held(Held(), texts).specified("plan")
    rejected = (*faults, *(why for _, _, why in specified.rejected))
    return Given(specified, frozenset(text.file for text in texts), rejected)
