"""Which endpoints a Kubernetes service has, by what its slices, pods and nodes say.

The rules are those of kube-proxy where it has one, and of Open Service Mesh where that has one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from socket import AF_INET, inet_pton

from msgspec import structs

from meshfed.catalog.model import (
    Endpoint,
    Health,
    Identity,
    Interception,
    Locality,
    Platform,
    Port,
    Protocol,
    Rejected,
    Service,
    ServiceName,
    Workload,
)
from meshfed.providers.kubernetes import objects
from meshfed.providers.listing import everywhere

MULTICAST = 224  # the first byte of such addresses, and of what comes after them
FAMILIES = ("IPv4", "IPv6")  # FQDN means nothing: kube-proxy and everybody else ignore it
HEADLESS = "None"
EXTERNAL = "ExternalName"  # an alias in DNS, which nobody answers for

# appProtocol (KEP-1422 and IANA's names), and prefixes of port names; what is not here is TCP.
PROTOCOLS = {
    "http": Protocol.HTTP,
    "kubernetes.io/ws": Protocol.HTTP,  # an upgrade of HTTP/1.1
    "ws": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "h2c": Protocol.HTTP2,
    "grpc": Protocol.GRPC,
    "https": Protocol.HTTPS,
    "tls": Protocol.HTTPS,
    "kubernetes.io/wss": Protocol.HTTPS,
    "wss": Protocol.HTTPS,
    "tcp": Protocol.TCP,
    "tcp-server-first": Protocol.TCP_SERVER_FIRST,
    "mysql": Protocol.TCP_SERVER_FIRST,
    "smtp": Protocol.TCP_SERVER_FIRST,
}
# Where nobody says what is spoken: servers that wait for no client's first word. Else it is HTTP,
# as it was in Open Service Mesh and is in host lists.
PORTS = {
    22: Protocol.TCP_SERVER_FIRST,
    25: Protocol.TCP_SERVER_FIRST,
    53: Protocol.TCP,
    3306: Protocol.TCP_SERVER_FIRST,
    5432: Protocol.TCP,
    6379: Protocol.TCP,
    9042: Protocol.TCP,
    27017: Protocol.TCP,
}
USABILITY = {Health.HEALTHY: 0, Health.DRAINING: 1, Health.UNHEALTHY: 2}
REASONS = {Health.DRAINING: "terminating", Health.UNHEALTHY: "not ready"}
LAST = "terminating, and used all the same: nothing else is ready"
UNSAID = objects.Conditions()
# Thousands of pods have the same: each is made once, and kept once.
located = lru_cache(4096)(Locality)
identified = lru_cache(65536)(Identity)


@dataclass(frozen=True, slots=True)
class Place:
    """What the configuration says of a cluster."""

    provider: str
    cluster: str
    network: str = ""

    def scope(self, namespace: str, service: str = "") -> str:
        return "/".join(part for part in (self.provider, namespace, service) if part)


@dataclass(slots=True)
class Resolved:
    """What stands in one scope."""

    services: frozenset[Service] = frozenset()
    workloads: dict[str, Workload] = field(default_factory=dict)  # by pod, or by address
    endpoints: dict[tuple[int, str, int], Endpoint] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)


def service(found: objects.Service) -> Service | None:
    """The service, if anybody may answer for it. Raises ValueError."""
    meta, spec = found.metadata, found.spec
    if spec.type == EXTERNAL:
        return None
    ports = (Port(p.port, p.name or "", protocol(p)) for p in carried(spec.ports))
    vip = spec.cluster_ip if spec.cluster_ip != HEADLESS else None
    return Service(
        ServiceName(meta.name, meta.namespace),
        tuple(sorted({port.number: port for port in ports}.values())),
        vip=literal(vip) if vip else "",
    )


def carried(ports: Iterable[objects.ServicePort] | None) -> Iterator[objects.ServicePort]:
    """The ports that a mesh carries: not UDP, and not SCTP."""
    return (port for port in ports or () if (port.protocol or "TCP") == "TCP")


def protocol(port: objects.ServicePort) -> Protocol:
    """appProtocol, else the port's name up to a dash, else its number."""
    if port.app_protocol:
        return PROTOCOLS.get(port.app_protocol.lower(), Protocol.TCP)
    name = port.name or ""
    if name.startswith("tcp-server-first"):
        return Protocol.TCP_SERVER_FIRST
    prefix = name.partition("-")[0]
    return PROTOCOLS.get(prefix) or PORTS.get(port.port, Protocol.HTTP)


