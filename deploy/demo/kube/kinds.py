"""The kinds that an API server knows: the built-in ones, and those that CRDs bring."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshfed.demo.kube.objects import Object

Of = tuple[str, str]  # group and plural: versions of a kind share what is stored
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    status: bool = False  # is a subresource of its own
    selectable: tuple[str, ...] = ()  # by field selectors, beside name and namespace
    generation: bool = False  # counts what changes beside metadata and status
    schema: Mapping[str, Any] | None = field(default=None, compare=False)  # of CRDs alone
    columns: tuple[Mapping[str, str], ...] = field(default=(), compare=False)

    @property
    def of(self) -> Of:
        return self.group, self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACE = Kind(
    "", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",), status=True,
    selectable=("status.phase",),
)  # fmt: skip
CRD = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition",
    namespaced=False, short=("crd", "crds"), status=True, generation=True,
)  # fmt: skip
POD_FIELDS = (
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
    "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
)  # fmt: skip
EVENT_FIELDS = (
    *(f"involvedObject.{name}" for name in (
        "kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath",
    )),
    "reason", "reportingComponent", "source", "type",
)  # fmt: skip
RBAC = "rbac.authorization.k8s.io"
HOOKS = "admissionregistration.k8s.io"
BUILT_IN = (
    NAMESPACE,
    Kind("", "v1", "nodes", "Node", namespaced=False, short=("no",), status=True,
         selectable=("spec.unschedulable",)),
    Kind("", "v1", "pods", "Pod", short=("po",), status=True, selectable=POD_FIELDS),
    Kind("", "v1", "services", "Service", short=("svc",), status=True,
         selectable=("spec.clusterIP", "spec.type")),
    Kind("", "v1", "endpoints", "Endpoints", short=("ep",)),
    Kind("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("", "v1", "secrets", "Secret", selectable=("type",)),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), status=True),
    Kind("", "v1", "events", "Event", short=("ev",), selectable=EVENT_FIELDS),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True),
    Kind("coordination.k8s.io", "v1", "leases", "Lease"),
    Kind("apps", "v1", "deployments", "Deployment", short=("deploy",), status=True,
         generation=True),
    Kind("apps", "v1", "statefulsets", "StatefulSet", short=("sts",), status=True,
         generation=True),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",), status=True,
         generation=True),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",),
         generation=True),
    Kind(HOOKS, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration",
         namespaced=False, generation=True),
    Kind(HOOKS, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration",
         namespaced=False, generation=True),
    Kind(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Kind(RBAC, "v1", "roles", "Role"),
    Kind(RBAC, "v1", "rolebindings", "RoleBinding"),
    CRD,
)  # fmt: skip


def defined(crd: Object) -> Iterator[tuple[Kind, Object]]:
    """The kind that a CRD defines, in each version, with what is said of that version."""
    spec = crd["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        paths = (each["jsonPath"] for each in version.get("selectableFields") or ())
        kind = Kind(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            short=tuple(names.get("shortNames") or ()),
            status="status" in (version.get("subresources") or {}),
            selectable=tuple(path.removeprefix(".") for path in paths),
            generation=True,
            schema=version["schema"]["openAPIV3Schema"],
            columns=tuple(version.get("additionalPrinterColumns") or ()),
        )
        yield kind, version


def known(crd: Object, before: Object | None) -> Object:
    """The status that a CRD has once its kinds are served."""
    spec = crd["spec"]
    stored = list(before["status"]["storedVersions"]) if before else []
    stored += [v["name"] for v in spec["versions"] if v["storage"] and v["name"] not in stored]
    since = crd["metadata"]["creationTimestamp"]
    reasons = {"NamesAccepted": "NoConflicts", "Established": "InitialNamesAccepted"}
    return {
        "acceptedNames": spec["names"],
        "storedVersions": stored,
        "conditions": [
            {"type": type_, "status": "True", "reason": reason, "lastTransitionTime": since}
            for type_, reason in reasons.items()
        ],
    }
