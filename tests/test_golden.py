"""What Envoy is told of a mesh: each folder of golden/ is a claim, `given.yaml` its premises."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import MessageToJson

from meshfed.catalog.model import (
    Backend,
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Locality,
    Mesh,
    ObjectName,
    Platform,
    Policy,
    Port,
    Protocol,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    TcpRoute,
    TrafficSplit,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.view import proxy_class, view
from meshfed.federation.rules import Federation
from meshfed.xds.endpoints import load_assignment
from meshfed.xds.resource import Resource
from meshfed.xds.snapshot import snapshot

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path for path in GOLDEN.iterdir() if path.is_dir())

Given = Mapping[str, object]


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_envoy_is_told(case, update_golden):
    told = dict(documents(yaml.load((case / "given.yaml").read_text(), yaml.CSafeLoader)))
    if update_golden:
        rewrite(case, told)
    found = {
        p.stem: yaml.load(p.read_text(), yaml.CSafeLoader)
        for p in case.iterdir()
        if p.stem != "given"
    }
    assert told == found


def rewrite(case: Path, told: Mapping[str, object]) -> None:
    for path in case.iterdir():
        if path.stem != "given":
            path.unlink()
    for name, document in told.items():
        text = yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
        (case / f"{name}.yaml").write_text(text)


def documents(given: Given) -> Iterator[tuple[str, object]]:
    """Each file's content; what there is none of has no file."""
    known = mesh(given)
    names = {workload.name: workload for workload in known.workloads.values()}
    seen = view(known, proxy_class(known, names[given["proxy"]]))
    told = snapshot(seen)
    assignments = [
        load_assignment(each, known.endpoints.get(each.service, ()))
        for each in told.assignments.values()
    ]
    every = {
        "listeners": readable(told.listeners.values()),
        "clusters": readable(told.clusters.values()),
        "routes": readable(told.routes.values()),
        "endpoints": readable(assignments),
        "secrets": {name: list(sans) for name, sans in told.validations.items()},
        "unresolved": [*map(str, seen.unresolved), *map(str, told.left_out)],
    }
    yield from ((name, document) for name, document in every.items() if document)


def readable(resources: Iterable[Resource]) -> list[object]:
    texts = (
        MessageToJson(Any.FromString(resource.any), preserving_proto_field_name=True)
        for resource in resources
    )
    return [{k: v for k, v in in_order(json.loads(text)).items() if k != "@type"} for text in texts]


def in_order(node: object) -> object:
    """Fields as they are declared, but the entries of a map by name: protobuf shuffles those."""
    if isinstance(node, list):
        return [in_order(each) for each in node]
    if not isinstance(node, dict):
        return node
    pairs = sorted(node.items()) if any("/" in key for key in node) else node.items()
    return {key: in_order(value) for key, value in pairs}


def mesh(given: Given) -> Mesh:
    workloads = [workload(entry) for entry in given.get("workloads", ())]
    found = [e for entry in given.get("workloads", ()) for e in endpoints(entry)]
    names = {endpoint.service for endpoint in found}
    return Mesh(
        trust_domain="shop.example",
        permissive=given.get("permissive", False),
        services=MappingProxyType(
            {s.name: s for s in (service(*pair) for pair in given["services"].items())}
        ),
        endpoints=MappingProxyType(
            {name: tuple(e for e in found if e.service == name) for name in sorted(names)}
        ),
        workloads=MappingProxyType({w.id: w for w in workloads}),
        policies=tuple(policies(given.get("policies", {}))),
        preferences=Federation.model_validate(given.get("federation", {})).preferences,
    )


def service(name: str, entry: Given) -> Service:
    return Service(
        ServiceName.parse(name),
        tuple(port(number, spoken) for number, spoken in entry["ports"].items()),
        entry.get("vip", ""),
        entry.get("plaintext", False),
        headless=entry.get("headless", False),
        virtual=tuple(entry.get("virtual", ())),
    )


def port(number: int, spoken: str) -> Port:
    """`8080: http` or `3306: tcp at 13306`."""
    protocol, _, local = spoken.partition(" at ")
    return Port(number, protocol=Protocol(protocol), local=int(local) if local else None)


def workload(entry: Given) -> Workload:
    address = entry.get("address", "127.0.0.1")
    return Workload(
        entry["name"],
        "rack",
        "rack/hosts.yaml",
        identity=identity(entry),
        addresses=(address,),
        interception=Interception(entry.get("interception", "explicit")),
        bind=entry.get("bind", "0.0.0.0"),
        network=entry.get("network", ""),
        locality=Locality.parse(entry.get("locality", "")),
        cluster=entry.get("cluster", ""),
    )


def identity(entry: Given) -> Identity | None:
    return Identity.parse(entry["identity"]) if "identity" in entry else None


def endpoints(entry: Given) -> Iterator[Endpoint]:
    """`serves` has `<service>:<port>` or `<service>:<port> -> <target>`."""
    for place in entry.get("serves", ()):
        named, _, target = place.partition(" -> ")
        name, _, number = named.rpartition(":")
        yield Endpoint(
            ServiceName.parse(name),
            int(number),
            entry["address"],
            int(target or number),
            workload(entry).id,
            entry.get("provider", "rack"),
            "rack/hosts.yaml",
            Platform(entry.get("platform", "host")),
            identity=identity(entry),
            interception=Interception(entry.get("interception", "explicit")),
            locality=Locality.parse(entry.get("locality", "")),
            weight=entry.get("weight", 1),
            health=Health(entry.get("health", "healthy")),
            cluster=entry.get("cluster", ""),
            network=entry.get("network", ""),
        )


def policies(given: Given) -> Iterator[Policy]:
    for name, matches in given.get("groups", {}).items():
        yield RouteGroup(named(name), tuple(match(*pair) for pair in matches.items()))
    for name, ports in given.get("tcp", {}).items():
        yield TcpRoute(named(name), frozenset(ports))
    for name, entry in given.get("targets", {}).items():
        yield TrafficTarget(
            named(name),
            Identity.parse(entry["to"]),
            frozenset(map(Identity.parse, entry["from"])),
            tuple(map(rule, entry["rules"])),
        )
    for name, entry in given.get("splits", {}).items():
        yield TrafficSplit(
            named(name),
            ServiceName.parse(entry["of"]),
            tuple(Backend(ServiceName.parse(s), w) for s, w in entry["backends"].items()),
            tuple(entry.get("matches", ())),
        )


def named(text: str) -> ObjectName:
    return ObjectName(*text.split("/"))


def match(name: str, entry: Given) -> HttpMatch:
    return HttpMatch(
        name,
        entry.get("path", ".*"),
        frozenset(entry.get("methods", ())),
        tuple(entry.get("headers", {}).items()),
    )


def rule(text: str) -> Rule:
    """`http books`, `http books: buy, read` or `tcp mysql`."""
    kind, _, rest = text.partition(" ")
    name, _, matches = rest.partition(":")
    kinds = {"http": "HTTPRouteGroup", "tcp": "TCPRoute"}
    return Rule(kinds[kind], name, tuple(m.strip() for m in matches.split(",") if m))
