"""Who asks: the workloads behind a name or an identity, as the classes of proxies they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import structs

from meshfed.catalog.model import Identity, Interception, Mesh, TrafficTarget, Workload
from meshfed.catalog.resolved import Resolved
from meshfed.catalog.view import Anonymous, ProxyClass, proxy_class
from meshfed.federation.findings import nearest


class Unknown(ValueError):
    """Nothing in the mesh has this name; the message says what was probably meant."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Workloads whose sidecars are told the same about the outside."""

    name: str
    kind: ProxyClass | None  # None: they have no sidecar that could be told anything
    workloads: tuple[Workload, ...]
    why: str = ""  # there is no sidecar, or nobody is this caller yet


def callers(mesh: Mesh, name: str, resolved: Resolved) -> tuple[Caller, ...]:
    """A workload's name or id, or an identity. Raises Unknown."""
    everyone = mesh.everyone
    found = [workload for workload in everyone if name in (workload.name, workload.id)]
    found = found or [workload for workload in everyone if str(workload.identity) == name]
    if found:
        return _by_class(mesh, name, found, resolved)
    try:
        identity = Identity.parse(name)
    except ValueError as error:
        raise Unknown(f"no workload or identity {name}{_perhaps(mesh, name)}") from error
    if identity not in _named(mesh):
        raise Unknown(f"nobody is {name}, and no policy names it{_perhaps(mesh, name)}")
    kind = ProxyClass(identity, (), "0.0.0.0", "127.0.0.1", "", Interception.EXPLICIT)
    why = "no workload runs as it yet: this is what an explicit one would see"
    return (Caller(name, kind, (), why),)


def _by_class(
    mesh: Mesh, name: str, found: list[Workload], resolved: Resolved
) -> tuple[Caller, ...]:
    sorted_out: dict[ProxyClass | None, list[Workload]] = {}
    whys: dict[ProxyClass | None, str] = {}
    for workload in found:
        try:
            kind = outward(proxy_class(mesh, workload, resolved))
        except Anonymous as error:
            kind, whys[None] = None, str(error)
        sorted_out.setdefault(kind, []).append(workload)
    return tuple(
        Caller(name, kind, tuple(there), whys.get(kind, "")) for kind, there in sorted_out.items()
    )


def outward(kind: ProxyClass) -> ProxyClass:
    """The class without what it serves: callers who differ in that alone see the same mesh."""
    return structs.replace(kind, serves=(), bind="0.0.0.0", application="127.0.0.1")


def outward_classes(mesh: Mesh, resolved: Resolved) -> Mapping[ProxyClass, tuple[Workload, ...]]:
    """Everybody who could call, by what they are told."""
    found: dict[ProxyClass, list[Workload]] = {}
    for workload in mesh.everyone:
        if workload.identity is not None and workload.interception is not Interception.NONE:
            kind = outward(proxy_class(mesh, workload, resolved))
            found.setdefault(kind, []).append(workload)
    return {kind: tuple(there) for kind, there in found.items()}


def _named(mesh: Mesh) -> set[Identity]:
    targets = (policy for policy in mesh.policies if isinstance(policy, TrafficTarget))
    return {source for target in targets for source in target.sources}


def _perhaps(mesh: Mesh, name: str) -> str:
    known = {w.name for w in mesh.workloads.values()}
    known |= {str(w.identity) for w in mesh.workloads.values() if w.identity}
    near = nearest(name, known)
    return f": did you mean {near}?" if near else ": see `meshfed get workloads`"
