"""Policies spread out into rows that SQL can join: who may call whom, and how calls are split."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshfed.catalog.model import (
    HttpMatch,
    ObjectName,
    Policy,
    RouteGroup,
    Rule,
    ServiceName,
    TcpRoute,
    TrafficSplit,
    TrafficTarget,
)

ANY_PORT = 0


class Grant(NamedTuple):
    """One source may call one destination in one way. Layer: http or tcp."""

    policy: str
    source: str
    destination: str
    layer: str
    port: int
    methods: str
    path: str
    headers: str


class Share(NamedTuple):
    """One backend's part of the calls to a service."""

    policy: str
    service: str
    backend: str
    weight: int
    total: int
    matches: str


def grants(policies: Iterable[Policy]) -> frozenset[Grant]:
    policies = tuple(policies)
    groups = {p.name: p for p in policies if isinstance(p, RouteGroup)}
    routes = {p.name: p for p in policies if isinstance(p, TcpRoute)}
    targets = (p for p in policies if isinstance(p, TrafficTarget))
    return frozenset(grant for target in targets for grant in _of_target(target, groups, routes))


def shares(policies: Iterable[Policy]) -> frozenset[Share]:
    splits: dict[ServiceName, TrafficSplit] = {}
    for policy in policies:
        if isinstance(policy, TrafficSplit):
            first = splits.setdefault(policy.service, policy)
            if policy.name < first.name:  # of two splits of one service the first by name applies
                splits[policy.service] = policy
    return frozenset(share for split in splits.values() for share in _of_split(split))


def _of_target(
    target: TrafficTarget, groups: dict[ObjectName, RouteGroup], routes: dict[ObjectName, TcpRoute]
) -> Iterator[Grant]:
    ports = frozenset(_ports(target, routes))
    http = [(match, port) for match in _matches(target, groups) for port in _or_any(target, ports)]
    for source in target.sources:
        who = (str(target.name), str(source), str(target.destination))
        for port in ports:
            yield Grant(*who, "tcp", port, "", "", "")
        for match, port in http:
            yield Grant(*who, "http", port, _methods(match), match.path_regex, _headers(match))


def _ports(target: TrafficTarget, routes: dict[ObjectName, TcpRoute]) -> Iterator[int]:
    for rule in target.rules:
        route = routes.get(ObjectName(target.name.namespace, rule.name))
        if rule.kind == "TCPRoute" and route:
            yield from route.ports or {ANY_PORT}


def _or_any(target: TrafficTarget, ports: frozenset[int]) -> frozenset[int]:
    # A TCPRoute beside an HTTPRouteGroup narrows it to its ports (SMI traffic access, v1alpha3).
    narrowed = any(rule.kind == "TCPRoute" for rule in target.rules)
    return ports if narrowed else frozenset({ANY_PORT})


def _matches(target: TrafficTarget, groups: dict[ObjectName, RouteGroup]) -> Iterator[HttpMatch]:
    for rule in target.rules:
        group = groups.get(ObjectName(target.name.namespace, rule.name))
        if rule.kind == "HTTPRouteGroup" and group:
            yield from _chosen(rule, group)


def _chosen(rule: Rule, group: RouteGroup) -> Iterator[HttpMatch]:
    return (match for match in group.matches if not rule.matches or match.name in rule.matches)


def _methods(match: HttpMatch) -> str:
    return ", ".join(sorted(match.methods)) or "*"


def _headers(match: HttpMatch) -> str:
    return ", ".join(f"{name}: {regex}" for name, regex in match.headers)


def _of_split(split: TrafficSplit) -> Iterator[Share]:
    weights: dict[ServiceName, int] = {}
    for backend in split.backends:
        weights[backend.service] = weights.get(backend.service, 0) + backend.weight
    total = sum(weights.values())
    for service, weight in weights.items():
        yield Share(
            str(split.name), str(split.service), str(service), weight, total,
            ", ".join(split.matches),
        )  # fmt: skip
