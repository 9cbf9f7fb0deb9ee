"""What an adapter is, and how one is found by its type."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

from meshfed.catalog.model import Endpoint, Identity, Observation
from meshfed.catalog.orders import Attachment
from meshfed.catalog.records import Record

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


@runtime_checkable
class Judging(Protocol):
    """A provider that finds out by itself which of its endpoints are well."""

    def recall(self, failing: Iterable[Endpoint]) -> None:
        """These were not when they were looked at last, by whoever did; before `observe`."""
        ...


@runtime_checkable
class Inventoried(Protocol):
    """A provider whose platform attests which machine one is, and that lists them all."""

    name: str

    def inventory(self) -> Mapping[str, Record] | None:
        """All machines, by the id that they are attested by; the same object while nothing is new.

        None before they were listed. Blocks.
        """
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


class Untaken(Exception):
    """A token that its platform does not take: it says so, or it is none; in one line."""


class Unanswered(Exception):
    """The platform could not be asked about a token; in one line."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """Whom a token is said to be of: nothing of that is believed yet."""

    workload: str  # its id
    name: str


@dataclass(frozen=True, slots=True)
class Attested:
    """Whom a token is of, as its platform says."""

    workload: str  # its id
    identity: Identity
    until: float  # seconds since the epoch


class Attestor(Protocol):
    """Knows the tokens that one platform gives its workloads."""

    def claimed(self, token: str) -> Claimed:
        """It says whom to ask: another platform never sees the token. Raises Untaken."""
        ...

    async def attest(self, token: str, audience: str) -> Attested:
        """Asks the platform. Raises Untaken and Unanswered."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Attesting(Protocol):
    """A provider whose workloads can show by a token of their platform's who they are."""

    def attestor(self) -> Attestor: ...


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
