"""A Kubernetes service as the mesh has it: its ports, and what is spoken there."""

from collections.abc import Iterable, Iterator, Mapping

from meshfed.catalog.model import Port, Protocol, Service, ServiceName
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.pods import literal

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


def service(found: objects.Service) -> Service | None:
    """The service, if anybody may answer for it. Raises ValueError."""
    meta, spec = found.metadata, found.spec
    if spec.type == EXTERNAL:
        return None
    ports = (Port(p.port, p.name or "", protocol(p)) for p in carried(spec.ports))
    headless = spec.cluster_ip == HEADLESS
    vip = None if headless else spec.cluster_ip
    return Service(
        ServiceName(meta.name, meta.namespace),
        tuple(sorted({port.number: port for port in ports}.values())),
        vip=literal(vip) if vip else "",
        headless=headless,
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


def ports(found: objects.Slice, numbers: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """The service's ports that a slice is of, and the pods'; they have the same name.

    A name that the service does not have is of before it was edited; no number is all ports, which
    nobody can be sent to.
    """
    for port in found.ports or ():
        number = numbers.get(port.name or "")
        if number and (port.protocol or "TCP") == "TCP" and 1 <= (port.port or 0) <= 65535:
            yield number, port.port or 0
