"""What one proxy needs to know of the mesh: the only place where policy is resolved."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct

from meshfed.catalog.access import Grant, Unresolved
from meshfed.catalog.dialled import (
    Denied,
    Names,
    denied,
    distinct_addresses,
    distinct_locals,
    named,
)
from meshfed.catalog.model import (
    Backend,
    HttpMatch,
    Identity,
    Interception,
    Mesh,
    Port,
    Protocol,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.reach import NOWHERE, Assignment, Choice, Near, Outbound, Share, Target
from meshfed.catalog.resolved import Place, Resolved, Served, resolve
from meshfed.catalog.splits import Split


class ProxyClass(Struct, frozen=True, cache_hash=True):
    """Proxies of one class are told the same: CDS, LDS and RDS are built once for them."""

    identity: Identity
    serves: tuple[Served, ...]
    bind: str
    application: str
    network: str
    interception: Interception
    near: Near = NOWHERE  # as far as any service's preference asks


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
    denied: Denied
    unresolved: tuple[Unresolved, ...]
    names: Names = ()  # of transparent callers


class Anonymous(ValueError):
    """A workload that can have no proxy: without an identity, or a sidecar."""


def proxy_class(mesh: Mesh, workload: Workload, resolved: Resolved | None = None) -> ProxyClass:
    """Raises Anonymous. Give `resolved` where many are asked for."""
    if workload.identity is None:
        raise Anonymous(f"{workload.name} has no identity: give it one in {workload.scope}")
    if workload.interception is Interception.NONE:
        raise Anonymous(f"{workload.name} has no sidecar: its interception is none")
    resolved = resolved or resolve(mesh)
    return ProxyClass(
        workload.identity,
        resolved.serves.get(workload.id, ()),
        workload.bind,
        workload.application,
        workload.network,
        workload.interception,
        Near(workload.locality, workload.cluster).asked(resolved.relations),
    )


def view(mesh: Mesh, proxy: ProxyClass, resolved: Resolved | None = None) -> View:
    """Pure; give `resolved` where many views of one mesh are asked for."""
    seen = Seen(mesh, proxy, resolved or resolve(mesh))
    called = [found for place in seen.callable() if (found := seen.outbound(*place)) is not None]
    inbound, unknown = seen.inbound()
    transparent = proxy.interception is Interception.TRANSPARENT
    outbound, unheard = distinct_addresses(called) if transparent else distinct_locals(called)
    refused = denied(outbound, mesh.services.values(), mesh.endpoints) if transparent else ()
    unresolved = {*unknown, *unheard, *seen.left_out(outbound)}
    names = named(mesh) if transparent else ()
    told = tuple(sorted(unresolved))
    return View(proxy, mesh.trust_domain, outbound, inbound, refused, told, names)


@dataclass(frozen=True, slots=True)
class Seen:
    """The mesh through the eyes of one class of proxies."""

    mesh: Mesh
    proxy: ProxyClass
    resolved: Resolved

    def callable(self) -> list[Place]:
        """The service ports worth looking at: what it may reach, and what nobody answers for."""
        roots = self.resolved.splits.of
        places = self.open()
        # Without an answer there is nobody to be refused by: callers are told that instead.
        places |= {
            (service.name, port.number)
            for service in self.mesh.services.values()
            for port in service.ports
            if service.name not in roots and not self.answering(service.name, port)
        }
        places |= {(root, port.number) for root, split in roots.items() for port in split.ports}
        return sorted(places)

    def open(self) -> set[Place]:
        if self.mesh.permissive:
            return set(self.resolved.answering)
        return {
            place
            for destination in self.resolved.access.opened.get(self.proxy.identity, ())
            for place in self.resolved.places.get(destination, ())
        }

    def answering(self, name: ServiceName, port: Port) -> frozenset[Identity | None]:
        return self.resolved.answering.get((name, port.number), frozenset())

    def outbound(self, name: ServiceName, number: int) -> Outbound | None:
        split = self.resolved.splits.of.get(name)
        service = self.mesh.services.get(name)
        ports = split.ports if split else service.ports if service else ()
        port = next((port for port in ports if port.number == number), None)
        if port is None:
            return None
        choices = self.choices(name, port, split)
        if all(choice.silent for choice in choices):
            return None
        return Outbound(name, port, self.addresses(name, number), choices)

    def choices(self, name: ServiceName, port: Port, split: Split | None) -> tuple[Choice, ...]:
        """To the split what is the split's, to the service itself the rest."""
        direct = self.direct(name, port)
        if split is None or (split.matches is not None and not port.protocol.is_http):
            return (direct,)
        divided = self.divided(split, port)
        if split.matches is None:
            return (divided,)
        if direct.silent and not divided.silent:
            direct = Choice(None, (), f"{self.proxy.identity} may not call {name} itself")
        if divided.silent and not direct.silent:
            why = f"{self.proxy.identity} may not call any backend of TrafficSplit {split.policy}"
            divided = Choice(split.matches, (), why)
        return (divided, direct)

    def direct(self, name: ServiceName, port: Port) -> Choice:
        target = self.target(name, port.number)
        if target:
            return Choice(None, (Share(target, 1),))
        known = self.answering(name, port)
        return Choice(None, (), "" if known else f"no endpoint of {name}:{port.number} is known")

    def divided(self, split: Split, port: Port) -> Choice:
        """By weight among the backends that this caller may reach."""
        fit = [backend for backend in split.backends if self.fits(backend, port)]
        shares = tuple(
            Share(target, backend.weight)
            for backend in fit
            if (target := self.target(backend.service, port.number, split.root)) is not None
        )
        why = ""
        if not any(self.answering(backend.service, port) for backend in fit):
            why = f"no backend of TrafficSplit {split.policy} answers on port {port.number}"
        elif shares and not any(share.weight for share in shares):
            why = f"TrafficSplit {split.policy} gives no weight to a backend that can be called"
        elif len(shares) == 1:  # all of it, whatever the others weigh that it may not call
            shares = (Share(shares[0].target, 1),)
        return Choice(split.matches, () if why else shares, why)

    def fits(self, backend: Backend, port: Port) -> bool:
        own = self.mesh.services[backend.service].port(port.number)
        return own is not None and own.protocol.is_http == port.protocol.is_http

    def target(
        self, name: ServiceName, number: int, root: ServiceName | None = None
    ) -> Target | None:
        service = self.mesh.services.get(name)
        port = service.port(number) if service else None
        if service is None or port is None:
            return None
        every = self.answering(name, port)
        allowed = every if self.mesh.permissive else self.allowed(every, port)
        if not allowed:
            return None
        identities = tuple(sorted(identity for identity in allowed if identity))
        preference = self.mesh.preferences.of(name)
        assignment = Assignment(
            name,
            number,
            None if allowed == every else identities,
            self.proxy.network,
            self.proxy.near.asked(preference.prefer),
            preference,
            plaintext=service.plaintext,
        )
        requests = self.requests(service, port, identities)
        return Target(assignment, port.protocol, identities, requests, root)

    def allowed(self, every: frozenset[Identity | None], port: Port) -> frozenset[Identity | None]:
        # Nothing can be granted on an endpoint without an identity.
        return frozenset(who for who in every if who and self.granted(who, port))

    def granted(self, destination: Identity, port: Port) -> tuple[Grant, ...]:
        return self.resolved.access.allowing(self.proxy.identity, destination, port)

    def requests(
        self, service: Service, port: Port, identities: Iterable[Identity]
    ) -> tuple[HttpMatch, ...] | None:
        """Where nothing enforces at the other end, the caller does."""
        if self.mesh.permissive or not (service.plaintext and port.protocol.is_http):
            return None
        grants = (grant for identity in identities for grant in self.granted(identity, port))
        return tuple(dict.fromkeys(match for grant in grants for match in grant.http))

    def addresses(self, name: ServiceName, number: int) -> tuple[str, ...]:
        """What a transparent caller dials: the virtual IP; any member where no platform has one."""
        if self.proxy.interception is not Interception.TRANSPARENT:
            return ()
        service = self.mesh.services.get(name)
        if service and service.vip:
            return (service.vip,)
        members = {e.address for e in self.mesh.endpoints_of(name, number)}
        return (*(service.virtual if service else ()), *sorted(members))

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
                why = f"nobody declares its port {number}: it cannot be served"
                unresolved.append(Unresolved("Service", str(name), why))
                continue
            given = self.resolved.access.to(self.proxy.identity, port)
            allowed = None if self.mesh.permissive else given
            found.append(Inbound(name, number, tuple(ports), port.protocol, allowed))
        return tuple(found), unresolved

    def left_out(self, outbounds: Iterable[Outbound]) -> list[Unresolved]:
        """Backends that get none of this caller's share of a split."""
        return [
            Unresolved("TrafficSplit", str(split.policy), f"backend {backend.service} {why}")
            for outbound in outbounds
            if (split := self.resolved.splits.of.get(outbound.service))
            for backend in split.backends
            if self.fits(backend, outbound.port)
            and (why := self.unreached(backend.service, outbound.port))
        ]

    def unreached(self, name: ServiceName, port: Port) -> str:
        if self.target(name, port.number):
            return ""
        if not self.answering(name, port):
            return "has no endpoints: its share goes to the others"
        return f"may not be called by {self.proxy.identity}: its share goes to the others"
