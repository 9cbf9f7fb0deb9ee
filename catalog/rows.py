"""The mesh's values as rows of the tables, and back."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from sys import intern
from typing import TYPE_CHECKING

from meshfed.catalog.model import (
    Backend,
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Locality,
    ObjectName,
    Platform,
    Policy,
    Port,
    Protocol,
    Rejected,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    TcpRoute,
    TrafficSplit,
    TrafficTarget,
    Word,
    Workload,
)
from meshfed.catalog.plain import Row

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

# Names repeat in thousands of rows; parsing each once makes a cold start several times faster.
service_name = lru_cache(65_536)(ServiceName.parse)


@lru_cache(65_536)
def identity(text: str) -> Identity | None:
    return Identity.parse(text) if text else None


@lru_cache(4_096)
def locality(region: str, zone: str) -> Locality:
    return Locality(region, zone)


ENDPOINT = (
    "provider", "scope", "service", "port", "address", "target", "workload", "platform", "identity",
    "interception", "region", "zone", "weight", "health", "health_reason", "cluster", "network",
)  # fmt: skip
WORKLOAD = (
    "workload", "name", "provider", "scope", "platform", "identity", "addresses", "interception",
    "bind", "application", "network", "region", "zone", "labels", "resource_id", "cluster",
)  # fmt: skip
STATEMENT = ("service", "ports", "vip", "plaintext", "headless")
SERVICE = (*STATEMENT, "virtual_ips")

# An enum's own way from a value and to it takes as long as all the rest of a row.
PLATFORM = {each.value: each for each in Platform}
INTERCEPTION = {each.value: each for each in Interception}
HEALTH = {each.value: each for each in Health}
WORD: Mapping[Word, str] = {
    each: each.value for kind in (Platform, Interception, Health) for each in kind
}


def endpoint_row(e: Endpoint) -> Row:
    """The values of ENDPOINT."""
    return (
        e.provider,
        e.scope,
        str(e.service),
        e.port,
        e.address,
        e.target,
        e.workload,
        WORD[e.platform],
        str(e.identity or ""),
        WORD[e.interception],
        e.locality.region,
        e.locality.zone,
        e.weight,
        WORD[e.health],
        e.health_reason,
        e.cluster,
        e.network,
    )


def endpoint(row: Row) -> Endpoint:
    """From the values of ENDPOINT, which more may follow."""
    (provider, scope, service, port, address, target, workload, platform, who, interception,
     region, zone, weight, health, health_reason, cluster, network, *_) = row  # fmt: skip
    return Endpoint(
        service_name(service),
        port,
        address,
        target,
        workload,
        intern(provider),
        intern(scope),
        PLATFORM[platform],
        identity(who),
        INTERCEPTION[interception],
        locality(region, zone),
        weight,
        HEALTH[health],
        health_reason,
        cluster,
        network,
    )


def workload_row(w: Workload) -> Row:
    """The values of WORKLOAD."""
    return (
        w.id,
        w.name,
        w.provider,
        w.scope,
        WORD[w.platform],
        str(w.identity or ""),
        ", ".join(w.addresses),
        WORD[w.interception],
        w.bind,
        w.application,
        w.network,
        w.locality.region,
        w.locality.zone,
        json.dumps(w.labels) if w.labels else "",
        w.resource_id,
        w.cluster,
    )


def workload(row: Row) -> Workload:
    """From the values of WORKLOAD."""
    (_, name, provider, scope, platform, who, addresses, interception, bind, application, network,
     region, zone, labels, resource_id, cluster) = row  # fmt: skip
    return Workload(
        name,
        intern(provider),
        intern(scope),
        PLATFORM[platform],
        identity(who),
        tuple(addresses.split(", ")) if addresses else (),
        INTERCEPTION[interception],
        intern(bind),
        intern(application),
        network,
        locality(region, zone),
        tuple((key, value) for key, value in json.loads(labels)) if labels else (),
        resource_id,
        cluster,
    )


def statement_row(service: Service) -> Row:
    """The values of STATEMENT."""
    said = [[p.number, p.name, p.protocol.value, p.target, p.local] for p in service.ports]
    return (str(service.name), json.dumps(said), service.vip, service.plaintext, service.headless)


def statement(row: Row) -> Service:
    """From the values of STATEMENT."""
    name, listed, vip, plaintext, headless = row
    return Service(service_name(name), ports(listed), vip, bool(plaintext), bool(headless))


def service_row(service: Service) -> Row:
    """The values of SERVICE."""
    return (*statement_row(service), ", ".join(service.virtual))


def service(row: Row) -> Service:
    """From the values of SERVICE."""
    *said, virtual = row
    found = statement(tuple(said))
    return replace(found, virtual=tuple(virtual.split(", "))) if virtual else found


def ports(text: str) -> tuple[Port, ...]:
    return tuple(
        Port(number, name, Protocol(protocol), target, local)
        for number, name, protocol, target, local in json.loads(text)
    )


def rejections(rejected: tuple[Rejected, ...]) -> str:
    return json.dumps([[r.where, r.field, r.why, *r.about] for r in rejected]) if rejected else ""


def rejected(text: str) -> tuple[Rejected, ...]:
    return tuple(
        Rejected(where, field, why, tuple(about))
        for where, field, why, *about in json.loads(text or "[]")
    )


def document(policy: Policy) -> str:
    """A policy as JSON; the same policy has the same text."""
    match policy:
        case RouteGroup():
            data: object = [
                [m.name, m.path_regex, sorted(m.methods), m.headers] for m in policy.matches
            ]
        case TcpRoute():
            data = sorted(policy.ports)
        case TrafficTarget():
            data = {
                "destination": str(policy.destination),
                "sources": sorted(map(str, policy.sources)),
                "rules": [[rule.kind, rule.name, rule.matches] for rule in policy.rules],
            }
        case TrafficSplit():
            data = {
                "service": str(policy.service),
                "backends": [[str(b.service), b.weight] for b in policy.backends],
                "matches": policy.matches,
            }
    return json.dumps(data)


def policy(row: "RowMapping") -> Policy:
    name = ObjectName(row["namespace"], row["name"])
    data = json.loads(row["document"])
    match row["kind"]:
        case "HTTPRouteGroup":
            return RouteGroup(name, tuple(map(_match, data)))
        case "TCPRoute":
            return TcpRoute(name, frozenset(data))
        case "TrafficTarget":
            return TrafficTarget(
                name,
                destination=Identity.parse(data["destination"]),
                sources=frozenset(map(Identity.parse, data["sources"])),
                rules=tuple(Rule(kind, rule, tuple(m)) for kind, rule, m in data["rules"]),
            )
        case "TrafficSplit":
            return TrafficSplit(
                name,
                service=ServiceName.parse(data["service"]),
                backends=tuple(Backend(ServiceName.parse(s), w) for s, w in data["backends"]),
                matches=tuple(data["matches"]),
            )
        case kind:
            raise ValueError(f"a policy of kind {kind} is none that this meshfed knows")


def _match(parts: tuple[str, str, list[str], list[list[str]]]) -> HttpMatch:
    name, path, methods, headers = parts
    return HttpMatch(name, path, frozenset(methods), tuple((k, v) for k, v in headers))


KINDS: Mapping[type[Policy], str] = {
    RouteGroup: "HTTPRouteGroup",
    TcpRoute: "TCPRoute",
    TrafficTarget: "TrafficTarget",
    TrafficSplit: "TrafficSplit",
}
