"""The lists that Azure's machines are read from: whole, page by page, and never one by one.

For each subscription four calls, five with public addresses; for each Uniform scale set that is in
the mesh two more, or three; and one for each further page.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from meshfed.providers.azure import objects
from meshfed.providers.azure.machines import Listed, Nics, is_uniform, lowered, tagged

T = TypeVar(
    "T", objects.Machine, objects.State, objects.ScaleSet, objects.Nic, objects.PublicAddress
)

COMPUTE = "2026-04-01"
NETWORK = "2026-03-01"
# Network interfaces of Uniform instances are served by Microsoft.Compute, which knows no later one.
OF_SETS = "2018-10-01"

PAGE = msgspec.json.Decoder(objects.Page)
ERROR = msgspec.json.Decoder(objects.ErrorBody)


@dataclass(frozen=True, slots=True)
class List(Generic[T]):
    """One list: where it stands, and the rights that it takes to read it."""

    path: str  # below the subscription, or the scale set
    version: str
    type: type[T]
    rights: tuple[str, ...]
    query: str = ""
    passing: bool = False  # of a set, which may be gone, or empty: then it is not found

    def below(self, parent: str) -> str:
        return f"{parent}{self.path}?api-version={self.version}{self.query}"


MACHINES = List(
    "/providers/Microsoft.Compute/virtualMachines",
    COMPUTE,
    objects.Machine,
    ("Microsoft.Compute/virtualMachines/read",),
)
STATES = List(
    MACHINES.path,
    COMPUTE,
    objects.State,
    (*MACHINES.rights, "Microsoft.Compute/virtualMachines/instanceView/read"),
    "&statusOnly=true",
)
SETS = List(
    "/providers/Microsoft.Compute/virtualMachineScaleSets",
    COMPUTE,
    objects.ScaleSet,
    ("Microsoft.Compute/virtualMachineScaleSets/read",),
)
NICS = List(
    "/providers/Microsoft.Network/networkInterfaces",
    NETWORK,
    objects.Nic,
    ("Microsoft.Network/networkInterfaces/read",),
)
PUBLIC = List(
    "/providers/Microsoft.Network/publicIPAddresses",
    NETWORK,
    objects.PublicAddress,
    ("Microsoft.Network/publicIPAddresses/read",),
)
INSTANCES = List(
    "/virtualMachines",
    COMPUTE,
    objects.Machine,
    (
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/instanceView/read",
    ),
    "&$expand=instanceView",
    passing=True,
)
SET_NICS = List(
    "/networkInterfaces",
    OF_SETS,
    objects.Nic,
    ("Microsoft.Compute/virtualMachineScaleSets/networkInterfaces/read",),
    passing=True,
)
SET_PUBLIC = List(
    "/publicipaddresses",
    OF_SETS,
    objects.PublicAddress,
    ("Microsoft.Compute/virtualMachineScaleSets/publicIPAddresses/read",),
    passing=True,
)


class Unread(Exception):
    """A list that could not be read, and for how many seconds Azure wants to be left alone."""

    after = 0.0


class Unreachable(Unread):
    """Azure cannot be asked, or does not answer; in one line."""


class Refused(Unread):
    """Azure answered that it will not."""

    def __init__(self, status: int, why: str, after: float = 0.0) -> None:
        super().__init__(f"{status} {why}".strip())
        self.status = status
        self.after = after


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # by any case
    body: bytes


class Arm(Protocol):
    """The Azure Resource Manager of a cloud, with credentials."""

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        ...

    async def get(self, url: str) -> Answer:
        """Raises Unreachable."""
        ...


# What a subscription listed


@dataclass(frozen=True, slots=True)
class Instances:
    """A Uniform scale set's instances; or why they could not be read."""

    machines: tuple[objects.Machine, ...] = ()
    nics: tuple[objects.Nic, ...] = ()
    public: tuple[objects.PublicAddress, ...] = ()
    fault: str = ""
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that was listed of a subscription, at about the same time."""

    machines: tuple[objects.Machine, ...] = ()
    states: tuple[objects.State, ...] = ()
    nics: tuple[objects.Nic, ...] = ()
    public: tuple[objects.PublicAddress, ...] = ()
    sets: tuple[objects.ScaleSet, ...] = ()
    instances: Mapping[str, Instances] = field(default_factory=dict)  # by lower-cased id of the set
    odd: str = ""  # what could not be understood

    @property
    def empty(self) -> bool:
        return not (self.machines or self.nics or self.sets)


def machines(found: Inventory) -> Iterator[Listed]:
    """All machines that were listed, with what belongs to each."""
    views = {one.id: one.properties.instance_view for one in found.states if one.properties}
    sets = {lowered(one.id): tagged(one.id, one.tags) for one in found.sets}
    nics = Nics(found.nics, found.public)
    for one in found.machines:
        member = one.properties.virtual_machine_scale_set if one.properties else None
        of = (member.id if member else None) or ""
        yield nics.of(one, views.get(one.id), sets.get(of, ()), of)
    for of, each in found.instances.items():
        nics = Nics(each.nics, each.public)
        for one in each.machines:
            view = one.properties.instance_view if one.properties else None
            yield nics.of(one, view, sets.get(of, ()), of)


# Reading

Kept = dict[str, Mapping[str, objects.Kept]]  # by list and lower-cased id, as last read


class Reader:
    """Reads lists whole; several at a time, up to a limit. What is as it was is the same object."""

    def __init__(
        self,
        arm: Arm,
        turns: asyncio.Semaphore,
        heard: Callable[[Mapping[str, str]], Awaitable[None]],
        kept: Kept,
    ) -> None:
        self._arm = arm
        self._before = dict(kept)
        self._kept = kept
        kept.clear()
        self._turns = turns
        self._heard = heard  # told the headers of each answer; may let it wait
        self.odd = ""

    async def all(self, what: List[T], parent: str) -> tuple[T, ...]:
        """Raises Refused, Unreachable."""
        name = what.below(parent)
        before = self._before.pop(name, {})
        found: dict[str, T] = {}  # a list that changes while it is read may have one twice
        url, asked = self._arm.url + name, set[str]()
        while url:
            asked.add(url)
            page = await self._page(url, what)
            for one in self._understood(page, what):
                own = one.id
                known = before.get(own)
                found[own] = known if isinstance(known, what.type) and known == one else one
            url = self._next(page.next_link, asked)
        self._kept[name] = found
        return tuple(found.values())

    async def first(self, what: List[T], parent: str) -> tuple[T, ...]:
        """What stands on its first page. Raises Refused, Unreachable."""
        page = await self._page(self._arm.url + what.below(parent), what)
        return tuple(self._understood(page, what))

    def _understood(self, page: objects.Page, what: List[T]) -> Iterator[T]:
        decoder = msgspec.json.Decoder(what.type)
        for raw in page.value or ():
            try:
                yield decoder.decode(raw)
            except msgspec.ValidationError as error:
                self.odd = f"{what.path.rpartition('/')[2]}: {error}"

    async def _page(self, url: str, what: List[T]) -> objects.Page:
        async with self._turns:
            answer = await self._arm.get(url)
            await self._heard(answer.headers)
        if answer.status == 404 and what.passing:
            return objects.Page()
        if answer.status != 200:
            raise refusal(answer, what.rights)
        try:
            return PAGE.decode(answer.body)
        except msgspec.DecodeError as error:  # a proxy's page, not Azure's
            raise Unreachable(f"no list, at {urlsplit(url).path}: {error}") from error

    def _next(self, link: str | None, asked: Iterable[str]) -> str:
        """Where a list goes on. The token is sent there, so it must be where it was sent before."""
        if not link:
            return ""
        if urlsplit(link)[:2] != urlsplit(self._arm.url)[:2]:
            raise Unreachable(f"a list goes on at another host, {urlsplit(link).netloc}")
        if link in asked:
            raise Unreachable(f"a list goes on where it began, at {urlsplit(link).path}")
        return link


def refusal(answer: Answer, rights: Iterable[str]) -> Refused:
    """In words, with the rights of which one is lacking, if that is it."""
    try:
        error = ERROR.decode(answer.body).error or objects.Error()
    except msgspec.DecodeError:
        error = objects.Error()
    targets = [detail.target for detail in error.details or () if detail.target]
    words = [error.code, f"needs {' and '.join(rights)}" if answer.status == 403 else "", *targets]
    why = ": ".join(word for word in (*words, *error.message.splitlines()[:1]) if word)
    return Refused(answer.status, why, retry_after(answer.headers))


def retry_after(headers: Mapping[str, str]) -> float:
    """In seconds; Azure says it in three ways."""
    for name, unit in (("x-ms-retry-after-ms", 1000), ("retry-after-ms", 1000), ("Retry-After", 1)):
        said = headers.get(name, "")
        if said.isascii() and said.replace(".", "", 1).isdigit():
            return float(said) / unit
    try:
        until = parsedate_to_datetime(headers.get("Retry-After", ""))
        now = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return 0.0
    return max(0.0, (until - now).total_seconds())


def worst(group: ExceptionGroup[Unread]) -> Unread:
    """What Azure said goes before that it said nothing; of several, the longest pause."""
    flat = [each for each in group.exceptions if isinstance(each, Unread)]
    return max(flat, key=lambda each: (isinstance(each, Refused), each.after))


async def look(
    reader: Reader,
    subscription: str,
    taken: Callable[[objects.ScaleSet], bool],
    *,
    public: bool,
) -> Inventory:
    """All of a subscription, with the instances of the Uniform sets that are `taken`.

    Raises Refused or Unreachable when any list of its own cannot be read: what is missing from one
    of them would be missing from all that is made of it.
    """
    parent = f"/subscriptions/{subscription}"
    try:
        async with asyncio.TaskGroup() as tasks:
            vms = tasks.create_task(reader.all(MACHINES, parent))
            states = tasks.create_task(reader.all(STATES, parent))
            nics = tasks.create_task(reader.all(NICS, parent))
            sets = tasks.create_task(reader.all(SETS, parent))
            addresses = tasks.create_task(reader.all(PUBLIC, parent)) if public else None
    except* Unread as group:
        raise worst(group) from group
    uniform = [one for one in sets.result() if is_uniform(one) and taken(one)]
    async with asyncio.TaskGroup() as tasks:
        each = [tasks.create_task(instances(reader, one.id, public=public)) for one in uniform]
    return Inventory(
        vms.result(),
        states.result(),
        nics.result(),
        addresses.result() if addresses else (),
        sets.result(),
        {lowered(one.id): task.result() for one, task in zip(uniform, each, strict=True)},
        reader.odd,
    )


async def instances(reader: Reader, of: str, *, public: bool) -> Instances:
    """Those of a Uniform set; trouble with it is its own."""
    trouble: Unread | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            there = tasks.create_task(reader.all(INSTANCES, of))
            nics = tasks.create_task(reader.all(SET_NICS, of))
            addresses = tasks.create_task(reader.all(SET_PUBLIC, of)) if public else None
    except* Unread as group:
        trouble = worst(group)
    if trouble:
        return Instances(fault=str(trouble), after=trouble.after)
    return Instances(there.result(), nics.result(), addresses.result() if addresses else ())
