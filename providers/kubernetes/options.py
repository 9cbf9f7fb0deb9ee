"""What the configuration says of a cluster: how it is reached, and which namespaces count."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshfed.catalog.model import LABEL
from meshfed.providers.hostlist import nearest
from meshfed.providers.kubernetes.pods import Place

OURS = "meshfed.io/mesh"
INJECT = "meshfed.io/inject"  # of namespaces and pods: whether pods get sidecars
OSM = "openservicemesh.io/monitored-by"
KEYS = ("context", "kubeconfig", "in_cluster", "secret", "cluster", "network", "namespaces")
NETWORK = re.compile(r"[-._A-Za-z0-9]{0,63}")
# As much of a selector as says something of one label: key, !key, key=value, key in (a, b).
SELECTOR = re.compile(r"[-._/A-Za-z0-9]+( *(=|==|!=) *[-._A-Za-z0-9]*| +(not)?in +\([^()]*\))?")


@dataclass(frozen=True, slots=True)
class Where:
    """How a cluster is reached; with a secret, the one whose kubeconfig stands in it there."""

    context: str = ""
    kubeconfig: Path | None = None  # else KUBECONFIG, or ~/.kube/config
    in_cluster: bool = False
    secret: tuple[str, str] | None = None  # namespace and name


@dataclass(frozen=True, slots=True)
class Monitored:
    """The namespaces that count: by name, or with one of these labels."""

    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    where: Where
    place: Place
    monitored: Monitored


def options(name: str, said: Mapping[str, object], base: Path) -> Options:
    """Raises ValueError: `key: why`."""
    for key in said:
        if key not in KEYS:
            raise ValueError(f"{key}: unknown key; {nearest(key, KEYS)}")
    cluster = word(said, "cluster") or name
    network = word(said, "network")
    if not NETWORK.fullmatch(network):
        raise ValueError(f"network: {network!r} is no name: letters, digits, '-', '.' and '_'")
    return Options(
        where(said, base), Place(name, cluster, network), monitored(said.get("namespaces"))
    )


def where(said: Mapping[str, object], base: Path) -> Where:
    context, kubeconfig = word(said, "context"), word(said, "kubeconfig")
    inside = said.get("in_cluster", False)
    if not isinstance(inside, bool):
        raise ValueError(f"in_cluster: {inside!r} is neither true nor false")
    if inside and (context or kubeconfig):
        other = "context" if context else "kubeconfig"
        raise ValueError(f"in_cluster: this or {other} says how the cluster is reached, not both")
    if not (inside or context or kubeconfig or "secret" in said):
        why = "name the context of a kubeconfig, or say in_cluster: true"
        raise ValueError(f"context: missing: {why}")
    file = base / Path(kubeconfig).expanduser() if kubeconfig else None
    return Where(context, file, inside or not (context or kubeconfig), secret(said))


def secret(said: Mapping[str, object]) -> tuple[str, str] | None:
    if "secret" not in said:
        return None
    namespace, slash, name = word(said, "secret").partition("/")
    if not (slash and namespace and name):
        why = "is not <namespace>/<name> of a Secret with the key `kubeconfig`"
        raise ValueError(f"secret: {said['secret']!r} {why}")
    return namespace, name


def monitored(said: object) -> Monitored:
    """By default, whatever is labelled for this mesh or for Open Service Mesh."""
    if said is None:
        return Monitored(labels=(OURS, OSM))
    if isinstance(said, list):
        return Monitored(names=tuple(dict.fromkeys(named(said))))
    if not isinstance(said, dict) or set(said) != {"label"}:
        why = 'is neither a list of names nor {label: "key=value"}'
        raise ValueError(f"namespaces: {said!r} {why}")
    label = said["label"]
    if not isinstance(label, str) or not SELECTOR.fullmatch(label):
        raise ValueError(f"namespaces.label: {label!r} is not key, key=value or key in (a, b)")
    return Monitored(labels=(label,))


def named(said: list[object]) -> list[str]:
    if not said:
        raise ValueError("namespaces: empty: name at least one")
    for name in said:
        if not isinstance(name, str) or not LABEL.fullmatch(name):
            raise ValueError(f"namespaces: {name!r} is no name of a namespace")
    return [str(name) for name in said]


def word(said: Mapping[str, object], key: str) -> str:
    text = said.get(key, "")
    if not isinstance(text, str) or (key in said and not text):
        raise ValueError(f"{key}: {text!r} is not a name")
    return text
