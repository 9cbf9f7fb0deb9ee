"""Objects as a cluster's users write them."""

from meshfed.demo.kube.objects import Object


def thing(version: str, kind: str, name: str, namespace: str = "", **rest: object) -> Object:
    metadata: Object = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def labelled(given: Object, **labels: str) -> Object:
    return {**given, "metadata": {**given["metadata"], "labels": labels}}


def namespace(name: str) -> Object:
    return thing("v1", "Namespace", name)


def configmap(name: str, home: str = "default", **data: str) -> Object:
    return thing("v1", "ConfigMap", name, home, data=data)


def pod(name: str, home: str = "default", **spec: object) -> Object:
    containers = [{"name": "app", "image": "app"}]
    return thing("v1", "Pod", name, home, spec={"containers": containers, **spec})


def service(name: str, *ports: int, home: str = "default", **spec: object) -> Object:
    listed = [{"name": f"p{port}", "port": port} for port in ports]
    return thing("v1", "Service", name, home, spec={"ports": listed, **spec})


def slice_(
    name: str, *addresses: str, home: str = "default", of: str = "", **rest: object
) -> Object:
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    ports = [{"name": "http", "port": 8080}]
    said = {"addressType": "IPv4", "endpoints": endpoints, "ports": ports} | rest
    made = thing("discovery.k8s.io/v1", "EndpointSlice", name, home, **said)
    return labelled(made, **{"kubernetes.io/service-name": of}) if of else made


def crd(plural: str, kind: str, schema: Object, **rest: object) -> Object:
    """A CRD of one version, v1, of namespaced objects."""
    version = {"name": "v1", "served": True, "storage": True, **rest}
    version["schema"] = {"openAPIV3Schema": schema}
    names = {"plural": plural, "kind": kind}
    spec = {
        "group": "tests.example", "scope": "Namespaced", "names": names, "versions": [version],
    }  # fmt: skip
    name = f"{plural}.tests.example"
    return thing("apiextensions.k8s.io/v1", "CustomResourceDefinition", name, spec=spec)
