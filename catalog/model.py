"""The vocabulary of the mesh, as frozen values.

What there are a hundred thousand of are structs: made, compared and hashed in C.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Self

from msgspec import Struct

from meshfed.catalog.preferences import NO_PREFERENCES, Preferences

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123, section 2.1


class Word(StrEnum):
    """One of a few words; in sets and keys it is found as text is, and not by an enum's way."""

    __hash__ = str.__hash__


class Platform(Word):
    """Where a workload runs."""

    KUBERNETES = "kubernetes"
    AZURE = "azure"
    VM = "vm"
    HOST = "host"


class Protocol(Word):
    """What is spoken on a port; everything that is not HTTP is authorised per connection."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    TCP = "tcp"
    TCP_SERVER_FIRST = "tcp-server-first"
    HTTPS = "https"  # the application's own TLS, opaque to the mesh

    @property
    def is_http(self) -> bool:
        return self in (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC)

    @property
    def is_grpc(self) -> bool:
        """Whether gRPC can be carried: HTTP/2, on both hops of a sidecar."""
        return self in (Protocol.HTTP2, Protocol.GRPC)


class Interception(Word):
    """How traffic gets into a workload's sidecar (ARCHITECTURE.md, section 6)."""

    TRANSPARENT = "transparent"
    EXPLICIT = "explicit"
    GRPC = "grpc"  # it has none: its gRPC library is told by the mesh itself
    NONE = "none"


class Health(Word):
    """One verdict per endpoint; `unknown` is not down."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    UNKNOWN = "unknown"


class ServiceName(Struct, frozen=True, order=True, cache_hash=True):
    """`<name>.<namespace>`: what callers name. Raises ValueError when it is not that."""

    name: str
    namespace: str

    def __post_init__(self) -> None:
        if not (LABEL.fullmatch(self.name) and LABEL.fullmatch(self.namespace)):
            raise ValueError(
                f"{self.name}.{self.namespace} is not <name>.<namespace> in lower case"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        name, dot, namespace = text.partition(".")
        if not dot:
            raise ValueError(f"{text!r} is not <name>.<namespace>")
        return cls(name, namespace)

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"


class Identity(Struct, frozen=True, order=True, cache_hash=True):
    """`<account>.<namespace>`: who a workload is. An account may hold dots. Raises ValueError."""

    account: str
    namespace: str

    def __post_init__(self) -> None:
        labels = self.account.split(".")
        if not (all(map(LABEL.fullmatch, labels)) and LABEL.fullmatch(self.namespace)):
            raise ValueError(
                f"{self.account}.{self.namespace} is not <account>.<namespace> in lower case"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        account, dot, namespace = text.rpartition(".")
        if not dot:
            raise ValueError(f"{text!r} is not <account>.<namespace>")
        return cls(account, namespace)

    @classmethod
    def from_uri(cls, uri: str, trust_domain: str) -> Self:
        """The identity in a SPIFFE id of this trust domain (SPIFFE-ID 2). Raises ValueError."""
        prefix = f"spiffe://{trust_domain}/ns/"
        namespace, found, account = uri.removeprefix(prefix).partition("/sa/")
        if not uri.startswith(prefix) or not found:
            raise ValueError(f"{uri!r} is not an identity of {trust_domain}")
        return cls(account, namespace)

    def uri(self, trust_domain: str) -> str:
        return f"spiffe://{trust_domain}/ns/{self.namespace}/sa/{self.account}"

    def __str__(self) -> str:
        return f"{self.account}.{self.namespace}"


@dataclass(frozen=True, slots=True, order=True)
class Locality:
    """`region/zone`, either part may be missing."""

    region: str = ""
    zone: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        region, _, zone = text.partition("/")
        return cls(region, zone)

    def __str__(self) -> str:
        return f"{self.region}/{self.zone}" if self.zone else self.region


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One port of a service. `local` is the loopback port at explicit callers of a TCP service."""

    number: int
    name: str = ""
    protocol: Protocol = Protocol.HTTP
    target: int | None = None  # the application's port, where an endpoint names none; else `number`
    local: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What one provider says of a service; the mesh's service is the union of what they all say."""

    name: ServiceName
    ports: tuple[Port, ...] = ()
    vip: str = ""
    plaintext: bool = False  # callers may reach endpoints without a sidecar in the clear
    headless: bool = False  # callers dial its members: it is to have no address of its own
    virtual: tuple[str, ...] = ()  # the mesh's own addresses for it, where no provider has a `vip`

    def port(self, number: int) -> Port | None:
        return next((port for port in self.ports if port.number == number), None)


class Workload(Struct, frozen=True):
    """The thing that runs: a pod, a VM, a scale-set instance, a host."""

    name: str
    provider: str
    scope: str
    platform: Platform = Platform.HOST
    identity: Identity | None = None
    addresses: tuple[str, ...] = ()
    interception: Interception = Interception.EXPLICIT
    bind: str = "0.0.0.0"  # where the sidecar listens for the mesh
    application: str = "127.0.0.1"  # where the sidecar reaches the application
    network: str = ""
    locality: Locality = Locality()
    labels: tuple[tuple[str, str], ...] = ()
    resource_id: str = ""  # the platform's own, if it has one: the same in each scope that tells it
    cluster: str = ""

    @property
    def id(self) -> str:
        """The catalog's key, and the DNS name in the certificate used for xDS."""
        return workload_id(self.provider, self.resource_id or self.scope, self.name)


