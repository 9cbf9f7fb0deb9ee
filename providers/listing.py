"""From the entries of a host list to what is sound of them: services, and hosts that serve."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from pydantic import ValidationError

from meshfed.catalog.document import Unreadable
from meshfed.catalog.model import (
    Identity,
    Interception,
    Port,
    Rejected,
    Service,
    ServiceName,
)
from meshfed.catalog.ranges import NO_RANGES, Ranges
from meshfed.providers.formats import Entries, Entry, entries
from meshfed.providers.hostlist import HostEntry, ServiceEntry, explain, is_literal
from meshfed.providers.probe import misplaced

Checked = TypeVar("Checked", HostEntry, ServiceEntry)

# What makes a host one workload: entries of the same name agree on it, or leave it out.
ONE = (
    "identity",
    "address",
    "interception",
    "locality",
    "labels",
    "bind",
    "application",
    "network",
    "cluster",
    "platform",
)

MOST_NAMES = 1000  # of hosts that go with a faulty service: they stand in one row of the catalog
NO_VIP = "take `vip` away, and it has one of its own"


@dataclass(frozen=True, slots=True)
class Placed:
    """A valid entry, and what it serves: (service, the service's port, the application's)."""

    host: HostEntry
    where: str
    unresolved: Rejected  # what to say when its address is a name that nobody knows
    serves: tuple[tuple[ServiceName, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """What a host list says, before its DNS names are addresses."""

    services: frozenset[Service] = frozenset()
    hosts: tuple[Placed, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    fault: str = ""  # why it says nothing that could be believed
    short: str = ""  # why hosts may be missing from it

    @property
    def names(self) -> frozenset[str]:
        """The addresses that DNS must be asked for."""
        return frozenset(p.host.address for p in self.hosts if not is_literal(p.host.address))


NOTHING = Listing()


def listing(text: str, file: str, kind: str = "", virtual: Ranges = NO_RANGES) -> Listing:
    """Everything of a host list that is sound. A list that is not whole is a fault.

    `virtual`: the mesh's own addresses, where they are known.
    """
    try:
        found = entries(text, file, kind)
    except Unreadable as unreadable:
        return Listing(fault=str(unreadable.rejected))
    services, faulty, rejected = _services(found, virtual)
    hosts, more = _hosts(found)
    placed, unplaced, orphans = _placed(found, hosts, services, frozenset(faulty))
    rejected += [_with_hosts(said, orphans.get(name, ())) for name, said in faulty.items()]
    rejected += [*found.rejected, *more, *unplaced]
    every = tuple(sorted(rejected, key=lambda said: int(said.where.rpartition(":")[2])))
    if not placed and not found.only_services:
        return Listing(rejected=every, fault=_nothing(found, file))
    return Listing(frozenset(services.values()) | _declared(placed, services), placed, every)


def shortened(before: Listing, now: Listing, text: str, file: str) -> Listing:
    """A list that lost hosts and ends within a line is taken for half-written: a full disk, say."""
    lost = {p.host.name for p in before.hosts} - {p.host.name for p in now.hosts}
    if not lost or text.endswith(("\n", "}", "]")):
        return now
    why = f"{file}:{text.count(chr(10)) + 1}: the file ends in the middle of a line: end the line"
    return replace(now, short=why)


def _services(
    found: Entries, virtual: Ranges
) -> tuple[dict[ServiceName, Service], dict[ServiceName, Rejected], list[Rejected]]:
    """The services that are declared, those that cannot be, and what else is wrong with them."""
    services: dict[ServiceName, Service] = {}
    faulty: dict[ServiceName, Rejected] = {}
    rejected: list[Rejected] = []
    locals_: dict[int, str] = {}
    for text, entry in found.services.items():
        try:
            name = ServiceName.parse(text)
        except ValueError as error:
            rejected.append(entry.reject(found.document, (), str(error)))
            continue
        said, faults = _checked(found, entry, ServiceEntry)
        if said is None:
            faulty[name], *more = faults
            rejected += more
        else:
            service, clashes = _without_clashes(said.service(name), locals_)
            services[name] = service
            if said.vip and said.vip in virtual:
                why = f"{said.vip} is of mesh.virtual_ranges, which may be another service's"
                rejected.append(entry.reject(found.document, ("vip",), f"{why}: {NO_VIP}"))
            rejected += [
                entry.reject(found.document, ("ports", port, "local"), why) for port, why in clashes
            ]
    return services, faulty, rejected


def _without_clashes(
    service: Service, taken: dict[int, str]
) -> tuple[Service, list[tuple[str, str]]]:
    """The service without the local ports that an earlier one has, and (port, why) of those."""
    clashes: list[tuple[str, str]] = []
    ports: list[Port] = []
    for port in service.ports:
        owner = taken.setdefault(port.local, f"{service.name} {port.name}") if port.local else ""
        if owner and owner != f"{service.name} {port.name}":
            clashes.append(
                (port.name, f"{port.local} is the local port of {owner}: choose another")
            )
            port = replace(port, local=None)
        ports.append(port)
    return replace(service, ports=tuple(ports)), clashes


def _checked(
    found: Entries, entry: Entry, model: type[Checked]
) -> tuple[Checked | None, list[Rejected]]:
    try:
        return model.model_validate(entry.values), []
    except ValidationError as error:
        faults = error.errors(include_url=False)
        misspelt = {said["loc"][:-1] for said in faults if said["type"] == "extra_forbidden"}
        return None, [
            entry.reject(
                found.document,
                tuple(part for part in said["loc"] if part != "[key]"),
                explain(said, model),
            )
            for said in faults
            # What is missing is most likely there, under the key that nobody knows.
            if said["type"] != "missing" or said["loc"][:-1] not in misspelt
        ]


def _hosts(found: Entries) -> tuple[list[tuple[HostEntry, Entry]], list[Rejected]]:
    """The entries that are sound by themselves and agree with the others of their name."""
    sound: list[tuple[HostEntry, Entry]] = []
    rejected: list[Rejected] = []
    said: dict[str, dict[str, tuple[object, str]]] = {}  # by name and field, and where
    for entry in found.hosts:
        host, faults = _checked(found, entry, HostEntry)
        rejected += faults
        if host is None:
            continue
        here = {key: getattr(host, key) for key in ONE if key in host.model_fields_set}
        before = said.setdefault(host.name, {})
        differing = [key for key in here if key in before and before[key][0] != here[key]]
        for key in differing:
            other, where = before[key]
            why = f"{here[key]} here and {other} at {where}, but {host.name} is one workload"
            rejected.append(entry.reject(found.document, (key,), why))
        if not differing:
            where = entry.where(found.document)
            before.update({key: (here[key], where) for key in here.keys() - before.keys()})
            sound.append((host, entry))
    return [(_agreed(host, said[host.name]), entry) for host, entry in sound], rejected


def _agreed(host: HostEntry, said: Mapping[str, tuple[object, str]]) -> HostEntry:
    """With what other entries of its name say of it."""
    if said.keys() <= host.model_fields_set:
        return host
    return host.model_copy(update={key: value for key, (value, _) in said.items()})


def _placed(
    found: Entries,
    hosts: Iterable[tuple[HostEntry, Entry]],
    services: Mapping[ServiceName, Service],
    faulty: frozenset[ServiceName],
) -> tuple[tuple[Placed, ...], list[Rejected], dict[ServiceName, list[Entry]]]:
    """Hosts with what they serve, what is wrong with the others, and who needs a faulty service."""
    placed: list[Placed] = []
    rejected: list[Rejected] = []
    orphans: dict[ServiceName, list[Entry]] = {}
    for host, entry in hosts:
        lost = faulty.intersection(host.service)
        for name in lost:
            orphans.setdefault(name, []).append(entry)
        if lost:
            continue
        try:
            serves = tuple(s for name in host.service for s in _serves(host, name, services))
            known_as(host.identity, host.interception)
            if host.port is not None and not host.service:
                raise Wrong("port", "a port of what? name the service, or take the port away")
            if why := misplaced(host.probe, [target for *_, target in serves]):
                raise Wrong("probe", why)
        except Wrong as wrong:
            rejected.append(entry.reject(found.document, (wrong.field,), wrong.why))
            continue
        unresolved = entry.reject(found.document, ("address",), "")
        placed.append(Placed(host, entry.where(found.document), unresolved, serves))
    return tuple(placed), rejected, orphans


class Wrong(Exception):
    """A field that does not fit the rest of the list."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field, self.why = field, why


