"""From Azure's machines, and what tags and people say of them, to services and endpoints."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern

from meshfed.catalog.model import (
    Endpoint,
    Evidence,
    Interception,
    Observation,
    Platform,
    Port,
    Rejected,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.orders import Attachment
from meshfed.providers.azure.machines import (
    Address,
    Listed,
    Machine,
    Tagged,
    Verdict,
    machine,
    part,
)
from meshfed.providers.azure.tags import IDENTITY, SERVICE, Said, Wrong, place, told
from meshfed.providers.observed import everywhere

FORGOTTEN = 300.0  # seconds; whoever was not listed for so long is not expected any more

Key = tuple[str, int, str, int]  # Endpoint.key


@dataclass(frozen=True, slots=True)
class Choice:
    """What the configuration says of machines."""

    provider: str
    tag: str = SERVICE  # in lower case
    public: bool = False
    network: str = ""  # of all of them; else each is in its virtual network
    aks: bool = False
    groups: frozenset[str] = frozenset()  # in lower case; none: all

    @property
    def names(self) -> frozenset[str]:
        """The tags that bring a machine into the mesh."""
        return frozenset({self.tag, IDENTITY})

    def scope(self, resource: str) -> str:
        """Where a machine or a scale set is told of: its group, or its Uniform scale set."""
        where = (part(resource, "subscriptions"), part(resource, "resourcegroups"))
        uniform = part(resource, "virtualmachinescalesets")
        return intern("/".join((self.provider, *where, *filter(None, (uniform,)))))

    def takes(self, resource: str, tags: Iterable[Tagged]) -> bool:
        """Whether a machine or a scale set is one to look at: nodes of AKS are pods' business."""
        group = part(resource, "resourcegroups")
        if self.groups and group not in self.groups:
            return False
        return self.aks or not (
            group.startswith("mc_")
            or any(name.startswith("aks-managed-") for _, each in tags for name in each)
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What a machine served when it was listed last."""

    at: float
    keys: tuple[Key, ...]

    def lacks(self, endpoints: Mapping[Key, Endpoint]) -> bool:
        return any(key not in endpoints for key in self.keys)


@dataclass(slots=True)
class Resolved:
    """What stands in one scope."""

    workloads: dict[str, Workload] = field(default_factory=dict)  # by the machine's id
    endpoints: dict[Key, Endpoint] = field(default_factory=dict)
    serving: dict[str, tuple[Key, ...]] = field(default_factory=dict)  # what each machine serves
    listed: set[str] = field(default_factory=set)  # machines that were seen whole
    rejected: set[Rejected] = field(default_factory=set)
    fault: str = ""  # why not all could be read

    @property
    def is_something(self) -> bool:
        return bool(self.workloads or self.rejected or self.fault)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one machine, of which all this was said."""

    listed: Listed
    attached: Sequence[Attachment]
    id: str
    scope: str = ""  # nowhere: it is not one to look at
    workload: Workload | None = None
    endpoints: tuple[Endpoint, ...] = ()
    keys: tuple[Key, ...] = ()
    fault: str = ""
    rejected: Rejected | None = None
    whole: bool = True  # not: an interface of it was missing, for the first time


def resolve(
    choice: Choice,
    machines: Iterable[Listed],
    attached: Mapping[str, Sequence[Attachment]],
    known: dict[str, Taken],
) -> dict[str, Resolved]:
    """Each scope that has a machine in it; attachments by the lower-cased id of what has them.

    What was `known` of machines that were listed before just so is used again; then it is what is
    known now. Of 24,000 machines the first time takes 1.6 s, and the next 0.5 s.
    """
    before = dict(known)
    known.clear()
    scopes: dict[str, Resolved] = {}
    for listed in machines:
        own = listed.found.id
        theirs = (*attached.get(own, ()), *attached.get(listed.scale_set, ()))
        was = before.get(own)
        if was and was.whole and was.attached == theirs and was.listed == listed:
            taken = was
        else:
            taken = take(choice, listed, theirs)
            if before and taken.fault and (was is None or (was.whole and not was.fault)):
                taken = in_passing(taken, was)
        known[own] = taken
        if taken.scope:
            _add(scopes.setdefault(taken.scope, Resolved()), taken)
    return scopes


def take(choice: Choice, listed: Listed, attached: Sequence[Attachment]) -> Taken:
    one = machine(listed)
    if not choice.takes(one.id, one.tags):
        return Taken(listed, attached, one.id)
    where = choice.scope(one.id)
    try:
        said = told(choice.tag, one, attached) if one.verdict else None
        if one.verdict is None or said is None or not said.anything:
            return Taken(listed, attached, one.id, where)
        here = workload(choice, one, said)
        there = tuple(endpoints(choice, one, said, here, one.verdict))
    except Wrong as wrong:
        rejected = wrong.rejected
        if rejected.where == place(one.id):  # what a set is wrong in is said once for all of it
            at = (address for each in one.addresses for address in (each.private, each.public))
            rejected = replace(rejected, about=(one.name, *filter(None, at)))
        return Taken(listed, attached, one.id, where, rejected=rejected)
    fault = f"its network interface {one.lacking} is not listed" if one.lacking else ""
    return Taken(
        listed,
        attached,
        one.id,
        where,
        here,
        there,
        tuple(each.key for each in there),
        f"{place(one.id)}: {fault}" if fault else "",
    )


def in_passing(taken: Taken, was: Taken | None) -> Taken:
    """As it was, for one look, though an interface of it is not listed.

    A look is not a moment: what came or went while lists were read is in some of them only.
    """
    if was is None or was.scope != taken.scope:
        return Taken(taken.listed, taken.attached, taken.id, taken.scope, whole=False)
    return replace(was, listed=taken.listed, attached=taken.attached, whole=False)


def _add(into: Resolved, taken: Taken) -> None:
    if taken.rejected:
        into.rejected.add(taken.rejected)
        return
    if taken.fault:
        into.fault = taken.fault
    elif taken.whole:
        into.listed.add(taken.id)
    if taken.workload:
        into.workloads[taken.id] = taken.workload
    if taken.endpoints:
        into.serving[taken.id] = taken.keys
    for key, each in zip(taken.keys, taken.endpoints, strict=True):
        other = into.endpoints.setdefault(key, each)
        if other.workload != each.workload:
            why = f"{each.address} is another machine's in this list already"
            into.rejected.add(Rejected(place(taken.id), "address", why, (each.address,)))


# What is seen


def workload(choice: Choice, machine: Machine, said: Said) -> Workload:
    """Raises Wrong."""
    if said.identity is None and said.interception is not Interception.NONE:
        why = f"missing: interception {said.interception} needs one; or say `none` there"
        raise Wrong(said.where, IDENTITY, why)
    called = _called(choice, machine)
    if machine.addresses and not called:
        raise Wrong(machine.id, "address", "it has no public address, or that is not allocated")
    addresses = tuple(dict.fromkeys(at for at, _ in called))
    first = called[0][1] if called else Address("")
    named = {
        "fault_domain": machine.fault_domain,
        "scale_set": machine.scale_set.rpartition("/")[2],
        "subnet": first.subnet,
    }
    return Workload(
        machine.name,
        choice.provider,
        choice.scope(machine.id),
        Platform.AZURE,
        said.identity,
        addresses,
        said.interception,
        said.bind or everywhere(addresses),
        said.application or "127.0.0.1",
        network=choice.network or ("" if choice.public else first.network),
        locality=machine.locality,
        labels=tuple((name, text) for name, text in named.items() if text),
        resource_id=machine.id,
    )


def endpoints(
    choice: Choice, machine: Machine, said: Said, here: Workload, verdict: Verdict
) -> Iterator[Endpoint]:
    """One for each port that it serves: at its first address, or at that of an interface."""
    called = _called(choice, machine)
    at = {each.nic: address for address, each in reversed(called)}
    where = [(called[0][0], each) for each in said.primary] if called else []
    where += [(at[nic], each) for nic, several in said.others if nic in at for each in several]
    for address, (service, port, target) in dict.fromkeys(where):
        yield Endpoint(
            service,
            port,
            address,
            target,
            here.id,
            here.provider,
            here.scope,
            here.platform,
            here.identity,
            here.interception,
            here.locality,
            said.weight,
            verdict.health,
            verdict.reason,
            network=here.network,
        )


def _called(choice: Choice, machine: Machine) -> list[tuple[str, Address]]:
    """The addresses that callers may use."""
    every = ((each.public if choice.public else each.private, each) for each in machine.addresses)
    return [(at, each) for at, each in every if at]


def implied(there: Iterable[Endpoint]) -> frozenset[Service]:
    """The services that machines serve; what they are, others may declare."""
    numbers: dict[ServiceName, set[int]] = {}
    for each in there:
        numbers.setdefault(each.service, set()).add(each.port)
    return frozenset(
        Service(name, tuple(Port(n, f"http-{n}") for n in sorted(found)))
        for name, found in numbers.items()
    )


def observation(scope: str, now: Resolved, expected: Mapping[str, Expected]) -> Observation:
    """What is seen of a scope, where this is what its machines served before.

    Azure states that a machine is deallocated, or has other tags or addresses, by listing it so.
    What is not listed may be missing by accident: a right that was taken away, a short answer.
    """
    gone = any(each.lacks(now.endpoints) for each in expected.values())
    stated = gone and not now.fault and expected.keys() <= now.listed
    return Observation(
        scope,
        implied(now.endpoints.values()),
        frozenset(now.workloads.values()),
        frozenset(now.endpoints.values()),
        Evidence.STATED if stated else Evidence.LISTED,
        now.fault,
        tuple(sorted(now.rejected, key=str)),
    )


def expected(
    before: Mapping[str, Expected], now: Resolved, clock: float, *, stated: bool
) -> dict[str, Expected]:
    """The machines that are expected to be listed from now on.

    What Azure listed as gone is expected still where that could not be stated, for something else
    was missing: it is then stated by the next look that sees all.
    """
    left = before.keys() - now.listed
    if not stated:
        left |= {one for one, each in before.items() if each.lacks(now.endpoints)}
    kept = {one: before[one] for one in left if clock - before[one].at < FORGOTTEN}
    served = now.serving.items()
    return {one: Expected(clock, keys) for one, keys in served if one in now.listed} | kept
