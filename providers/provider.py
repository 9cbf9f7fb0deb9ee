"""What an adapter is, and how one is found by its type."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

from meshfed.catalog.model import Observation
from meshfed.catalog.orders import Attachment

GROUP = "meshfed.providers"


@runtime_checkable
class Provider(Protocol):
    """Observes one platform, for ever.

    Made by calling the entry point as `type(name=..., options=..., base=...)`: the provider's name,
    the other keys of its configuration entry, and the folder that relative paths start from.
    It raises ValueError at that moment when the options are wrong: `key: why`.
    """

    name: str

    def __init__(self, *, name: str, options: Mapping[str, object], base: Path) -> None: ...

    def observe(self) -> AsyncIterator[Observation]:
        """The platform's scopes, each when it is first seen and whenever it may have changed.

        A fault of the platform is an Observation with its `fault`, never an exception; the iterator
        retries by itself and ends only when it is closed.
        """
        ...

    async def refresh(self, scope: str) -> None:
        """Look at this scope again now: `observe` yields it once more, changed or not."""
        ...


@runtime_checkable
class Attachable(Protocol):
    """A provider of machines that people may attach to services."""

    def attach(self, attached: Iterable[Attachment]) -> None:
        """This is all that is attached now, also what is other providers'."""
        ...


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found out about something that a provider needs; with a remedy, it is wrong."""

    about: str
    what: str
    remedy: str = ""


@runtime_checkable
class Examinable(Protocol):
    """A provider that can say, for `doctor`, whether its platform lets itself be asked."""

    def examine(self) -> AsyncIterator[Examined]: ...


@runtime_checkable
class Metered(Protocol):
    """A provider whose platform counts what it is asked."""

    def remaining(self) -> Mapping[tuple[str, str], int]:
        """How much more may be asked now, by part of the platform and what is counted there."""
        ...


class UnknownProvider(ValueError):
    """No installed package brings this type of provider."""


def load(kind: str) -> type[Provider]:
    """The provider class of a type. Raises UnknownProvider, naming the types there are."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in found:
        raise UnknownProvider(f"type: {kind!r} is none of {', '.join(sorted(found))}")
    loaded: type[Provider] = found[kind].load()
    return loaded
