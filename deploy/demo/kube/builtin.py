"""What an API server adds to built-in objects, and what it refuses in them."""

import base64
import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

from meshfed.demo.kube.kinds import Kind
from meshfed.demo.kube.objects import Object
from meshfed.demo.kube.pods import containers
from meshfed.demo.kube.schema import unstructural

Causes = Iterator[tuple[str, str]]
Settles = Callable[[Object, Object | None, Callable[[], str]], Causes]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PORT_NAME = LABEL
QUALIFIED = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
PROTOCOLS = ("TCP", "UDP", "SCTP")
MUTABLE = ("containers", "initContainers", "tolerations", "activeDeadlineSeconds")
METADATA = {
    "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp",
    "finalizers", "generateName", "generation", "labels", "managedFields", "name", "namespace",
    "ownerReferences", "resourceVersion", "selfLink", "uid",
}  # fmt: skip


def settled(
    kind: Kind, thing: Object, before: Object | None, address: Callable[[], str]
) -> list[tuple[str, str]]:
    """Fills in what a built-in kind has by default; says what is wrong of it."""
    causes = [*_metadata(kind, thing["metadata"])]
    if kind.schema is None and (settle := SETTLE.get(kind.name)):
        causes += settle(thing, before, address)
    return causes


def _metadata(kind: Kind, metadata: Object) -> Causes:
    name = metadata["name"]
    fitting = NAMES.get(kind.name, SUBDOMAIN)
    if fitting and not (len(name) <= 253 and fitting.fullmatch(name)):
        yield "metadata.name", f'Invalid value: "{name}": must match {fitting.pattern}'
    for key, value in (metadata.get("labels") or {}).items():
        if not QUALIFIED.fullmatch(key):
            yield "metadata.labels", f'Invalid value: "{key}": name part must be qualified'
        if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
            yield "metadata.labels", f'Invalid value: "{value}": a valid label must be alphanumeric'
    for each in metadata.get("finalizers") or ():
        if "/" not in each and each not in ("orphan", "foregroundDeletion", "kubernetes"):
            yield "metadata.finalizers", f'Invalid value: "{each}": must be fully qualified'


def _namespace(thing: Object, before: Object | None, _: object) -> Causes:
    thing["metadata"].setdefault("labels", {})
    thing["metadata"]["labels"]["kubernetes.io/metadata.name"] = thing["metadata"]["name"]
    if before is None:
        thing["spec"] = {"finalizers": ["kubernetes"]}
        thing["status"] = {"phase": "Active"}
    yield from ()


def _service(thing: Object, before: Object | None, address: Callable[[], str]) -> Causes:
    spec = thing.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] not in ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"):
        yield "spec.type", f'Unsupported value: "{spec["type"]}"'
    if spec["type"] == "ExternalName":
        if not spec.get("externalName"):
            yield "spec.externalName", "Required value"
    else:
        yield from _addresses(spec, (before or {}).get("spec") or {}, address)
    ports = spec.get("ports") or []
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        yield "spec.ports", "Required value"
    yield from _ports(ports, "spec.ports", "port")
    for n, port in enumerate(ports):
        port.setdefault("targetPort", port.get("port"))
        if spec["type"] in ("NodePort", "LoadBalancer"):
            port.setdefault("nodePort", 30000 + (port.get("port") or 0) % 2768)
        if len(ports) > 1 and not port.get("name"):
            yield f"spec.ports[{n}].name", "Required value"
    if before is None:
        thing["status"] = {"loadBalancer": {}}


def _addresses(spec: Object, before: Object, address: Callable[[], str]) -> Causes:
    if before.get("clusterIP") and not spec.get("clusterIP"):
        spec["clusterIP"], spec["clusterIPs"] = before["clusterIP"], before["clusterIPs"]
    if before.get("clusterIP") and spec["clusterIP"] != before["clusterIP"]:
        shown = spec["clusterIP"]
        yield "spec.clusterIPs[0]", f'Invalid value: ["{shown}"]: may not change once set'
    if not spec.get("clusterIP"):
        spec["clusterIP"] = (spec.get("clusterIPs") or [address()])[0]
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("internalTrafficPolicy", "Cluster")


