"""What an Envoy would do with a call: where it is sent, and what is answered there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any

from meshfed.catalog.access import Grant
from meshfed.catalog.model import (
    Endpoint,
    HttpMatch,
    Identity,
    Interception,
    Mesh,
    Port,
    ServiceName,
)
from meshfed.catalog.reach import Choice, Outbound, Share, Target
from meshfed.catalog.resolved import Resolved
from meshfed.catalog.view import ProxyClass, View
from meshfed.federation.explain.denials import why_denied
from meshfed.federation.explain.matching import Request, permits, route_holds
from meshfed.federation.explain.step import Step, failing
from meshfed.federation.findings import nearest
from meshfed.xds.endpoints import load_assignment, reached_at
from meshfed.xds.grpc_client import way
from meshfed.xds.rbac import permission
from meshfed.xds.routes import methods, route_match, unspoken

USED = (health_check_pb2.HEALTHY, health_check_pb2.UNKNOWN)  # Envoy sends calls to no others
NOBODY: Mapping[str, str] = MappingProxyType({})


class Verdict(StrEnum):
    """What the wire would say."""

    ALLOWED = "allowed"
    PARTLY = "partly"  # some endpoints would, others would not
    REFUSED = "refused"
    NOWHERE = "nowhere"  # nobody answers


UNCONNECTED = "is not connected"  # the trouble of a proxy that no control plane has


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the mesh itself."""

    files: Mapping[tuple[str, str], str] = field(default_factory=dict)  # of policies
    trouble: Mapping[str, str] = field(default_factory=lambda: NOBODY)  # workload id → of its proxy


@dataclass(frozen=True, slots=True)
class Asked:
    """A call. Without a port: the one that an HTTP caller means who names none."""

    destination: ServiceName
    port: int | None = None
    request: Request | None = None  # None: any

    def __str__(self) -> str:
        return f"{self.destination}:{self.port}" if self.port else str(self.destination)


@dataclass(frozen=True, slots=True)
class Hop:
    """One endpoint that the call may end at."""

    share: float  # of the calls, in percent, as far as a split decides
    endpoint: Endpoint
    used: bool  # its health lets calls through
    priority: int
    policies: tuple[str, ...]  # that let this caller in; "permissive" where nothing is asked
    status: int | None  # what HTTP callers see; None where bytes flow, or do not

    @property
    def mtls(self) -> bool:
        return self.endpoint.interception is not Interception.NONE


@dataclass(frozen=True, slots=True)
class Path:
    verdict: Verdict
    statuses: frozenset[int]  # what HTTP callers may see
    steps: tuple[Step, ...]
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The caller's own sidecar knows of no such place for it."""

    status: int | None  # None: no HTTP answer, the connection ends
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Located:
    """Finding what the caller means by a name and a port."""

    mesh: Mesh
    caller: ProxyClass
    asked: Asked
    seen: View
    resolved: Resolved

    def outbound(self) -> "Outbound | Refused":
        found, request = self._meant(), self.asked.request
        itself = self.caller.interception is Interception.GRPC
        if isinstance(found, Outbound) and itself and not found.port.protocol.is_grpc:
            return Refused(None, (_no_grpc(found),))
        if isinstance(found, Refused) or request is None or not found.port.protocol.is_http:
            return found
        return Refused(400, (_fragment(request),)) if "#" in request.path else found

    def _meant(self) -> "Outbound | Refused":
        name = self.asked.destination
        ports = self._ports()
        if not ports:
            return Refused(404, (_no_service(self.mesh, name),))
        ours = [outbound for outbound in self.seen.outbound if outbound.service == name]
        if self.asked.port is None:
            meant = unspoken(ours) if ours else None
            if meant:
                return meant
            if len(ports) == 1:
                return self._absent(ports[0])
            return Refused(404, (_several(name, ports),))
        found = next((o for o in ours if o.port.number == self.asked.port), None)
        if found:
            return found
        port = next((port for port in ports if port.number == self.asked.port), None)
        return self._absent(port) if port else Refused(404, (_wrong_port(self.asked, ports),))

    def _ports(self) -> tuple[Port, ...]:
        split = self.resolved.splits.of.get(self.asked.destination)
        service = self.mesh.services.get(self.asked.destination)
        return split.ports if split else service.ports if service else ()

    def _absent(self, port: Port) -> "Refused":
        """The port exists, and this caller is told nothing of it."""
        name = self.asked.destination
        transparent = self.caller.interception is Interception.TRANSPARENT
        status = None if transparent or not port.protocol.is_http else 404
        about = [each.why for each in self.seen.unresolved if each.name == str(name)]
        if about:
            steps = tuple(failing("address", name, why) for why in about)
        else:
            steps = why_denied(self.mesh, self.resolved, self.caller.identity, name, port)
        return Refused(status, steps)


