"""Whether a pod gets a sidecar: what it says itself, what its namespace says, and what it is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from meshfed.federation.inject.injection import Injection, Sidecar
from meshfed.federation.inject.raw import Object, Unfit, entries, mapping, word, words
from meshfed.providers.kubernetes.options import INJECT, OSM, OURS

PROXY, INIT, TOKEN = "meshfed-proxy", "meshfed-init", "meshfed-token"
OSM_INJECT = "openservicemesh.io/sidecar-injection"
INTERCEPTION = "meshfed.io/interception"
# A namespace with one of these is in the mesh.
MEMBER = (INJECT, OURS, OSM)
OSM_IGNORE = "openservicemesh.io/ignore"
MIRROR = "kubernetes.io/config.mirror"  # a static pod, which kubelet made from a file of its own
CLUSTERS_OWN = frozenset({"kube-system", "kube-public", "kube-node-lease"})
ANSWERS = {
    **dict.fromkeys(("enabled", "yes", "true"), True),
    **dict.fromkeys(("disabled", "no", "false"), False),
}
# Two meshes' iptables in one pod leave neither of them working.
STRANGERS = {"istio-proxy": "Istio's", "linkerd-proxy": "Linkerd's", "envoy": "Open Service Mesh's"}
OSM_INJECTED = "osm-proxy-uuid"  # the label of a pod whose container `envoy` is OSM's


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where a pod is to be, and what is said of all pods there."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """A pod that is left as it is. `telling`: its owner may not know."""

    why: str
    telling: bool = False


def left(
    pod: Object, namespace: Namespace | None, injection: Injection, own: str = ""
) -> Left | None:
    """Why a pod is left as it is; None when it gets a sidecar. Raises Unfit.

    Without a namespace nobody was asked: somebody who has the manifest wants it. `own`: where the
    control plane is, whose pods must start before it answers.
    """
    spec = mapping(pod, "spec")
    if elsewhere := outside(namespace, own):
        return Left(elsewhere)
    # What it is goes before what it says: a pod that could not have one is not refused for a word.
    if unable := incapable(pod, spec):
        return Left(unable)
    if theirs := injected(pod, spec):
        return theirs
    asked = wanted(pod)
    if asked is None:
        asked = True if namespace is None else offered(namespace)
        explicit = False
    else:
        explicit = asked
    if not asked:
        return Left("it is not asked for")
    return unending(spec, injection, explicit=explicit)


def outside(namespace: Namespace | None, own: str) -> str:
    if namespace is None:
        return ""
    if namespace.name in CLUSTERS_OWN:
        return f"{namespace.name} is the cluster's own namespace"
    if own and namespace.name == own:
        return f"{own} is the control plane's own namespace"
    if OSM_IGNORE in namespace.labels:
        return f"the namespace has the label {OSM_IGNORE}"
    if not any(label in namespace.labels for label in MEMBER):
        return f"the namespace {namespace.name} is not in the mesh"
    return ""


def incapable(pod: Object, spec: Object) -> str:
    """What makes a sidecar impossible, whatever anybody asks for."""
    annotations = words(mapping(pod, "metadata"), "annotations", ("metadata",))
    if spec.get("hostNetwork"):
        return "it is in its node's network: iptables would be the whole node's"
    if MIRROR in annotations:
        return "it is a static pod, which kubelet has started already"
    at = ("spec",)
    system = word(mapping(spec, "os", at), "name", (*at, "os"))
    selected = words(spec, "nodeSelector", at).get("kubernetes.io/os", "")
    if "windows" in (system, selected):
        return "it is for Windows"
    if annotations.get(INTERCEPTION) in ("none", "grpc"):
        return f"{INTERCEPTION} is {annotations[INTERCEPTION]}"
    return ""


def injected(pod: Object, spec: Object) -> Left | None:
    """A pod with a sidecar already: injected twice, or a copy of one that was (`kubectl debug`).

    Raises Unfit where only a part of one is left.
    """
    names = dict(_named(spec))
    if PROXY in names:
        return Left("it has its sidecar already")
    if INIT in names:
        why = f"{INIT} is there without {PROXY}: take it out, or its traffic goes nowhere"
        raise Unfit(("spec", *names[INIT]), why)
    labels = words(mapping(pod, "metadata"), "labels", ("metadata",))
    for name, whose in STRANGERS.items():
        if name in names and (name != "envoy" or OSM_INJECTED in labels):
            return Left(f"it has {whose} sidecar ({name})", telling=True)
    return None


def _named(spec: Object) -> Iterator[tuple[str, tuple[str, int]]]:
    for key in ("initContainers", "containers"):
        for n, container in enumerate(entries(spec, key, ("spec",))):
            yield word(container, "name", ("spec", key, n)), (key, n)


def wanted(pod: Object) -> bool | None:
    """What a pod says of itself: our word before OSM's. Raises Unfit."""
    metadata = mapping(pod, "metadata")
    annotations = words(metadata, "annotations", ("metadata",))
    labels = words(metadata, "labels", ("metadata",))
    for key, said, where in (
        (INJECT, annotations, "annotations"),
        (INJECT, labels, "labels"),
        (OSM_INJECT, annotations, "annotations"),
    ):
        if key in said:
            return answer(said[key], ("metadata", where, key))
    return None


def offered(namespace: Namespace) -> bool:
    """What a namespace says of its pods. Raises Unfit."""
    for key, said, where in (
        (INJECT, namespace.labels, "labels"),
        (INJECT, namespace.annotations, "annotations"),
        (OSM_INJECT, namespace.annotations, "annotations"),
    ):
        if key in said:
            return answer(said[key], ("namespace", namespace.name, where, key))
    return False


def answer(text: str, at: tuple[str, ...]) -> bool:
    """OSM's words, and its strictness: a typo must not leave a pod outside the mesh."""
    found = ANSWERS.get(text.lower())
    if found is None:
        raise Unfit(at, f"{text!r} is neither enabled nor disabled")
    return found


def unending(spec: Object, injection: Injection, *, explicit: bool) -> Left | None:
    """A pod that is to end, beside a classic sidecar that never does."""
    forever = word(spec, "restartPolicy", ("spec",)) in ("", "Always")
    if injection.sidecar is not Sidecar.CLASSIC or forever or explicit:
        return None
    why = f"it would never end with a classic sidecar; {INJECT}: enabled insists"
    return Left(why, telling=True)
