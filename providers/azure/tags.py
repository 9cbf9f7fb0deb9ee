"""What tags on Azure's machines say, and people who attached them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from meshfed.catalog.model import Identity, Interception, Rejected, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.providers.azure.machines import Machine, Tagged
from meshfed.providers.hostlist import literal

T = TypeVar("T")

SERVICE = "meshfed.service"
IDENTITY = "meshfed.identity"
WEIGHT = "meshfed.weight"
INTERCEPTION = "meshfed.interception"
BIND = "meshfed.bind"
APPLICATION = "meshfed.application"

ALIKE = 4096  # tags that say the same on thousands of machines are one value

Serves = tuple[ServiceName, int, int]  # the service's port, and the application's


@dataclass(frozen=True, slots=True)
class Said:
    """What tags and attachments say of a machine."""

    primary: tuple[Serves, ...]  # served where the machine is called first
    others: tuple[tuple[str, tuple[Serves, ...]], ...]  # served at one of its interfaces
    identity: Identity | None
    interception: Interception
    weight: int
    bind: str  # where its sidecar listens; empty: everywhere
    application: str  # where that finds the application; empty: on the loopback
    where: str  # what said so

    @property
    def anything(self) -> bool:
        return bool(self.primary or self.others or self.identity)


class Wrong(Exception):
    """A tag that does not say what it should, or a machine that cannot be what it is said to be."""

    def __init__(self, where: str, field: str, why: str) -> None:
        super().__init__(why)
        self.rejected = Rejected(place(where), field, why)


def place(resource: str) -> str:
    """A machine, scale set or interface as people name it: its group, and its own names."""
    group, _, own = resource.partition("/resourcegroups/")[2].partition("/providers/")
    return "/".join((group, *own.split("/")[2::2]))


def told(tag: str, machine: Machine, attached: Sequence[Attachment]) -> Said:
    """Attachments go before tags, a machine's tags before its scale set's, an interface's last.

    `tag` is the one that names services. Raises Wrong.
    """
    tags = (*machine.tags, *machine.nic_tags)
    own = _found(machine.tags, tag)
    nics = tuple((nic, said[tag]) for nic, said in machine.nic_tags if tag in said)
    identity = next((each.identity for each in attached if each.identity), None)
    first = attached[0] if attached else None
    sources = [*(a.resource for a in attached[:1]), *(own[:1] if own else ()), *dict(nics)]
    return Said(
        (
            *((each.service, each.port, each.target) for each in attached),
            *(_parsed(own, tag, services) if own else ()),
        ),
        tuple((each[0], _parsed(each, tag, services)) for each in nics),
        identity or _read(tags, IDENTITY, somebody),
        first.interception
        if first
        else _read(tags, INTERCEPTION, interception) or Interception.EXPLICIT,
        first.weight if first else _read(tags, WEIGHT, number) or 1,
        _read(tags, BIND, literal) or "",
        _read(tags, APPLICATION, literal) or "",
        next(iter(sources), machine.id),
    )


def _found(tags: Iterable[Tagged], name: str) -> tuple[str, str] | None:
    return next(((where, said[name]) for where, said in tags if name in said), None)


def _read(tags: Iterable[Tagged], name: str, parse: Callable[[str], T]) -> T | None:
    found = _found(tags, name)
    return _parsed(found, name, parse) if found else None


def _parsed(found: tuple[str, str], name: str, parse: Callable[[str], T]) -> T:
    where, text = found
    try:
        return parse(text.strip())
    except ValueError as error:
        raise Wrong(where, name, str(error)) from error


@lru_cache(maxsize=ALIKE)
def somebody(text: str) -> Identity:
    """Raises ValueError."""
    return Identity.parse(text)


@lru_cache(maxsize=ALIKE)
def services(text: str) -> tuple[Serves, ...]:
    """`bookstore.shop:8080`, several separated by space. Raises ValueError."""
    if not text:
        raise ValueError("empty: write <name>.<namespace>:<port>, or take the tag away")
    return tuple(serves(word) for word in text.split())


def serves(text: str) -> Serves:
    """`<name>.<namespace>:<port>`, or `:<port>:<the application's port>`. Raises ValueError."""
    name, *ports = text.split(":")
    if len(ports) not in (1, 2):
        raise ValueError(f"{text!r} is not <name>.<namespace>:<port>")
    numbers = [number(port) for port in ports]
    return ServiceName.parse(name), numbers[0], numbers[-1]


def number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a number in 1-65535")
    return int(text)


def interception(text: str) -> Interception:
    if text not in set(Interception):
        raise ValueError(f"{text!r} is none of {', '.join(Interception)}")
    return Interception(text)
