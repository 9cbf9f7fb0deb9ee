"""Services, slices, pods and nodes in a few words, and what is resolved of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meshfed.catalog.model import (
    Endpoint,
)
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.pods import Place
from meshfed.providers.kubernetes.resolve import Resolved, resolve

PLACE = Place("aks-weu", "aks-weu", "vnet-1")
HTTP = {"name": "http", "port": 80}
READY = {"ready": True, "serving": True, "terminating": False}
STARTING = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
ENDING = {"ready": False, "serving": False, "terminating": True}


def service(*ports: Mapping[str, object], name: str = "web", **spec: object) -> objects.Service:
    written = {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": list(ports or (HTTP,)), **spec},
    }
    return msgspec.convert(written, objects.Service)


def slices(*endpoints: Mapping[str, object], name: str = "web-1", **more: Any) -> objects.Slice:
    written = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
            **more.pop("metadata", {}),
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
        **more,
    }
    return msgspec.convert(written, objects.Slice)


def at(address: str, pod: str = "", conditions: object = None, **more: object) -> dict[str, object]:
    found: dict[str, object] = {"addresses": [address], **more}
    if conditions is not None:
        found["conditions"] = conditions
    if pod:
        found["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "shop", "uid": f"uid-{pod}"}
    return found


def pod(name: str = "web-a", *addresses: str, **spec: Any) -> objects.Pod:
    written = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            **spec.pop("metadata", {}),
        },
        "spec": spec,
        "status": {"podIPs": [{"ip": each} for each in addresses]},
    }
    return msgspec.convert(written, objects.Pod)


def node(name: str, region: str, zone: str) -> objects.Node:
    labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
    return msgspec.convert({"metadata": {"name": name, "labels": labels}}, objects.Node)


def resolved(
    *found: objects.Slice,
    of: objects.Service | None = None,
    pods: Iterable[objects.Pod] = (),
    nodes: Iterable[objects.Node] = (),
) -> Resolved:
    there = {each.metadata.uid: each for each in pods}
    where = {each.metadata.name: each for each in nodes}
    answer = resolve(PLACE, of or service(), found, there, where)
    again = resolve(PLACE, of or service(), found, there, where, answer.last)
    assert said(again) == said(answer)
    return answer


def said(answer: Resolved) -> tuple[object, ...]:
    return answer.services, answer.workloads, answer.endpoints, answer.rejected


def places(answer: Resolved) -> list[str]:
    return [f"{e.address}:{e.target}" for e in answer.endpoints.values()]


def only(answer: Resolved) -> Endpoint:
    (endpoint,) = answer.endpoints.values()
    return endpoint
