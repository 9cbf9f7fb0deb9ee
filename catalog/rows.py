"""The mesh's values as rows of the tables, and back."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping

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
    Workload,
)

Row = RowMapping

# Names repeat in thousands of rows; parsing each once makes a cold start several times faster.
service_name = lru_cache(65_536)(ServiceName.parse)


@lru_cache(65_536)
def identity(text: str) -> Identity | None:
    return Identity.parse(text) if text else None


@lru_cache(4_096)
def locality(region: str, zone: str) -> Locality:
    return Locality(region, zone)


def endpoint_row(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "provider": endpoint.provider,
        "scope": endpoint.scope,
        "service": str(endpoint.service),
        "port": endpoint.port,
        "address": endpoint.address,
        "target": endpoint.target,
        "workload": endpoint.workload,
        "platform": endpoint.platform.value,
        "identity": str(endpoint.identity or ""),
        "interception": endpoint.interception.value,
        "region": endpoint.locality.region,
        "zone": endpoint.locality.zone,
        "weight": endpoint.weight,
        "health": endpoint.health.value,
        "health_reason": endpoint.health_reason,
        "cluster": endpoint.cluster,
        "network": endpoint.network,
    }


def endpoint(row: Row) -> Endpoint:
    return Endpoint(
        service=service_name(row["service"]),
        port=row["port"],
        address=row["address"],
        target=row["target"],
        workload=row["workload"],
        provider=row["provider"],
        scope=row["scope"],
        platform=Platform(row["platform"]),
        identity=identity(row["identity"]),
        interception=Interception(row["interception"]),
        locality=locality(row["region"], row["zone"]),
        weight=row["weight"],
        health=Health(row["health"]),
        health_reason=row["health_reason"],
        cluster=row["cluster"],
        network=row["network"],
    )


def workload_row(workload: Workload) -> dict[str, Any]:
    return {
        "workload": workload.id,
        "name": workload.name,
        "provider": workload.provider,
        "scope": workload.scope,
        "platform": workload.platform.value,
        "identity": str(workload.identity or ""),
        "addresses": ", ".join(workload.addresses),
        "interception": workload.interception.value,
        "bind": workload.bind,
        "application": workload.application,
        "network": workload.network,
        "region": workload.locality.region,
        "zone": workload.locality.zone,
        "labels": json.dumps(workload.labels) if workload.labels else "",
        "resource_id": workload.resource_id,
        "cluster": workload.cluster,
    }


def workload(row: Row) -> Workload:
    labels: list[list[str]] = json.loads(row["labels"]) if row["labels"] else []
    return Workload(
        name=row["name"],
        provider=row["provider"],
        scope=row["scope"],
        platform=Platform(row["platform"]),
        identity=identity(row["identity"]),
        addresses=tuple(filter(None, row["addresses"].split(", "))),
        interception=Interception(row["interception"]),
        bind=row["bind"],
        application=row["application"],
        network=row["network"],
        locality=locality(row["region"], row["zone"]),
        labels=tuple((key, value) for key, value in labels),
        resource_id=row["resource_id"],
        cluster=row["cluster"],
    )


def service_row(service: Service) -> dict[str, Any]:
    return {
        "service": str(service.name),
        "ports": json.dumps(
            [[p.number, p.name, p.protocol.value, p.target, p.local] for p in service.ports]
        ),
        "vip": service.vip,
        "plaintext": service.plaintext,
    }


def service(row: Row) -> Service:
    return Service(
        name=service_name(row["service"]),
        ports=ports(row["ports"]),
        vip=row["vip"],
        plaintext=bool(row["plaintext"]),
    )


def ports(text: str) -> tuple[Port, ...]:
    return tuple(
        Port(number, name, Protocol(protocol), target, local)
        for number, name, protocol, target, local in json.loads(text)
    )


def rejections(rejected: tuple[Rejected, ...]) -> str:
    return json.dumps([[r.where, r.field, r.why] for r in rejected]) if rejected else ""


def rejected(text: str) -> tuple[Rejected, ...]:
    return tuple(Rejected(*parts) for parts in json.loads(text or "[]"))


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


def policy(row: Row) -> Policy:
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
