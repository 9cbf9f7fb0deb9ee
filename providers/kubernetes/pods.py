"""A pod as a workload: who it is, where it is, and how traffic gets into its sidecar."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from socket import AF_INET, inet_pton

from meshfed.catalog.model import (
    Identity,
    Interception,
    Locality,
    Platform,
    Rejected,
    Workload,
)
from meshfed.providers.kubernetes import objects
from meshfed.providers.observed import everywhere

# Thousands of pods have the same: each is made once, and kept once.
located = lru_cache(4096)(Locality)
identified = lru_cache(65536)(Identity)
UNASKED, UNLABELLED = objects.PodAnnotations(), objects.PodLabels()
WORDS = frozenset(Interception)


@dataclass(frozen=True, slots=True)
class Place:
    """What the configuration says of a cluster."""

    provider: str
    cluster: str
    network: str = ""

    def scope(self, namespace: str, service: str = "") -> str:
        return "/".join(part for part in (self.provider, namespace, service) if part)


def literal(text: str) -> str:
    """An address in its shortest form. Raises ValueError."""
    with suppress(OSError):  # ten times as fast as ip_address, and it takes no other form
        inet_pton(AF_INET, text)
        return text
    return ip_address(text).compressed


def pod_workload(
    place: Place, scope: str, pod: objects.Pod, locality: Locality, hostname: str | None = None
) -> Workload:
    """A pod: who it is by its service account, whose name may hold dots. Raises ValueError."""
    meta, spec = pod.metadata, pod.spec
    asked = meta.annotations or UNASKED
    said = (pod.status.pod_ips if pod.status else None) or ()
    addresses = tuple(literal(each.ip) for each in said if each.ip)
    labels = meta.labels or UNLABELLED
    named = {"app": labels.app, "version": labels.version, "hostname": hostname}
    return Workload(
        known_as(pod),
        place.provider,
        scope,
        Platform.KUBERNETES,
        identified(spec.service_account_name or "default", meta.namespace),
        addresses,
        intercepted(pod, asked.interception),
        asked.bind or everywhere(addresses),
        asked.application or "127.0.0.1",
        place.network,
        locality,
        tuple(sorted((name, value) for name, value in named.items() if value)),
        resource_id=meta.uid,
        cluster=place.cluster,
    )


def intercepted(pod: objects.Pod, asked: str | None) -> Interception:
    """How traffic gets into its sidecar: whoever put that there says so.

    Pods in their node's network never have one: iptables would be the whole node's.
    """
    if asked not in WORDS or (pod.spec.host_network and asked != Interception.GRPC):
        return Interception.NONE
    return Interception(asked)


def mistakes(pods: Iterable[objects.Pod]) -> Iterator[Rejected]:
    """What is wrong with pods that are taken in all the same."""
    for pod in pods:
        asked = pod.metadata.annotations.interception if pod.metadata.annotations else None
        if asked and asked not in WORDS:
            why = f"{asked!r} is none of {', '.join(Interception)}"
            at = "metadata.annotations[meshfed.io/interception]"
            yield Rejected(where(pod), at, why, (known_as(pod),))


def refused(pod: objects.Pod, error: ValueError) -> Rejected:
    at = (each.ip for each in (pod.status.pod_ips if pod.status else None) or ())
    return Rejected(where(pod), "", str(error), (known_as(pod), *filter(None, at)))


def known_as(pod: objects.Pod) -> str:
    return f"{pod.metadata.name}.{pod.metadata.namespace}"


def where(pod: objects.Pod) -> str:
    return f"pods/{pod.metadata.namespace}/{pod.metadata.name}"


def locality(zone: str | None, node: objects.Node | None) -> Locality:
    if labels := node.metadata.labels if node else None:
        return located(labels.region or "", zone or labels.zone or "")
    return located("", zone or "")