@dataclass(frozen=True, slots=True)
class Judged:
    """One outbound, and what its ends say to this request."""

    mesh: Mesh
    caller: ProxyClass
    outbound: Outbound
    asked: Asked
    resolved: Resolved

    @property
    def http(self) -> bool:
        return self.outbound.port.protocol.is_http

    @property
    def request(self) -> Request | None:
        return self.asked.request if self.http else None

    def choices(self) -> tuple[Choice, ...]:
        """Where it may go: the first that matches; all of them while the request is open."""
        if not self.http:
            return self.outbound.choices[-1:]
        if self.request is None:
            return self.outbound.choices
        taken = (choice for choice in self.outbound.choices if _matches(choice, self.request))
        return (next(taken, self.outbound.choices[-1]),)

    def hops(self, choice: Choice) -> Iterator[Hop]:
        total = sum(share.weight for share in choice.shares)
        alone = len(choice.shares) == 1
        for share in choice.shares:
            if alone or share.weight:
                percent = 100.0 if alone else 100.0 * share.weight / total
                yield from self._to(share, percent)

    def _to(self, share: Share, percent: float) -> Iterator[Hop]:
        for target in self._ends(share.target):
            for endpoint, used, priority in told_endpoints(self.mesh, target):
                policies, status = self._answer(target, endpoint)
                yield Hop(percent, endpoint, used, priority, policies, status)

    def _ends(self, target: Target) -> Iterator[Target]:
        """A gRPC client speaks either mutual TLS or plaintext to a whole cluster."""
        if self.caller.interception is not Interception.GRPC:
            yield target
            return
        for end in way(target).ends:
            yield replace(target, assignment=end)

    def _answer(self, target: Target, endpoint: Endpoint) -> tuple[tuple[str, ...], int | None]:
        """The policies that let this caller in there, and the status that it sees."""
        if self.mesh.permissive:
            return ("permissive",), 200 if self.http else None
        grants = self.granted(target, endpoint.identity)
        if self.request is not None:
            grants = tuple(grant for grant in grants if _any(grant.http, self.request))
        names = tuple(str(grant.policy) for grant in grants)
        if not self.http:
            return names, None
        if self.request is None:
            return names, 200
        # Where nothing enforces at the other end the caller does, for all who may answer alike.
        itself = target.requests is None or _any(target.requests, self.request)
        bare = endpoint.interception is Interception.NONE
        return names, 200 if itself and (names or bare) else 403

    def granted(self, target: Target, identity: Identity | None) -> tuple[Grant, ...]:
        service = self.mesh.services[target.assignment.service]
        port = service.port(target.assignment.port)
        if identity is None or port is None:
            return ()
        return self.resolved.access.allowing(self.caller.identity, identity, port)


def told_endpoints(mesh: Mesh, target: Target) -> Iterator[tuple[Endpoint, bool, int]]:
    """The endpoints that this caller is sent; whether each is used, and at which priority."""
    assignment = target.assignment
    known = mesh.endpoints_of(assignment.service, assignment.port)
    at = {reached_at(endpoint): endpoint for endpoint in reversed(known)}
    packed = Any.FromString(load_assignment(assignment, known).any)
    for group in ClusterLoadAssignment.FromString(packed.value).endpoints:
        for member in group.lb_endpoints:
            where = member.endpoint.address.socket_address
            used = member.health_status in USED
            yield at[where.address, where.port_value], used, group.priority


def _matches(choice: Choice, request: Request) -> bool:
    if choice.matches is None:
        return True
    told = (route_match(match, name) for match in choice.matches for name in methods(match))
    return any(route_holds(match, request) for match in told)


def _any(matches: Iterable[HttpMatch], request: Request) -> bool:
    return any(permits(permission(match), request) for match in matches)


def _fragment(request: Request) -> Step:
    why = "a path with a fragment is refused by every Envoy"
    return failing("request", request, why, "leave out what begins with #: clients never send it")


def _no_grpc(outbound: Outbound) -> Step:
    name, port = outbound.service, outbound.port
    why = f"it speaks {port.protocol}: gRPC without a sidecar calls only grpc and http2"
    return failing("dial", f"{name}:{port.number}", why, "give the caller a sidecar")


def _no_service(mesh: Mesh, name: ServiceName) -> Step:
    near = nearest(str(name), {str(service) for service in mesh.services})
    remedy = f"did you mean {near}?" if near else "see `meshfed get services`"
    return failing("service", name, "no provider knows a service of this name", remedy)


def _several(name: ServiceName, ports: Iterable[Port]) -> Step:
    return failing("service", name, f"it has the ports {_listed(ports)}", "name one of them")


def _wrong_port(asked: Asked, ports: Iterable[Port]) -> Step:
    why = f"it has no port {asked.port}: it has {_listed(ports)}"
    return failing("service", asked.destination, why, "call one of these, or declare that port")


def _listed(ports: Iterable[Port]) -> str:
    return ", ".join(f"{port.number} ({port.protocol})" for port in ports)
