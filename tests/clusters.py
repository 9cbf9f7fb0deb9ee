"""Kubernetes objects as tests write them, and providers that see them soon."""

from pathlib import Path
from typing import Any

from kube.cluster import Cluster

from meshfed.providers.kubernetes.provider import KubernetesProvider
from meshfed.providers.kubernetes.reflect import Pace

Object = dict[str, Any]
SOON = Pace(first=0.02, longest=0.2, headers=1.0, idle=2.0, watch=30.0, grace=0.05)
OURS = {"meshfed.io/mesh": "shop"}


def namespace(name: str = "shop", labels: dict[str, str] | None = None) -> Object:
    metadata = {"name": name, "labels": OURS if labels is None else labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def service(name: str = "web", namespace: str = "shop", **spec: object) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def pod(name: str, address: str = "", namespace: str = "shop", **spec: object) -> Object:
    made: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "containers": [{"name": "app", "image": "app"}],
            "serviceAccountName": "web",
            **spec,
        },
    }
    if address:
        made["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    return made


def endpoint(address: str, pod: Object | None = None, *, ready: bool = True) -> Object:
    made: Object = {"addresses": [address], "conditions": {"ready": ready}}
    if pod:
        named = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
        made["targetRef"] = {"kind": "Pod", **named}
    return made


def slices(*endpoints: Object, of: str = "web", name: str = "", namespace: str = "shop") -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{of}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def serve(cluster: Cluster, *addresses: str, of: str = "web", namespace: str = "shop") -> Object:
    """A service that pods answer for, one at each address."""
    cluster.put(service(of, namespace))
    pods = [
        cluster.put(pod(f"{of}-{address.replace('.', '-')}", address, namespace))
        for address in addresses
    ]
    ready = [endpoint(address, pod) for address, pod in zip(addresses, pods, strict=True)]
    return cluster.put(slices(*ready, of=of, namespace=namespace))


def provider(cluster: Cluster, pace: Pace = SOON, **options: object) -> KubernetesProvider:
    said = {"kubeconfig": str(cluster.kubeconfig), "context": cluster.name, **options}
    return KubernetesProvider(name="aks", options=said, base=Path(), pace=pace)
