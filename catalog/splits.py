"""Which TrafficSplit applies to a service, and which of its backends count."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from meshfed.catalog.access import Unresolved
from meshfed.catalog.model import (
    Backend,
    HttpMatch,
    ObjectName,
    Policy,
    Port,
    RouteGroup,
    Service,
    ServiceName,
    TrafficSplit,
)


@dataclass(frozen=True, slots=True)
class Split:
    """The split of one root service, with its references followed."""

    policy: ObjectName
    root: ServiceName
    ports: tuple[Port, ...]  # of the root, or of its backends where nobody declares the root
    backends: tuple[Backend, ...]  # each service once
    matches: tuple[HttpMatch, ...] | None  # None: every request


@dataclass(frozen=True, slots=True)
class Splits:
    of: Mapping[ServiceName, Split]
    unresolved: tuple[Unresolved, ...]


def splits(policies: Iterable[Policy], services: Mapping[ServiceName, Service]) -> Splits:
    """One split per root: the first by name, as OSM takes the first it finds."""
    policies = tuple(policies)
    groups = {p.name: p for p in reversed(policies) if isinstance(p, RouteGroup)}
    found: dict[ServiceName, Split] = {}
    unresolved: list[Unresolved] = []
    candidates = (p for p in policies if isinstance(p, TrafficSplit))
    for policy in sorted(candidates, key=lambda p: (p.name, p.service)):
        report = reporter(policy, unresolved)
        if policy.service in found:
            other = found[policy.service].policy
            report(f"{policy.service} is split by {other} already: this one has no effect")
            continue
        split = resolve_split(policy, services, groups, report)
        found[policy.service] = split
    return Splits(found, tuple(unresolved))


def reporter(policy: TrafficSplit, unresolved: list[Unresolved]) -> Callable[[str], None]:
    return lambda why: unresolved.append(Unresolved("TrafficSplit", str(policy.name), why))


def resolve_split(
    policy: TrafficSplit,
    services: Mapping[ServiceName, Service],
    groups: Mapping[ObjectName, RouteGroup],
    report: Callable[[str], None],
) -> Split:
    weights: dict[ServiceName, int] = {}
    for backend in policy.backends:
        if backend.service == policy.service:
            report(f"{backend.service} cannot be a backend of itself: it is left out")
        elif backend.service not in services:
            report(f"backend {backend.service} does not exist: it is left out")
        else:
            weights[backend.service] = weights.get(backend.service, 0) + backend.weight
    backends = tuple(Backend(service, weight) for service, weight in sorted(weights.items()))
    declared = services[policy.service].ports if policy.service in services else ()
    ports = declared or ports_of(backends, services)
    for port in ports:
        for backend in backends:
            why = unfit(services[backend.service], port)
            if why:
                report(why)
    if backends and not any(backend.weight for backend in backends):
        report("every weight is 0: calls are answered with 503")
    matches = followed(policy, groups, report)
    if matches is not None and any(not port.protocol.is_http for port in ports):
        report(f"its matches are of HTTP: the TCP ports of {policy.service} are not split")
    return Split(policy.name, policy.service, ports, backends, matches)


def ports_of(
    backends: Iterable[Backend], services: Mapping[ServiceName, Service]
) -> tuple[Port, ...]:
    """A root that nobody declares listens where its backends do."""
    ports: dict[int, Port] = {}
    for backend in backends:
        for port in services[backend.service].ports:
            # A local port is the backend's own: two services cannot share one.
            ports.setdefault(port.number, replace(port, local=None))
    return tuple(ports[number] for number in sorted(ports))


def unfit(service: Service, port: Port) -> str:
    """Why this backend cannot take calls to that port of the root; empty when it can."""
    own = service.port(port.number)
    if own is None:
        return f"backend {service.name} has no port {port.number}: it is left out there"
    if own.protocol.is_http != port.protocol.is_http:
        return (
            f"backend {service.name} speaks {own.protocol} on port {port.number},"
            f" the root {port.protocol}: it is left out there"
        )
    return ""


def followed(
    policy: TrafficSplit,
    groups: Mapping[ObjectName, RouteGroup],
    report: Callable[[str], None],
) -> tuple[HttpMatch, ...] | None:
    if not policy.matches:
        return None
    matches: list[HttpMatch] = []
    for name in (ObjectName(policy.name.namespace, group) for group in policy.matches):
        if name in groups:
            matches += groups[name].matches
        else:
            report(f"HTTPRouteGroup {name} does not exist: it matches nothing")
    return tuple(dict.fromkeys(matches))