def _ports(ports: list[Object], at: str, number: str) -> Causes:
    seen: list[object] = []
    for n, port in enumerate(ports):
        port.setdefault("protocol", "TCP")
        if port["protocol"] not in PROTOCOLS:
            yield f"{at}[{n}].protocol", f'Unsupported value: "{port["protocol"]}"'
        value = port.get(number)
        if value is not None and not (isinstance(value, int) and 1 <= value <= 65535):
            why = f"Invalid value: {value}: must be between 1 and 65535, inclusive"
            yield f"{at}[{n}].{number}", why
        elif value is None and at == "spec.ports":
            yield f"{at}[{n}].port", "Required value"
        name = port.get("name") or ""
        if name and not PORT_NAME.fullmatch(name):
            yield f"{at}[{n}].name", f'Invalid value: "{name}": must be a DNS label'
        if name in seen:
            yield f"{at}[{n}].name", f'Duplicate value: "{name}"'
        seen.append(name)


def _slice(thing: Object, before: Object | None, _: object) -> Causes:
    thing.setdefault("endpoints", None)
    thing.setdefault("ports", None)
    family = thing.get("addressType")
    if family not in ("IPv4", "IPv6", "FQDN"):
        why = "Required value" if not family else f'Unsupported value: "{family}"'
        yield "addressType", why
    if before and before.get("addressType") != family:
        yield "addressType", f'Invalid value: "{family}": field is immutable'
    endpoints, ports = thing["endpoints"] or [], thing["ports"] or []
    if len(endpoints) > 1000:
        yield "endpoints", f"Too many: {len(endpoints)}: must have at most 1000 items"
    if len(ports) > 100:
        yield "ports", f"Too many: {len(ports)}: must have at most 100 items"
    for n, endpoint in enumerate(endpoints):
        yield from _endpoint(endpoint, f"endpoints[{n}]", str(family))
    for port in ports:
        port.setdefault("name", "")
    yield from _ports(ports, "ports", "port")


def _endpoint(endpoint: Object, at: str, family: str) -> Causes:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        yield f"{at}.addresses", "Required value: must contain at least 1 address"
    if len(addresses) > 100:
        yield f"{at}.addresses", f"Too many: {len(addresses)}: must have at most 100 items"
    for n, each in enumerate(addresses):
        if family != "FQDN" and (why := _unfit(each, family)):
            yield f"{at}.addresses[{n}]", f'Invalid value: "{each}": {why}'
    hostname = endpoint.get("hostname")
    if hostname is not None and not LABEL.fullmatch(hostname):
        yield f"{at}.hostname", f'Invalid value: "{hostname}": must be a DNS label'
    endpoint.setdefault("conditions", {})


