"""What one proxy needs to know of the mesh: the only place where policy is resolved."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from meshfed.catalog.access import Access, Grant, Unresolved, access
from meshfed.catalog.model import (
    Endpoint,
    HttpMatch,
    Identity,
    Interception,
    Locality,
    Mesh,
    Port,
    Protocol,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.splits import Split, Splits, splits

Place = tuple[ServiceName, int]  # a service's port
ANYWHERE = Locality()


@dataclass(frozen=True, slots=True, order=True)
class Served:
    """A workload answers for this service's port on that port of its application."""

    service: ServiceName
    port: int
    target: int


@dataclass(frozen=True, slots=True)
class ProxyClass:
    """Proxies of one class are told the same: CDS, LDS and RDS are built once for them."""

    identity: Identity
    serves: tuple[Served, ...]
    bind: str
    application: str
    network: str
    interception: Interception


@dataclass(frozen=True, slots=True)
class Assignment:
    """The endpoints of a service's port that some callers share.

    Its variant names what makes these callers differ from others, so equal ones share the bytes.
    """

    service: ServiceName
    port: int
    identities: tuple[Identity, ...] | None = None  # which these callers may reach; None is all
    network: str = ""
    locality: Locality = ANYWHERE
    plaintext: bool = False  # the service's own word on endpoints without a sidecar

    @property
    def name(self) -> str:
        name = f"{self.service}|{self.port}"
        if self.identities is None and not self.network and self.locality == ANYWHERE:
            return name
        identities = "*" if self.identities is None else ",".join(map(str, self.identities))
        variant = "\0".join((identities, self.network, str(self.locality)))
        return f"{name}|{sha256(variant.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Target:
    """One place a call may end, and who may answer there."""

    assignment: Assignment
    protocol: Protocol
    identities: tuple[Identity, ...]  # empty: nothing there has a sidecar
    requests: tuple[HttpMatch, ...] | None  # what the caller itself must enforce; None is nothing


@dataclass(frozen=True, slots=True)
class Share:
    target: Target
    weight: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Where calls go that match: by weight, or nowhere and why."""

    matches: tuple[HttpMatch, ...] | None  # any may hold; None is every call
    shares: tuple[Share, ...]
    why: str = ""  # there are no shares


@dataclass(frozen=True, slots=True)
class Outbound:
    """A service's port that this proxy may call."""

    service: ServiceName
    port: Port
    addresses: tuple[str, ...]  # what transparent callers dial
    choices: tuple[Choice, ...]  # the first that matches; the last one matches everything


@dataclass(frozen=True, slots=True)
class Inbound:
    """A service's port that this proxy answers for."""

    service: ServiceName
    port: int
    targets: tuple[int, ...]
    protocol: Protocol
    grants: tuple[Grant, ...] | None  # None: permissive, everybody