def health(conditions: objects.Conditions | None) -> Health:
    """Nothing said of `ready` and `serving` is yes, and of `terminating` no.

    Whoever asked for publishNotReadyAddresses is shown as ready by the slices already.
    """
    said = conditions or UNSAID
    if said.ready is not False:
        return Health.HEALTHY
    if said.terminating and said.serving is not False:
        return Health.DRAINING
    return Health.UNHEALTHY


def resolve(
    place: Place,
    found: objects.Service,
    slices: Iterable[objects.Slice],
    pods: Mapping[str, objects.Pod],
    nodes: Mapping[str, objects.Node],
) -> Resolved:
    """One service of one cluster."""
    resolved = Resolved()
    meta = found.metadata
    try:
        said = service(found)
    except ValueError as error:
        why = Rejected(f"services/{meta.namespace}/{meta.name}", "", str(error))
        return Resolved(rejected=[why])
    if said is None:
        return resolved
    resolved.services = frozenset({said})
    families = found.spec.ip_families or FAMILIES
    numbers = {port.name or "": port.port for port in carried(found.spec.ports)}
    scope = place.scope(meta.namespace, meta.name)
    first: dict[tuple[int, str], str] = {}  # in which family a pod answers on a port
    for each in sorted(slices, key=lambda s: (order(s.address_type, families), s.metadata.name)):
        if each.metadata.deletion_timestamp or each.address_type not in families:
            continue
        answering = tuple(ports(each, numbers))
        for index, endpoint in enumerate(each.endpoints or ()):
            if not (there := _runs(resolved, place, scope, each, index, endpoint, pods, nodes)):
                continue
            address, runs = there
            for number, target in answering:
                family = first.setdefault((number, endpoint.pod), each.address_type)
                if not endpoint.pod or family == each.address_type:
                    _answers(resolved, said.name, number, address, target, runs, endpoint)
    return _last_resort(resolved)


def literal(text: str) -> str:
    """An address in its shortest form. Raises ValueError."""
    with suppress(OSError):  # ten times as fast as ip_address, and it takes no other form
        inet_pton(AF_INET, text)
        return text
    return ip_address(text).compressed


def reachable(text: str) -> str:
    """An address that can be connected to, in its shortest form. Raises ValueError."""
    if text != "0.0.0.0":
        with suppress(OSError):
            if inet_pton(AF_INET, text)[0] < MULTICAST:
                return text
    found = ip_address(text)
    if found.is_unspecified or found.is_multicast or "%" in text:
        raise ValueError(f"{text} is no address that callers could connect to")
    return found.compressed


def order(family: str, families: tuple[str, ...]) -> int:
    return families.index(family) if family in families else len(families)


