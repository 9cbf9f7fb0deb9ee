"""Small meshes of one namespace, and what is seen of them."""

from meshfed.catalog.model import (
    Backend,
    Endpoint,
    HttpMatch,
    Identity,
    Mesh,
    ObjectName,
    Policy,
    Port,
    Protocol,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    TrafficSplit,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.view import View, proxy_class, view

HTTP = Port(80)
TCP = Port(3306, protocol=Protocol.TCP, local=13306)
ALL = HttpMatch("all")


def workload(account: str, **also: object) -> Workload:
    who = Identity.parse(f"{account}.shop") if account else None
    return Workload(account or "nobody", "rack", "rack/hosts.yaml", identity=who, **also)


def service(name: str, *ports: Port, **also: object) -> Service:
    return Service(ServiceName(name, "shop"), ports or (HTTP,), **also)


def endpoint(name: str, identity: str = "", port: int = 80, **also: object) -> Endpoint:
    """One that is known by the identity `<name>.shop` unless told otherwise."""
    who = Identity(identity or name, "shop")
    there = f"10.0.0.{len(name)}"
    return Endpoint(
        ServiceName(name, "shop"), port, there, port, workload(str(who.account)).id, "rack",
        "rack/hosts.yaml", **{"identity": who, **also},
    )  # fmt: skip


def named(name: str) -> ObjectName:
    return ObjectName("shop", name)


def group(name: str, *matches: HttpMatch) -> RouteGroup:
    return RouteGroup(named(name), matches or (ALL,))


def target(
    to: str, *sources: str, rules: tuple[str, ...] = ("http all",), namespace: str = "shop"
) -> TrafficTarget:
    kinds = {"http": "HTTPRouteGroup", "tcp": "TCPRoute"}
    parts = [rule.split() for rule in rules]
    return TrafficTarget(
        ObjectName(namespace, f"{'-'.join(sources) or 'nobody'}-to-{to}"),
        Identity(to, "shop"),
        frozenset(Identity(source, "shop") for source in sources),
        tuple(Rule(kinds[kind], name, tuple(matches)) for kind, name, *matches in parts),
    )


def split(root: str, /, *matches: str, **weights: int) -> TrafficSplit:
    backends = tuple(Backend(ServiceName(name, "shop"), w) for name, w in weights.items())
    return TrafficSplit(named(f"split-{root}"), ServiceName(root, "shop"), backends, matches)


def mesh(*things: Service | Endpoint | Policy | Workload, permissive: bool = False) -> Mesh:
    services = [each for each in things if isinstance(each, Service)]
    endpoints = [each for each in things if isinstance(each, Endpoint)]
    workloads = [each for each in things if isinstance(each, Workload)]
    return Mesh(
        "shop.example",
        permissive,
        services={each.name: each for each in services},
        endpoints={
            each.service: tuple(e for e in endpoints if e.service == each.service)
            for each in endpoints
        },
        workloads={each.id: each for each in workloads},
        policies=tuple(
            each for each in things if not isinstance(each, Service | Endpoint | Workload)
        ),
    )


def seen(account: str, known: Mesh, **also: object) -> View:
    return view(known, proxy_class(known, workload(account, **also)))


def called(found: View) -> set[str]:
    """Where calls can end, as `service:port`."""
    return {
        f"{outbound.service}:{outbound.port.number}"
        for outbound in found.outbound
        if any(choice.shares for choice in outbound.choices)
    }


def reasons(found: View) -> dict[str, str]:
    return {
        str(outbound.service): choice.why
        for outbound in found.outbound
        for choice in outbound.choices
        if choice.why
    }