@lru_cache(maxsize=1 << 12)  # each is asked for some times while its scope is written
def workload_id(provider: str, scope: str, name: str) -> str:
    return sha256("\0".join((provider, scope, name)).encode()).hexdigest()[:16]


class Endpoint(Struct, frozen=True):
    """One address:port that answers for a service's port."""

    service: ServiceName
    port: int  # the service's
    address: str  # an IP literal
    target: int  # the application's port at that address
    workload: str  # Workload.id
    provider: str
    scope: str
    platform: Platform = Platform.HOST
    identity: Identity | None = None
    interception: Interception = Interception.EXPLICIT
    locality: Locality = Locality()
    weight: int = 1
    health: Health = Health.HEALTHY
    health_reason: str = ""
    cluster: str = ""
    network: str = ""

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What makes it the same endpoint when everything else about it changes."""
        return (str(self.service), self.port, self.address, self.target)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A user's mistake: where it stands, which field, and why (with what to do)."""

    where: str  # file:line, or the object's name in a cluster
    field: str
    why: str
    about: tuple[str, ...] = ()  # the names and addresses by which people ask for what is wrong

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.why) if part)


class Evidence(StrEnum):
    """How much an observation's absences weigh."""

    STATED = "stated"  # someone said so: a watch event, an entry taken out of a whole file
    LISTED = "listed"  # missing from a list that may be short by accident
    FAULT = "fault"  # nothing could be read; believed only by `provider accept`


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything one provider sees in one scope; what is absent from it is gone."""

    scope: str
    services: frozenset[Service] = frozenset()
    workloads: frozenset[Workload] = frozenset()
    endpoints: frozenset[Endpoint] = frozenset()
    evidence: Evidence = Evidence.LISTED
    fault: str = ""  # why nothing could be read (evidence is FAULT), or not all of it
    rejected: tuple[Rejected, ...] = ()  # entries left out


@dataclass(frozen=True, slots=True)
class Known:
    """What is believed of one scope, after doubt has been weighed."""

    provider: str
    scope: str
    services: frozenset[Service] = frozenset()
    workloads: frozenset[Workload] = frozenset()
    endpoints: frozenset[Endpoint] = frozenset()
    doubt: str = ""  # why the last observation was not believed as it stood
    stale: frozenset[tuple[str, int, str, int]] = frozenset()  # keys kept though not seen
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """All of its conditions must hold (SMI HTTPRouteGroup v1alpha4). Regexes: RE2, whole."""

    name: str
    path_regex: str = ".*"
    methods: frozenset[str] = frozenset()  # empty: any
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class ObjectName:
    """The namespaced name of a policy object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class RouteGroup:
    """SMI HTTPRouteGroup: any of its matches may hold."""

    name: ObjectName
    matches: tuple[HttpMatch, ...]


@dataclass(frozen=True, slots=True)
class TcpRoute:
    """SMI TCPRoute. No ports means all ports."""

    name: ObjectName
    ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """A reference from a TrafficTarget to a route object in its namespace. No matches means all."""

    kind: str  # HTTPRouteGroup or TCPRoute
    name: str
    matches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrafficTarget:
    """SMI TrafficTarget v1alpha3: these sources may call that destination. No sources: nobody."""

    name: ObjectName
    destination: Identity
    sources: frozenset[Identity]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Backend:
    service: ServiceName
    weight: int


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """SMI TrafficSplit: calls to the root service go to backends by relative weight."""

    name: ObjectName
    service: ServiceName
    backends: tuple[Backend, ...]
    matches: tuple[str, ...] = ()  # HTTPRouteGroups; what matches none goes to the root service


Policy = RouteGroup | TcpRoute | TrafficTarget | TrafficSplit


@dataclass(frozen=True, slots=True)
class Specified:
    """All that one source of the specification says now."""

    source: str
    policies: tuple[tuple[Policy, str], ...] = ()  # with where each stands, file:line
    rejected: tuple[tuple[ObjectName | None, str, Rejected], ...] = ()  # object, kind, why
    fault: str = ""  # the source could not be read: nothing changes
    doubt: str = ""  # a part of it could not be read
    # Kind and namespace of objects that were not read: those that were known of them stay.
    unread: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Mesh:
    """Everything that is known at one revision."""

    trust_domain: str
    permissive: bool = False
    revision: int = 0
    # When that was made: a catalog that was put back makes the same numbers again.
    at: str = field(default="", compare=False)
    services: Mapping[ServiceName, Service] = field(default_factory=lambda: MappingProxyType({}))
    endpoints: Mapping[ServiceName, tuple[Endpoint, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    workloads: Mapping[str, Workload] = field(default_factory=lambda: MappingProxyType({}))
    policies: tuple[Policy, ...] = ()  # sorted by kind and name
    preferences: Preferences = NO_PREFERENCES

    @property
    def everyone(self) -> Sequence[Workload]:
        """The workloads by name; the table that they are in has no order."""
        by_name = sorted(self.workloads.items(), key=lambda item: (item[1].name, item[0]))
        return [workload for _, workload in by_name]

    def endpoints_of(self, service: ServiceName, port: int) -> tuple[Endpoint, ...]:
        return tuple(e for e in self.endpoints.get(service, ()) if e.port == port)


@dataclass(frozen=True, slots=True)
class Changed:
    """What moved between two revisions."""

    endpoints: frozenset[ServiceName] = frozenset()  # services whose endpoints changed
    workloads: frozenset[str] = frozenset()  # by id
    shape: bool = False  # services, workloads, policies or the mesh's own settings