def ports(found: objects.Slice, numbers: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """The service's ports that a slice is of, and the pods'; they have the same name.

    A name that the service does not have is of before it was edited; no number is all ports, which
    nobody can be sent to.
    """
    for port in found.ports or ():
        number = numbers.get(port.name or "")
        if number and (port.protocol or "TCP") == "TCP" and 1 <= (port.port or 0) <= 65535:
            yield number, port.port or 0


def pod_workload(
    place: Place, scope: str, pod: objects.Pod, locality: Locality, hostname: str | None = None
) -> tuple[Workload, list[Rejected]]:
    """A pod: who it is by its service account, whose name may hold dots. Raises ValueError."""
    meta, spec = pod.metadata, pod.spec
    asked = meta.annotations or objects.PodAnnotations()
    interception, rejected = intercepted(pod, asked)
    said = (pod.status.pod_ips if pod.status else None) or ()
    addresses = tuple(literal(each.ip) for each in said if each.ip)
    labels = meta.labels or objects.PodLabels()
    named = {"app": labels.app, "version": labels.version, "hostname": hostname}
    return Workload(
        f"{meta.name}.{meta.namespace}",
        place.provider,
        scope,
        Platform.KUBERNETES,
        identified(spec.service_account_name or "default", meta.namespace),
        addresses,
        interception,
        asked.bind or everywhere(addresses),
        asked.application or "127.0.0.1",
        place.network,
        locality,
        tuple(sorted((name, value) for name, value in named.items() if value)),
        resource_id=meta.uid,
        cluster=place.cluster,
    ), rejected


def intercepted(
    pod: objects.Pod, asked: objects.PodAnnotations
) -> tuple[Interception, list[Rejected]]:
    """How traffic gets into its sidecar: whoever put that there says so.

    Pods in their node's network never have one: iptables would be the whole node's.
    """
    itself = asked.interception == Interception.GRPC
    if (pod.spec.host_network and not itself) or not asked.interception:
        return Interception.NONE, []
    try:
        return Interception(asked.interception), []
    except ValueError:
        why = f"{asked.interception!r} is none of {', '.join(Interception)}"
        where = f"pods/{pod.metadata.namespace}/{pod.metadata.name}"
        field = "metadata.annotations[meshfed.io/interception]"
        return Interception.NONE, [Rejected(where, field, why)]


def locality(zone: str | None, node: objects.Node | None) -> Locality:
    if labels := node.metadata.labels if node else None:
        return located(labels.region or "", zone or labels.zone or "")
    return located("", zone or "")


def idle(
    place: Place,
    namespace: str,
    pods: Iterable[objects.Pod],
    nodes: Mapping[str, objects.Node],
) -> Resolved:
    """The pods of a namespace that answer for no service: they only call."""
    resolved = Resolved()
    for pod in pods:
        where = locality(None, nodes.get(pod.spec.node_name or ""))
        _take_in(resolved, place, place.scope(namespace), pod, where, None)
    return resolved


def _runs(
    resolved: Resolved,
    place: Place,
    scope: str,
    found: objects.Slice,
    index: int,
    endpoint: objects.SliceEndpoint,
    pods: Mapping[str, objects.Pod],
    nodes: Mapping[str, objects.Node],
) -> tuple[str, Workload] | None:
    """An endpoint's address, and what runs there: its pod, or something that is none.

    Only the first address means anything. A slice may come before its pod: the endpoint waits.
    """
    if not endpoint.addresses:
        return None
    try:
        address = reachable(endpoint.addresses[0])
    except ValueError as error:
        meta = found.metadata
        where = f"endpointslices/{meta.namespace}/{meta.name}"
        resolved.rejected.append(Rejected(where, f"endpoints[{index}].addresses[0]", str(error)))
        return None
    if not endpoint.pod:
        return address, _stranger(resolved, place, scope, address, endpoint)
    pod = pods.get(endpoint.pod)
    if pod is None:
        return None
    there = locality(endpoint.zone, nodes.get(endpoint.node_name or pod.spec.node_name or ""))
    hostname = f"{endpoint.hostname}.{found.service}" if endpoint.hostname else None
    runs = _take_in(resolved, place, scope, pod, there, hostname)
    return (address, runs) if runs else None


def _take_in(
    resolved: Resolved,
    place: Place,
    scope: str,
    pod: objects.Pod,
    where: Locality,
    hostname: str | None,
) -> Workload | None:
    if pod.metadata.uid not in resolved.workloads:
        try:
            runs, rejected = pod_workload(place, scope, pod, where, hostname)
        except ValueError as error:
            named = f"pods/{pod.metadata.namespace}/{pod.metadata.name}"
            resolved.rejected.append(Rejected(named, "", str(error)))
            return None
        resolved.workloads[pod.metadata.uid] = runs
        resolved.rejected += rejected
    return resolved.workloads[pod.metadata.uid]


def _stranger(
    resolved: Resolved,
    place: Place,
    scope: str,
    address: str,
    endpoint: objects.SliceEndpoint,
) -> Workload:
    """Something that somebody wrote into a slice by hand: nobody knows who it is."""
    if address not in resolved.workloads:
        resolved.workloads[address] = Workload(
            address,
            place.provider,
            scope,
            Platform.KUBERNETES,
            None,
            (address,),
            Interception.NONE,
            network=place.network,
            locality=locality(endpoint.zone, None),
            cluster=place.cluster,
        )
    return resolved.workloads[address]


def _answers(
    resolved: Resolved,
    name: ServiceName,
    number: int,
    address: str,
    target: int,
    runs: Workload,
    endpoint: objects.SliceEndpoint,
) -> None:
    """Of the same endpoint in several slices, that which is best to use."""
    verdict = health(endpoint.conditions)
    key = (number, address, target)
    other = resolved.endpoints.get(key)
    if other and _rank(other.health, other.identity) <= _rank(verdict, runs.identity):
        return
    resolved.endpoints[key] = Endpoint(
        name,
        number,
        address,
        target,
        runs.id,
        runs.provider,
        runs.scope,
        runs.platform,
        runs.identity,
        runs.interception,
        runs.locality,
        health=verdict,
        health_reason=REASONS.get(verdict, ""),
        cluster=runs.cluster,
        network=runs.network,
    )


def _rank(verdict: Health, identity: Identity | None) -> tuple[int, bool]:
    return USABILITY[verdict], identity is None


def _last_resort(resolved: Resolved) -> Resolved:
    """Where nothing is ready on a port, what terminates and still serves is used (KEP-1669)."""
    ready = {port for (port, *_), e in resolved.endpoints.items() if e.health is Health.HEALTHY}
    for key, endpoint in resolved.endpoints.items():
        if endpoint.port not in ready and endpoint.health is Health.DRAINING:
            used = structs.replace(endpoint, health=Health.UNKNOWN, health_reason=LAST)
            resolved.endpoints[key] = used
    return resolved