@dataclass(frozen=True, slots=True)
class View:
    proxy: ProxyClass
    trust_domain: str
    outbound: tuple[Outbound, ...]
    inbound: tuple[Inbound, ...]
    denied: tuple[tuple[int, tuple[str, ...]], ...]  # port: addresses it must not pass through to
    unresolved: tuple[Unresolved, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What all the views of one mesh share, worked out once."""

    access: Access
    splits: Splits
    answering: Mapping[Place, frozenset[Identity | None]]
    places: Mapping[Identity, tuple[Place, ...]]  # what an identity answers for
    serves: Mapping[str, tuple[Served, ...]]  # by workload

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """Everything that is written and has no effect, whoever calls."""
        return tuple(sorted({*self.access.unresolved, *self.splits.unresolved}))


class Anonymous(ValueError):
    """A workload that can have no proxy: without an identity, or a sidecar."""


def resolve(mesh: Mesh) -> Resolved:
    answering: defaultdict[Place, set[Identity | None]] = defaultdict(set)
    places: defaultdict[Identity, set[Place]] = defaultdict(set)
    serves: defaultdict[str, set[Served]] = defaultdict(set)
    for name, endpoints in mesh.endpoints.items():
        plaintext = name in mesh.services and mesh.services[name].plaintext
        for endpoint in endpoints:
            serves[endpoint.workload].add(Served(name, endpoint.port, endpoint.target))
            if reachable(endpoint, plaintext=plaintext):
                answering[name, endpoint.port].add(endpoint.identity)
                if endpoint.identity:
                    places[endpoint.identity].add((name, endpoint.port))
    return Resolved(
        access(mesh.policies),
        splits(mesh.policies, mesh.services),
        {place: frozenset(identities) for place, identities in answering.items()},
        {identity: tuple(sorted(found)) for identity, found in places.items()},
        {workload: tuple(sorted(served)) for workload, served in serves.items()},
    )


def reachable(endpoint: Endpoint, *, plaintext: bool) -> bool:
    """Without a sidecar there is no mutual TLS: only where the service allows plaintext."""
    if endpoint.interception is Interception.NONE:
        return plaintext
    return endpoint.identity is not None


def proxy_class(mesh: Mesh, workload: Workload, resolved: Resolved | None = None) -> ProxyClass:
    """Raises Anonymous. Give `resolved` where many are asked for."""
    if workload.identity is None:
        raise Anonymous(f"{workload.name} has no identity: give it one in {workload.scope}")
    if workload.interception is Interception.NONE:
        raise Anonymous(f"{workload.name} has no sidecar: its interception is none")
    return ProxyClass(
        workload.identity,
        (resolved or resolve(mesh)).serves.get(workload.id, ()),
        workload.bind,
        workload.application,
        workload.network,
        workload.interception,
    )


def answering(service: Service, endpoints: Iterable[Endpoint]) -> frozenset[tuple[object, ...]]:
    """What other proxies' views take from a service's endpoints: while it stays, only EDS moves."""
    return frozenset(
        (endpoint.port, endpoint.identity, "" if service.vip else endpoint.address)
        for endpoint in endpoints
        if reachable(endpoint, plaintext=service.plaintext)
    )


def view(mesh: Mesh, proxy: ProxyClass, resolved: Resolved | None = None) -> View:
    """Pure; give `resolved` where many views of one mesh are asked for."""
    seen = Caller(mesh, proxy, resolved or resolve(mesh))
    outbound = tuple(
        found for place in seen.callable() if (found := seen.outbound(*place)) is not None
    )
    inbound, unknown = seen.inbound()
    transparent = proxy.interception is Interception.TRANSPARENT
    outbound, unheard = distinct_addresses(outbound) if transparent else distinct_locals(outbound)
    return View(
        proxy,
        mesh.trust_domain,
        outbound,
        inbound,
        seen.denied(outbound) if transparent else (),
        tuple(sorted({*unknown, *unheard, *seen.refused(outbound)})),
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """The mesh through the eyes of one proxy class."""

    mesh: Mesh
    proxy: ProxyClass
    resolved: Resolved

    def callable(self) -> list[Place]:
        """The service ports worth looking at: those with someone this identity may reach."""
        roots = {s.root: s for s in self.resolved.splits.of.values()}
        places = self.answered()
        places |= {
            (split.root, port.number)
            for split in roots.values()
            for port in split.ports
            if any((b.service, port.number) in places for b in split.backends)
        }
        # A service nobody answers for is said to be so, which is not the same as being refused.
        places |= {
            (service.name, port.number)
            for service in self.mesh.services.values()
            for port in service.ports
            if service.name not in roots
            and not self.resolved.answering.get((service.name, port.number))
        }
        return sorted(places)

    def answered(self) -> set[Place]:
        if self.mesh.permissive:
            return set(self.resolved.answering)
        return {
            place
            for destination, given in self.resolved.access.grants.items()
            if any(self.proxy.identity in grant.sources for grant in given)
            for place in self.resolved.places.get(destination, ())
        }

    def outbound(self, name: ServiceName, number: int) -> Outbound | None:
        split = self.resolved.splits.of.get(name)
        port = self.port(name, number, split)
        if port is None:
            return None
        own = self.target(name, number)
        choices = self.choices(name, port, split, own)
        if split and not any(choice.shares or choice.why for choice in choices):
            return None
        if not split and own is None and self.resolved.answering.get((name, number)):
            return None
        return Outbound(name, port, self.addresses(name, number), choices)

    def port(self, name: ServiceName, number: int, split: Split | None) -> Port | None:
        service = self.mesh.services.get(name)
        ports = split.ports if split else service.ports if service else ()
        return next((port for port in ports if port.number == number), None)

    def choices(
        self, name: ServiceName, port: Port, split: Split | None, own: Target | None
    ) -> tuple[Choice, ...]:
        empty = f"no endpoint of {name}:{port.number} is known"
        direct = Choice(None, (Share(own, 1),)) if own else Choice(None, (), empty)
        if split is None or (split.matches is not None and not port.protocol.is_http):
            return (direct,)
        divided = self.divided(split, port)
        if split.matches is None:
            return (divided,)
        if not own and self.resolved.answering.get((name, port.number)):
            direct = Choice(None, (), f"{self.proxy.identity} may not call {name} itself")
        # Nobody to call either way: the split is none of this caller's business.
        return (divided, direct) if divided.shares or divided.why or own else (Choice(None, ()),)

    def divided(self, split: Split, port: Port) -> Choice:
        """By weight among the backends this caller may call; the others' share is theirs."""
        shares = tuple(
            Share(target, backend.weight)
            for backend in split.backends
            if self.fits(backend.service, port)
            and (target := self.target(backend.service, port.number)) is not None
        )
        if shares and not any(share.weight for share in shares):
            why = f"TrafficSplit {split.policy} gives no weight to any backend that can be called"
            return Choice(split.matches, (), why)
        return Choice(split.matches, shares)

    def fits(self, name: ServiceName, port: Port) -> bool:
        own = self.mesh.services[name].port(port.number)
        return own is not None and own.protocol.is_http == port.protocol.is_http

    def target(self, name: ServiceName, number: int) -> Target | None:
        service = self.mesh.services.get(name)
        port = service.port(number) if service else None
        every = self.resolved.answering.get((name, number), frozenset())
        if service is None or port is None:
            return None
        allowed = every if self.mesh.permissive else self.allowed(every, port)
        if not allowed:
            return None
        identities = tuple(sorted(identity for identity in allowed if identity))
        return Target(
            Assignment(
                name,
                number,
                None if allowed == every else identities,
                self.proxy.network,
                plaintext=service.plaintext,
            ),
            port.protocol,
            identities,
            self.requests(service, port, identities),
        )

    def allowed(self, every: frozenset[Identity | None], port: Port) -> frozenset[Identity | None]:
        # Nothing can be granted on an endpoint without an identity.
        source, grants = self.proxy.identity, self.resolved.access
        return frozenset(who for who in every if who and grants.allowing(source, who, port))

    def requests(
        self, service: Service, port: Port, identities: Iterable[Identity]
    ) -> tuple[HttpMatch, ...] | None:
        """Where nothing enforces at the other end, the caller does."""
        if self.mesh.permissive or not (service.plaintext and port.protocol.is_http):
            return None
        given = self.resolved.access
        return tuple(
            dict.fromkeys(
                match
                for identity in identities
                for grant in given.allowing(self.proxy.identity, identity, port)
                for match in grant.http
            )
        )

    def addresses(self, name: ServiceName, number: int) -> tuple[str, ...]:
        """What a transparent caller dials: the virtual IP, or any member."""
        if self.proxy.interception is not Interception.TRANSPARENT:
            return ()
        service = self.mesh.services.get(name)
        if service and service.vip:
            return (service.vip,)
        return tuple(sorted({e.address for e in self.mesh.endpoints_of(name, number)}))

    def inbound(self) -> tuple[tuple[Inbound, ...], list[Unresolved]]:
        targets: defaultdict[Place, list[int]] = defaultdict(list)
        for served in self.proxy.serves:
            targets[served.service, served.port].append(served.target)
        found: list[Inbound] = []
        unresolved: list[Unresolved] = []
        for (name, number), ports in targets.items():
            service = self.mesh.services.get(name)
            port = service.port(number) if service else None
            if port is None:
                why = f"no service has its port {number}: it cannot be served"
                unresolved.append(Unresolved("Service", str(name), why))
                continue
            given = self.resolved.access.to(self.proxy.identity, port)
            grants = None if self.mesh.permissive else given
            found.append(Inbound(name, number, tuple(ports), port.protocol, grants))
        return tuple(found), unresolved

    def denied(self, outbound: Iterable[Outbound]) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Mesh addresses that would else be passed through as if they were the outside world.

        A sidecar refuses what comes in plaintext; where there is none, nothing but this does.
        """
        given = {(o.port.number, address) for o in outbound for address in o.addresses}
        known = {
            place
            for name, service in self.mesh.services.items()
            for port in service.ports
            for place in dialled(service, port, self.mesh.endpoints.get(name, ()))
        }
        ports: defaultdict[int, list[str]] = defaultdict(list)
        for number, address in sorted(known - given):
            ports[number].append(address)
        return tuple((number, tuple(addresses)) for number, addresses in ports.items())

    def refused(self, outbound: Iterable[Outbound]) -> list[Unresolved]:
        """Backends of the splits it calls that are not this caller's to reach."""
        found: list[Unresolved] = []
        for out in outbound:
            split = self.resolved.splits.of.get(out.service)
            for backend in split.backends if split else ():
                place = (backend.service, out.port.number)
                if self.fits(backend.service, out.port) and self.target(*place) is None:
                    known = self.resolved.answering.get(place)
                    why = "may not be called" if known else "has no endpoints"
                    policy = split.policy if split else ""
                    found.append(
                        Unresolved(
                            "TrafficSplit",
                            str(policy),
                            f"backend {backend.service} {why} by {self.proxy.identity}:"
                            " its share goes to the others"
                            if known
                            else f"backend {backend.service} {why}: its share goes to the others",
                        )
                    )
        return found


def dialled(
    service: Service, port: Port, endpoints: Iterable[Endpoint]
) -> Iterable[tuple[int, str]]:
    if service.vip:
        yield port.number, service.vip
    for endpoint in endpoints:
        if endpoint.port == port.number:
            yield port.number, endpoint.address
            yield endpoint.target, endpoint.address


def distinct_locals(
    outbound: tuple[Outbound, ...],
) -> tuple[tuple[Outbound, ...], list[Unresolved]]:
    """A loopback port leads to one service: the first by name."""
    owner: dict[int, Outbound] = {}
    unresolved: list[Unresolved] = []
    kept: list[Outbound] = []
    for out in outbound:
        local = None if out.port.protocol.is_http else out.port.local
        if local is not None and owner.setdefault(local, out) is not out:
            first = owner[local]
            why = f"local port {local} leads to {first.service} already: choose another"
            unresolved.append(Unresolved("Service", str(out.service), why))
            continue
        kept.append(out)
    return tuple(kept), unresolved


def distinct_addresses(
    outbound: tuple[Outbound, ...],
) -> tuple[tuple[Outbound, ...], list[Unresolved]]:
    """HTTP services may share an address and port; a TCP service needs its own.

    The first by name has it: two equal matches make Envoy reject the whole listener.
    """
    owner: dict[tuple[str, int], Outbound] = {}
    unresolved: list[Unresolved] = []
    kept: list[Outbound] = []
    for out in outbound:
        places = [(address, out.port.number) for address in out.addresses]
        taken = [owner[p] for p in places if p in owner and not both_http(owner[p], out)]
        if taken or not places:
            why = (
                f"port {out.port.number} of its address leads to {taken[0].service} already:"
                " transparent callers cannot reach it; give it a virtual IP of its own"
                if taken
                else "it has neither a virtual IP nor endpoints:"
                " transparent callers cannot reach it"
            )
            unresolved.append(Unresolved("Service", str(out.service), why))
            continue
        kept.append(out)
        owner.update((place, out) for place in places if place not in owner)
    return tuple(kept), unresolved


def both_http(one: Outbound, other: Outbound) -> bool:
    return one.port.protocol.is_http and other.port.protocol.is_http