def _unfit(address: str, family: str) -> str:
    """Why an address cannot be an endpoint's."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return f"must be a valid {family} address"
    if f"IPv{parsed.version}" != family:
        return f"must be a valid {family} address"
    if parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified:
        return "may not be unspecified, loopback or link-local"
    return ""


def _pod(thing: Object, before: Object | None, _: object) -> Causes:
    spec = thing.setdefault("spec", {})
    for name, value in (
        ("restartPolicy", "Always"), ("dnsPolicy", "ClusterFirst"), ("securityContext", {}),
        ("schedulerName", "default-scheduler"), ("terminationGracePeriodSeconds", 30),
        ("serviceAccountName", "default"),  # by the admission plugin ServiceAccount
    ):  # fmt: skip
        spec.setdefault(name, value)
    yield from containers(spec)
    if before is None:
        thing["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif _fixed(spec) != _fixed(before["spec"]):
        why = "Forbidden: pod updates may not change fields other than " + ", ".join(MUTABLE)
        yield "spec", why


def _fixed(spec: Object) -> Object:
    return {name: value for name, value in spec.items() if name not in MUTABLE}


def _secret(thing: Object, before: Object | None, _: object) -> Causes:
    thing.setdefault("type", "Opaque")
    for name, text in (thing.pop("stringData", None) or {}).items():
        thing.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
    if before and before.get("type") != thing["type"]:
        yield "type", f'Invalid value: "{thing["type"]}": field is immutable'


def _event(thing: Object, *_: object) -> Causes:
    meant = (thing.get("involvedObject") or {}).get("namespace", "")
    if (meant or "default") != thing["metadata"]["namespace"]:
        yield (
            "involvedObject.namespace",
            f'Invalid value: "{meant}": does not match event.namespace',
        )


def _crd(thing: Object, before: Object | None, _: object) -> Causes:
    spec = thing.get("spec") or {}
    names: Any = spec.get("names") or {}
    for field in ("group", "scope", "names", "versions"):
        if not spec.get(field):
            yield f"spec.{field}", "Required value"
            return
    for field in ("plural", "kind"):
        if not names.get(field):
            yield f"spec.names.{field}", "Required value"
            return
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    wanted = f"{names['plural']}.{spec['group']}"
    if thing["metadata"]["name"] != wanted:
        yield "metadata.name", f'must be spec.names.plural+"."+spec.group: {wanted}'
    if sum(bool(each.get("storage")) for each in spec["versions"]) != 1:
        yield "spec.versions", "must have exactly one version marked as storage version"
    if before and before["spec"]["scope"] != spec["scope"]:
        yield "spec.scope", f'Invalid value: "{spec["scope"]}": field is immutable'
    named = [each.get("name") for each in spec["versions"]]
    for n, stored in enumerate(before["status"]["storedVersions"] if before else ()):
        if stored not in named:
            why = f"{stored} was previously a storage version, and must remain in spec.versions"
            migrated = f"no data remains persisted in {stored} and removes {stored}"
            why += f" until a storage migration ensures {migrated} from status.storedVersions"
            where = f'Invalid value: "{stored}": missing from spec.versions; {why}'
            yield f"status.storedVersions[{n}]", where
    for n, version in enumerate(spec["versions"]):
        at = f"spec.versions[{n}]"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not schema:
            yield f"{at}.schema.openAPIV3Schema", "Required value: schemas are required"
            continue
        yield from unstructural(schema, f"{at}.schema.openAPIV3Schema")


def _webhooks(thing: Object, *_: object) -> Causes:
    for n, hook in enumerate(thing.get("webhooks") or ()):
        at = f"webhooks[{n}]"
        for name, value in (
            ("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("timeoutSeconds", 10),
            ("reinvocationPolicy", "Never"), ("namespaceSelector", {}), ("objectSelector", {}),
        ):  # fmt: skip
            hook.setdefault(name, value)
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")
        if str(hook.get("name", "")).count(".") < 2:
            why = "should be a domain with at least three segments separated by dots"
            yield f"{at}.name", f'Invalid value: "{hook.get("name", "")}": {why}'
        if not hook.get("admissionReviewVersions"):
            yield f"{at}.admissionReviewVersions", "Required value: must specify one of v1, v1beta1"
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            shown = hook.get("sideEffects")
            yield f"{at}.sideEffects", f'Unsupported value: "{shown}": None, NoneOnDryRun'
        if not 1 <= hook["timeoutSeconds"] <= 30:
            why = "the timeout value must be between 1 and 30 seconds"
            yield f"{at}.timeoutSeconds", f"Invalid value: {hook['timeoutSeconds']}: {why}"
        yield from _client(hook.get("clientConfig") or {}, f"{at}.clientConfig")


def _client(said: Object, at: str) -> Causes:
    if bool(said.get("url")) == bool(said.get("service")):
        yield at, "Required value: exactly one of url or service is required"
    elif said.get("service"):
        said["service"].setdefault("port", 443)
        for name in ("name", "namespace"):
            if not said["service"].get(name):
                yield f"{at}.service.{name}", f"Required value: service {name} is required"
    elif not said["url"].startswith("https://"):
        yield f"{at}.url", f'Invalid value: "{said["url"]}": "https" is the only allowed URL scheme'


NAMES = {
    "Service": SERVICE_NAME, "Namespace": LABEL, "ClusterRole": None, "ClusterRoleBinding": None,
    "Role": None, "RoleBinding": None,
}  # fmt: skip
SETTLE: dict[str, Settles] = {
    "Namespace": _namespace, "Service": _service, "EndpointSlice": _slice, "Pod": _pod,
    "Secret": _secret, "Event": _event, "CustomResourceDefinition": _crd,
    "MutatingWebhookConfiguration": _webhooks,
}  # fmt: skip
