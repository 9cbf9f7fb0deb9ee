"""SMI documents as values, or the reason why not."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from meshfed.catalog.document import Document, Path
from meshfed.catalog.model import ObjectName, Policy, Rejected
from meshfed.catalog.rows import KINDS
from meshfed.federation.findings import findings, nearest, unknown
from meshfed.federation.specification import objects
from meshfed.federation.specification.objects import Mistake, Written

GROUPS = {
    "TrafficTarget": "access.smi-spec.io",
    "HTTPRouteGroup": "specs.smi-spec.io",
    "TCPRoute": "specs.smi-spec.io",
    "TrafficSplit": "split.smi-spec.io",
}
SHAPES: dict[str, dict[str, type[Written]]] = {
    "TrafficTarget": {
        "v1alpha3": objects.Target,
        "v1alpha2": objects.TargetV1Alpha2,
        "v1alpha1": objects.TargetV1Alpha1,
    },
    "HTTPRouteGroup": {
        "v1alpha4": objects.Group,
        "v1alpha3": objects.Group,
        "v1alpha2": objects.GroupV1Alpha2,
        "v1alpha1": objects.GroupV1Alpha2,
    },
    "TCPRoute": {
        "v1alpha4": objects.Tcp,
        "v1alpha3": objects.TcpV1Alpha3,
        "v1alpha2": objects.TcpV1Alpha3,
        "v1alpha1": objects.TcpV1Alpha3,
    },
    "TrafficSplit": {
        "v1alpha4": objects.Split,
        "v1alpha3": objects.Split,
        "v1alpha2": objects.SplitV1Alpha2,
        "v1alpha1": objects.SplitV1Alpha1,
    },
}
NOT_CARRIED = {
    "UDPRoute": "UDP is not carried by the mesh",
    "TrafficMetrics": "measured, not configured: see /metrics",
}


@dataclass(frozen=True, slots=True)
class Stated:
    """An object that was understood, and where it stands."""

    policy: Policy
    where: str

    @property
    def kind(self) -> str:
        return KINDS[type(self.policy)]

    @property
    def name(self) -> ObjectName:
        return self.policy.name


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that was not, by the kind and name that it gives itself."""

    kind: str
    name: ObjectName | None
    rejected: tuple[Rejected, ...]


def parse(document: Document) -> tuple[Stated | Refused, ...]:
    """The object in a document, or all of them when it is a `kind: List`."""
    return tuple(_parse(document, at, data) for at, data in _objects(document))


def is_smi(data: object) -> bool:
    """Whether this looks like an object for a mesh, right or wrong."""
    group = str(data.get("apiVersion", "")).partition("/")[0] if isinstance(data, dict) else ""
    return group.endswith("smi-spec.io")


def _objects(document: Document) -> Iterator[tuple[Path, object]]:
    data = document.data
    if (
        isinstance(data, dict)
        and data.get("kind") == "List"
        and isinstance(data.get("items"), list)
    ):
        yield from ((("items", index), item) for index, item in enumerate(data["items"]))
    else:
        yield (), data


def _parse(document: Document, at: Path, data: object) -> Stated | Refused:
    kind, name = _kind(data), _name(data)
    try:
        shape = _shape(data)
    except Mistake as mistake:
        return Refused(kind, name, (document.reject((*at, *mistake.path), mistake.why),))
    try:
        policy = shape.model_validate(data).policy()
    except Mistake as mistake:
        return Refused(kind, name, (document.reject((*at, *mistake.path), mistake.why),))
    except ValidationError as error:
        found = findings(error, shape)
        return Refused(kind, name, tuple(document.reject((*at, *path), why) for path, why in found))
    return Stated(policy, f"{document.file}:{document.line(at)}")


def _shape(data: object) -> type[Written]:
    """Which shape an object must have, by its kind and version. Raises Mistake."""
    if not isinstance(data, dict):
        raise Mistake((), "must be an SMI object: apiVersion, kind, metadata, spec")
    for key in ("apiVersion", "kind"):
        if not isinstance(data.get(key), str):
            raise Mistake((key,) if key in data else (), f"{key}: required, as text")
    kind, (group, _, version) = data["kind"], data["apiVersion"].partition("/")
    if not group.endswith("smi-spec.io"):
        why = f"{kind} of {data['apiVersion']} is not a mesh policy; known: {', '.join(SHAPES)}"
        raise Mistake(("kind",), why)
    if kind in NOT_CARRIED:
        raise Mistake(("kind",), f"{kind}: {NOT_CARRIED[kind]}")
    if kind not in SHAPES:
        raise Mistake(("kind",), f"{kind!r} is {unknown(kind, SHAPES)}")
    if group != GROUPS[kind] or version not in SHAPES[kind]:
        known = ", ".join(SHAPES[kind])
        raise Mistake(("apiVersion",), f"{kind} is known as {GROUPS[kind]}, {known}")
    return SHAPES[kind][version]


def _kind(data: object) -> str:
    """The kind that is meant: under it, the catalog finds what the object said before."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str):
        return ""
    return (nearest(kind, SHAPES) if is_smi(data) else "") or kind


def _name(data: object) -> ObjectName | None:
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return None
    return ObjectName(str(metadata.get("namespace", "default")), metadata["name"])
