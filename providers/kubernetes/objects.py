"""What is kept of Kubernetes objects: only the fields that endpoints are made of.

Everything else is skipped while it is read: of a list of 10,000 EndpointSlices, 253 MB as
dictionaries, 50 MB stay. What is null is as good as absent, as in Kubernetes itself.
"""

import msgspec

from meshfed.providers.kubernetes.messages import Key


class Kept(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A value without cycles: the garbage collector need not look at it."""


# Endpoint slices


class SliceLabels(Kept, frozen=True):
    service: str | None = msgspec.field(default=None, name="kubernetes.io/service-name")


class SliceMeta(Kept, frozen=True):
    name: str
    namespace: str = ""
    labels: SliceLabels | None = None
    deletion_timestamp: str | None = None


class Conditions(Kept, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Reference(Kept, frozen=True):
    kind: str | None = None
    name: str | None = None
    uid: str | None = None


class SliceEndpoint(Kept, frozen=True):
    addresses: tuple[str, ...] | None = None
    conditions: Conditions | None = None
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: Reference | None = None

    @property
    def pod(self) -> str:
        """The uid of the pod behind it; names are used again, by StatefulSets for one."""
        behind = self.target_ref
        return behind.uid or "" if behind and behind.kind == "Pod" else ""


class SlicePort(Kept, frozen=True):
    name: str | None = None
    port: int | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class Slice(Kept, frozen=True):
    metadata: SliceMeta
    address_type: str = ""
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None

    @property
    def service(self) -> str:
        labels = self.metadata.labels
        return labels.service or "" if labels else ""

    @property
    def pods(self) -> frozenset[str]:
        behind = (e.target_ref for e in self.endpoints or ())
        return frozenset(r.uid for r in behind if r and r.kind == "Pod" and r.uid)


# Services


class ServiceMeta(Kept, frozen=True):
    name: str
    namespace: str = ""


class ServicePort(Kept, frozen=True):
    port: int
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class ServiceSpec(Kept, frozen=True):
    type: str | None = None
    ports: tuple[ServicePort, ...] | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    ip_families: tuple[str, ...] | None = None


class Service(Kept, frozen=True):
    metadata: ServiceMeta
    spec: ServiceSpec


# Pods


class PodLabels(Kept, frozen=True):
    app: str | None = None
    version: str | None = None


class PodAnnotations(Kept, frozen=True):
    """How traffic gets into its sidecar, in the words of host lists."""

    interception: str | None = msgspec.field(default=None, name="meshfed.io/interception")
    bind: str | None = msgspec.field(default=None, name="meshfed.io/bind")
    application: str | None = msgspec.field(default=None, name="meshfed.io/application")


class PodMeta(Kept, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: PodLabels | None = None
    annotations: PodAnnotations | None = None


class PodSpec(Kept, frozen=True):
    service_account_name: str | None = None
    host_network: bool | None = None
    node_name: str | None = None


class PodAddress(Kept, frozen=True):
    ip: str | None = None


class PodStatus(Kept, frozen=True):
    pod_ips: tuple[PodAddress, ...] | None = msgspec.field(default=None, name="podIPs")


class Pod(Kept, frozen=True):
    metadata: PodMeta
    spec: PodSpec
    status: PodStatus | None = None


# Nodes and namespaces


class NodeLabels(Kept, frozen=True):
    region: str | None = msgspec.field(default=None, name="topology.kubernetes.io/region")
    zone: str | None = msgspec.field(default=None, name="topology.kubernetes.io/zone")


class NodeMeta(Kept, frozen=True):
    name: str
    labels: NodeLabels | None = None


class Node(Kept, frozen=True):
    metadata: NodeMeta


class NamespaceMeta(Kept, frozen=True):
    name: str


class Namespace(Kept, frozen=True):
    metadata: NamespaceMeta


def key(found: Slice | Service | Pod) -> Key:
    return found.metadata.namespace, found.metadata.name


def name(found: Node | Namespace) -> Key:
    return "", found.metadata.name
