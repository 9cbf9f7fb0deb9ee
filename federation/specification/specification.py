"""Where policies come from: each source says all it holds, again and again."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from meshfed.catalog.model import Specified


@runtime_checkable
class Specification(Protocol):
    """One source of SMI objects, watched for ever."""

    source: str  # its name in the catalog

    def watch(self) -> AsyncIterator[Specified]:
        """Everything the source says now, and again whenever that changes.

        A source that cannot be read is a Specified with its `fault`, never an exception; the
        iterator retries by itself and ends only when it is closed.
        """
        ...