def known_as(identity: Identity | None, interception: Interception) -> None:
    """Whoever has a sidecar is somebody. Raises Wrong."""
    if identity is None and interception is not Interception.NONE:
        why = f"missing: interception {interception} needs one; or say `none` there"
        raise Wrong("identity", why)


def _serves(
    host: HostEntry, name: ServiceName, services: Mapping[ServiceName, Service]
) -> tuple[tuple[ServiceName, int, int], ...]:
    """The ports of a service that a host answers on. Raises Wrong."""
    if name not in services:
        if isinstance(host.port, int):
            return ((name, host.port, host.port),)
        missing = f"{host.port!r} is the name of none" if host.port else "missing"
        raise Wrong("port", f"{missing}: {name} is not under `services`, so give a number")
    ports = asked(services[name], host.port)
    return tuple((name, port.number, port.target or port.number) for port in ports)


def asked(service: Service, port: int | str | None) -> tuple[Port, ...]:
    """The ports of a service that one target, number or name means; all, if none. Raises Wrong."""
    ports = service.ports
    if port is not None:
        by_target = [p for p in ports if port == p.target]
        ports = tuple(by_target or [p for p in ports if port in (p.number, p.name)])[:1]
    if not ports:
        known = ", ".join(f"{p.name} {p.target or p.number}" for p in service.ports)
        raise Wrong("port", f"{port!r} is no port of {service.name}, which has {known}")
    return ports


def _declared(
    placed: Iterable[Placed], services: Mapping[ServiceName, Service]
) -> frozenset[Service]:
    """The services that only hosts name: HTTP, on the ports that the hosts name."""
    ports: dict[ServiceName, set[int]] = {}
    for host in placed:
        for name, number, _ in host.serves:
            ports.setdefault(name, set()).add(number)
    return frozenset(
        Service(name, tuple(Port(number, f"http-{number}") for number in sorted(numbers)))
        for name, numbers in ports.items()
        if name not in services
    )


def _with_hosts(said: Rejected, hosts: Sequence[Entry]) -> Rejected:
    lost = {0: "", 1: " (its host is left out with it)"}.get(
        len(hosts), f" (its {len(hosts)} hosts are left out with it)"
    )
    about = dict.fromkeys((*said.about, *(name for each in hosts for name in each.about)))
    return replace(said, why=said.why + lost, about=tuple(islice(about, MOST_NAMES)))


def _nothing(found: Entries, file: str) -> str:
    if found.hosts or found.rejected:
        return f"{file}:1: not one of its hosts is sound, so nothing of it is believed"
    return str(
        found.document.reject(("hosts",), "there are none: list them, or take the file away")
    )
