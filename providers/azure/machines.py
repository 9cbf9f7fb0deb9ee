"""What a machine of Azure is: where it can be reached, how it fares, and where it stands."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from socket import AF_INET, inet_pton

from meshfed.catalog.model import Health, Locality
from meshfed.providers.azure import objects
from meshfed.providers.hostlist import is_literal

UNIFORM = "uniform"  # what a set without a word on it is, too: there was a time before the other

# Power states that mean somebody took the machine away; its addresses may be another's tomorrow.
AWAY = frozenset({"deallocating", "deallocated"})
POWER = {
    "running": Health.HEALTHY,
    "starting": Health.UNHEALTHY,
    "creating": Health.UNHEALTHY,
    "stopping": Health.DRAINING,
    "stopped": Health.UNHEALTHY,
}
# What the Application Health extension says, or a load balancer's probe.
APPLICATION = {
    "healthy": Health.HEALTHY,
    "unhealthy": Health.UNHEALTHY,
    "unknown": Health.UNHEALTHY,  # not a 2xx, or no answer in time
    "initializing": Health.UNHEALTHY,
}
UNSAID = "Azure does not say whether it runs"


Tagged = tuple[str, Mapping[str, str]]  # whose tags, and what they say, by lower-cased name


@dataclass(frozen=True, slots=True)
class Address:
    """An IP configuration of a machine."""

    nic: str  # lower-cased id
    private: str = ""
    public: str = ""
    network: str = ""
    subnet: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    health: Health
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """A virtual machine, or an instance of a Uniform scale set."""

    id: str  # lower-cased
    name: str
    locality: Locality
    verdict: Verdict | None  # None: it is not there, as far as callers are concerned
    addresses: tuple[Address, ...] = ()  # the one to call first
    scale_set: str = ""  # lower-cased id
    fault_domain: str = ""
    tags: tuple[Tagged, ...] = ()  # its own, then its scale set's
    nic_tags: tuple[Tagged, ...] = ()  # its interfaces', the primary one's first
    lacking: str = ""  # the network interface that it has, and that was not listed


def lowered(resource: str | None) -> str:
    """An id as it can be compared: Azure writes the same one in upper, lower and mixed case."""
    return (resource or "").lower()


def part(resource: str, kind: str) -> str:
    """What stands after a word in a lower-cased id: /subscriptions/…/resourcegroups/…"""
    parts = resource.split("/")
    return parts[parts.index(kind) + 1] if kind in parts[:-1] else ""


def tagged(resource: str, tags: Mapping[str, str] | None) -> tuple[Tagged, ...]:
    """Tags by lower-cased name: Azure takes them as the same, however they are written."""
    return (
        ((lowered(resource), {name.lower(): text for name, text in tags.items()}),) if tags else ()
    )


def own_tags(found: objects.Machine) -> tuple[Tagged, ...]:
    """Instances of Uniform sets mirror their set's, no sooner than they are upgraded: no tags."""
    return () if part(found.id, "virtualmachinescalesets") else tagged(found.id, found.tags)


def is_uniform(found: objects.ScaleSet) -> bool:
    said = found.properties.orchestration_mode if found.properties else None
    return (said or UNIFORM).lower() == UNIFORM


def verdict(provisioning: str | None, view: objects.InstanceView | None) -> Verdict | None:
    """One word on how a machine fares; None when it is gone, or about to be.

    The power state may be missing while it changes, and of the statuses it may be any: what is not
    said is not known, which is not down.
    """
    if lowered(provisioning) == "deleting":
        return None
    power = next(filter(None, (said("powerstate", s) for s in statuses(view))), "")
    if power in AWAY:
        return None
    if power not in POWER:
        return Verdict(Health.UNKNOWN, f"power state {power}" if power else UNSAID)
    application = said("healthstate", view.vm_health.status if view and view.vm_health else None)
    if POWER[power] is not Health.HEALTHY:
        return Verdict(POWER[power], power)
    found = APPLICATION.get(application, Health.HEALTHY)
    return Verdict(found, "" if found is Health.HEALTHY else f"application health {application}")


def statuses(view: objects.InstanceView | None) -> Iterable[objects.Status]:
    return (view.statuses if view else None) or ()


def said(what: str, status: objects.Status | None) -> str:
    """What a status code says of something: `PowerState/running`."""
    kind, _, value = lowered(status.code if status else None).partition("/")
    return value if kind == what else ""


def locality(found: objects.Machine, domain: str) -> Locality:
    """The zone as nodes of AKS name theirs; where there is none, the fault domain."""
    region = lowered(found.location)
    return place(region, f"{region}-{found.zones[0]}" if found.zones else domain)


@lru_cache(maxsize=1024)  # thousands of machines stand in a few places
def place(region: str, zone: str) -> Locality:
    return Locality(region, zone)


def fault_domain(found: objects.Machine, view: objects.InstanceView | None) -> str:
    pinned = found.properties.platform_fault_domain if found.properties else None
    number = pinned if pinned is not None else view.platform_fault_domain if view else None
    return "" if number is None else f"fd-{number}"


