"""Who may call whom: TrafficTargets, and the routes they refer to, worked out into grants."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshfed.catalog.model import (
    HttpMatch,
    Identity,
    ObjectName,
    Policy,
    Port,
    RouteGroup,
    Rule,
    TcpRoute,
    TrafficTarget,
)


@dataclass(frozen=True, slots=True, order=True)
class Unresolved:
    """A policy, or part of one, that has no effect: which, and why."""

    kind: str
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.why}"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one TrafficTarget lets its sources do at its destination."""

    policy: ObjectName
    destination: Identity
    sources: tuple[Identity, ...]
    http: tuple[HttpMatch, ...]  # any may hold; none: no HTTP is granted
    tcp: bool
    ports: frozenset[int] | None  # of the service, as callers name them; None is all

    def covers(self, port: Port) -> bool:
        """HTTP is granted by HTTPRouteGroups, everything else by TCPRoutes.

        Beside HTTPRouteGroups, a TCPRoute narrows them to its ports (traffic-access v1alpha3).
        """
        granted = bool(self.http) if port.protocol.is_http else self.tcp
        return granted and bool(self.sources) and (self.ports is None or port.number in self.ports)


@dataclass(frozen=True, slots=True)
class Access:
    """Every grant, by the identity it opens."""

    grants: Mapping[Identity, tuple[Grant, ...]]
    unresolved: tuple[Unresolved, ...]
    opened: Mapping[Identity, tuple[Identity, ...]]  # by source: the destinations

    def to(self, destination: Identity, port: Port) -> tuple[Grant, ...]:
        return tuple(g for g in self.grants.get(destination, ()) if g.covers(port))

    def allowing(self, source: Identity, destination: Identity, port: Port) -> tuple[Grant, ...]:
        return tuple(g for g in self.to(destination, port) if source in g.sources)


def access(policies: Iterable[Policy]) -> Access:
    """Deny by default, and additive: what is not granted by some TrafficTarget is refused."""
    policies = tuple(policies)
    groups = {p.name: p for p in reversed(policies) if isinstance(p, RouteGroup)}
    routes = {p.name: p for p in reversed(policies) if isinstance(p, TcpRoute)}
    grants: dict[Identity, list[Grant]] = {}
    unresolved: list[Unresolved] = []
    for target in policies:
        if isinstance(target, TrafficTarget):
            why = misplaced(target)
            if why:
                unresolved.append(Unresolved("TrafficTarget", str(target.name), why))
                continue
            granted, missing = grant(target, groups, routes)
            grants.setdefault(target.destination, []).append(granted)
            unresolved += [Unresolved("TrafficTarget", str(target.name), w) for w in missing]
    opened: dict[Identity, dict[Identity, None]] = {}
    for destination, given in grants.items():
        for source in {source for granted in given for source in granted.sources}:
            opened.setdefault(source, {})[destination] = None
    return Access(
        {who: tuple(sorted(given, key=lambda g: g.policy)) for who, given in grants.items()},
        tuple(unresolved),
        {source: tuple(destinations) for source, destinations in opened.items()},
    )


def misplaced(target: TrafficTarget) -> str:
    # Else anyone who may write policies in one namespace could open every other (OSM #4116).
    if target.name.namespace != target.destination.namespace:
        return (
            f"it stands in namespace {target.name.namespace} and opens {target.destination}:"
            " it grants nothing; move it to the destination's namespace"
        )
    return ""


def grant(
    target: TrafficTarget,
    groups: Mapping[ObjectName, RouteGroup],
    routes: Mapping[ObjectName, TcpRoute],
) -> tuple[Grant, list[str]]:
    http: list[HttpMatch] = []
    tcp: list[TcpRoute] = []
    narrowed = False
    missing = [] if target.sources else ["it has no sources: it lets nobody in"]
    for rule in target.rules:
        name = ObjectName(target.name.namespace, rule.name)
        # One that does not exist narrows too: what it would have allowed is not known.
        narrowed = narrowed or rule.kind == "TCPRoute"
        if rule.kind == "HTTPRouteGroup" and name in groups:
            found, unknown = chosen(rule, groups[name])
            http += found
            missing += unknown
        elif rule.kind == "TCPRoute" and name in routes:
            tcp.append(routes[name])
        else:
            missing.append(f"{rule.kind} {name} does not exist: this rule grants nothing")
    every = not narrowed or any(not route.ports for route in tcp)
    ports = None if every else frozenset(n for route in tcp for n in route.ports)
    sources = tuple(sorted(target.sources))
    once = tuple(dict.fromkeys(http))
    return Grant(target.name, target.destination, sources, once, bool(tcp), ports), missing


def chosen(rule: Rule, group: RouteGroup) -> tuple[list[HttpMatch], list[str]]:
    """The matches a rule refers to: all of them when it names none."""
    if not rule.matches:
        return list(group.matches), []
    found = [match for match in group.matches if match.name in rule.matches]
    unknown = sorted(set(rule.matches) - {match.name for match in group.matches})
    return found, [f"HTTPRouteGroup {group.name} has no match named {name}" for name in unknown]
