"""One xDS resource as shared bytes, versioned by its content, and the world a stream is told of."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

PREFIX = "type.googleapis.com/"


class Type(StrEnum):
    """The resource types a sidecar is served, by type URL, in make-before-break order."""

    CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
    ENDPOINTS = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
    LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
    ROUTES = PREFIX + "envoy.config.route.v3.RouteConfiguration"

    @property
    def short(self) -> str:
        return SHORT[self]


SHORT = {
    Type.CLUSTER: "CDS",
    Type.ENDPOINTS: "EDS",
    Type.SECRET: "SDS",
    Type.LISTENER: "LDS",
    Type.ROUTES: "RDS",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A packed resource: the same content has the same version on every replica, for ever."""

    name: str
    version: str  # 16 hex of sha256 over the deterministic bytes
    any: bytes  # google.protobuf.Any, serialised
    delta: bytes  # discovery.v3.Resource, serialised

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.version})"  # a secret's bytes never reach a log


def packed(message: Message) -> Any:
    """The same content is the same bytes, maps included."""
    answer = Any()
    answer.Pack(message, deterministic=True)
    return answer


def resource(name: str, message: Message) -> Resource:
    return shared(name, packed(message))


def shared(name: str, content: Any) -> Resource:
    version = sha256(content.value).hexdigest()[:16]
    wrapped = discovery_pb2.Resource(name=name, version=version, resource=content)
    return Resource(name, version, content.SerializeToString(), wrapped.SerializeToString())


Resources = Mapping[str, Resource]
NOTHING: Resources = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class World:
    """All that one proxy may be told at one revision. Other names do not exist for it."""

    revision: int
    resources: Mapping[Type, Resources]
    by_name: bool = False  # to a gRPC client: it never means all of them by naming none

    def of(self, kind: Type) -> Resources:
        return self.resources.get(kind, NOTHING)