def references(found: objects.Machine) -> tuple[objects.NicReference, ...]:
    profile = found.properties.network_profile if found.properties else None
    return (profile.network_interfaces if profile else None) or ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A machine and what belongs to it, as it was listed: while that is so, it is what it was."""

    found: objects.Machine
    view: objects.InstanceView | None
    nics: tuple[objects.Nic, ...]
    public: tuple[objects.PublicAddress, ...]
    set_tags: tuple[Tagged, ...]
    scale_set: str  # lower-cased id
    lacking: str


class Nics:
    """Network interfaces, by what they can be found by."""

    def __init__(
        self, nics: Iterable[objects.Nic], public: Iterable[objects.PublicAddress] = ()
    ) -> None:
        self._of: dict[str, list[objects.Nic]] = {}  # by machine
        self._by_id: dict[str, objects.Nic] = {}
        self._public = {each.id: each for each in public}
        for nic in nics:
            self._by_id[nic.id] = nic
            owner = nic.properties.virtual_machine if nic.properties else None
            if owner and owner.id:  # else nobody's: not attached, or a private endpoint's
                self._of.setdefault(owner.id, []).append(nic)

    def of(
        self,
        found: objects.Machine,
        view: objects.InstanceView | None,
        set_tags: tuple[Tagged, ...],
        scale_set: str,
    ) -> Listed:
        refs = references(found)
        known = [self._by_id.get(ref.id) for ref in refs]
        lacking = next((ref.id for ref, nic in zip(refs, known, strict=True) if nic is None), "")
        there = [nic for nic in known if nic] if refs else self._of.get(found.id, [])
        public = tuple(self._addresses(there)) if self._public else ()
        return Listed(found, view, tuple(there), public, set_tags, scale_set, lacking)

    def _addresses(self, nics: Iterable[objects.Nic]) -> Iterator[objects.PublicAddress]:
        for _, each in (pair for nic in nics for pair in configurations(nic)):
            if public := self._public.get((each.public and each.public.id) or ""):
                yield public


def configurations(nic: objects.Nic) -> Iterator[tuple[bool, objects.IpProperties]]:
    """An interface's, and whether each is primary: the only one is."""
    found = (nic.properties.ip_configurations if nic.properties else None) or ()
    for each in (one.properties for one in found):
        if each:
            yield bool(each.primary) or len(found) == 1, each


def addresses(listed: Listed) -> tuple[Address, ...]:
    """The primary configuration of the primary interface first, and IPv4 before IPv6."""
    public = {each.id: each.properties for each in listed.public}
    ranked: list[tuple[tuple[bool, bool, bool], Address]] = []
    for nic, primary in interfaces(listed):
        for first, each in configurations(nic):
            if private := compressed(each.address):
                at = public.get((each.public and each.public.id) or "")
                rank = (not primary, not first, ":" in private)
                ranked.append((rank, _address(nic, each, private, at)))
    return tuple(address for _, address in sorted(ranked, key=lambda each: each[0]))


def compressed(text: str | None) -> str:
    """An IP literal in its shortest form; nothing, if it is none."""
    with suppress(OSError):  # five times as fast, for most of them
        return text if text and inet_pton(AF_INET, text) else ""
    return ip_address(text).compressed if text and is_literal(text) else ""


def _address(
    nic: objects.Nic,
    found: objects.IpProperties,
    private: str,
    public: objects.PublicProperties | None,
) -> Address:
    network, subnet = within((found.subnet and found.subnet.id) or "")
    return Address(
        nic.id, private, compressed(public.ip_address) if public else "", network, subnet
    )


@lru_cache(maxsize=1024)
def within(subnet: str) -> tuple[str, str]:
    """The names of a virtual network and a subnet of it."""
    return part(subnet, "virtualnetworks"), part(subnet, "subnets")


def interfaces(listed: Listed) -> list[tuple[objects.Nic, bool]]:
    """A machine's, the primary one first; its only one is that without anybody saying so."""
    chosen = {
        ref.id: ref.properties.primary if ref.properties else None
        for ref in references(listed.found)
    }
    only = max(len(chosen), len(listed.nics)) == 1

    def primary(nic: objects.Nic) -> bool:
        said = chosen.get(nic.id)
        marked = nic.properties.primary if nic.properties else None
        return only or bool(marked if said is None else said)

    return sorted(((nic, primary(nic)) for nic in listed.nics), key=lambda each: not each[1])


def machine(listed: Listed) -> Machine:
    found, view = listed.found, listed.view
    domain = fault_domain(found, view)
    return Machine(
        found.id,
        found.name or found.id.rpartition("/")[2],
        locality(found, domain),
        verdict(found.properties.provisioning_state if found.properties else None, view),
        addresses(listed),
        listed.scale_set,
        domain,
        (*own_tags(found), *listed.set_tags),
        tuple(each for nic, _ in interfaces(listed) for each in tagged(nic.id, nic.tags)),
        listed.lacking,
    )
