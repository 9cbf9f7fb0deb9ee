"""What each class of proxies is told, built once and again only where something changed."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any

from meshfed.catalog.model import Identity, Interception, Mesh, ServiceName, Workload
from meshfed.catalog.reach import Assignment
from meshfed.catalog.view import ProxyClass, View, proxy_class, resolve, view
from meshfed.federation.certificates.custody import Custody
from meshfed.xds.endpoints import load_assignment
from meshfed.xds.resource import Resource, Resources, Type, World
from meshfed.xds.secrets import OWN, certificate, validation
from meshfed.xds.snapshot import Snapshot, snapshot
from meshfed.xds.soundness import LeftOut

Reach = tuple[tuple[str, str, int, int, str], ...]  # cluster, service, priority, endpoints, version


@dataclass(frozen=True, slots=True)
class Made:
    """One class's view, its snapshot, and the world that was made of them."""

    view: View
    snapshot: Snapshot
    world: World


class Worlds:
    """The worlds of the classes that have a proxy connected, all of one mesh."""

    def __init__(self, mesh: Mesh, custody: Custody) -> None:
        self.mesh = mesh
        self._shaped = mesh  # what `_resolved` is of: endpoints go ahead, and views need one mesh
        self._resolved = resolve(mesh)
        self._custody = custody
        self._made: dict[ProxyClass, Made] = {}
        self._assignments: dict[str, Resource] = {}  # bytes once, for every class

    def kind(self, workload: Workload) -> ProxyClass:
        """Raises Anonymous."""
        return proxy_class(self._shaped, workload, self._resolved)

    def of(self, kind: ProxyClass) -> World:
        if kind not in self._made:
            seen = self._view(kind)
            self._made[kind] = self._make(kind, seen, snapshot(seen))
        return self._made[kind].world

    def keep(self, kinds: Iterable[ProxyClass]) -> None:
        """Forget the classes that no proxy is of any more."""
        self._made = {kind: self._made[kind] for kind in kinds if kind in self._made}

    def called(self, kind: ProxyClass) -> Collection[str]:
        """The clusters through which this class calls; the same object while they stay."""
        return self._made[kind].snapshot.fed

    def reach(self, kind: ProxyClass) -> Reach:
        """What proxies of this class can reach, as they are told it."""
        shape = self._made[kind].snapshot
        told = {name: self._assignments[name] for name in shape.assignments}
        return tuple(
            (name, str(shape.assignments[fed].service), priority, endpoints, told[fed].version)
            for name, fed in shape.fed.items()
            if name in shape.clusters
            for priority, endpoints in sizes(told[fed])
        )

    def __len__(self) -> int:
        return len(self._made)

    def without_effect(self) -> frozenset[str]:
        """What is written and has none."""
        return frozenset(map(str, self._resolved.unresolved))

    def left_out(self) -> frozenset[LeftOut]:
        """What proxies are not told: it is another's already, or Envoy would refuse it."""
        made = self._made.values()
        unheard = (each for one in made for each in one.view.unresolved if each.kind == "Service")
        return frozenset(each for one in made for each in one.snapshot.left_out) | frozenset(
            LeftOut(each.kind, each.name, each.why) for each in unheard
        )

    def endpoints_changed(self, mesh: Mesh, services: Iterable[ServiceName]) -> set[ProxyClass]:
        """The endpoint lane: load assignments only. Returns the classes whose world changed."""
        self.mesh = mesh
        names = set(services)
        touched = {
            name: assignment
            for made in self._made.values()
            for name, assignment in made.snapshot.assignments.items()
            if assignment.service in names
        }
        built = {name: self._assignment(assignment) for name, assignment in touched.items()}
        moved = {
            name for name, new in built.items() if self._assignments[name].version != new.version
        }
        self._assignments.update(built)
        return self._remake(
            kind for kind, made in self._made.items() if moved & made.snapshot.assignments.keys()
        )

    def shape_changed(self, mesh: Mesh) -> set[ProxyClass]:
        """The shape lane: every class's view. Returns the classes whose world changed."""
        if mesh is not self._shaped:
            self._resolved = resolve(mesh)
        self.mesh = self._shaped = mesh
        self._assignments.clear()
        for kind, made in self._made.items():
            seen = self._view(kind)
            # A host that joins or leaves mostly moves nobody's view, and a snapshot takes longer.
            shape = made.snapshot if seen == made.view else snapshot(seen)
            self._made[kind] = Made(seen, shape, made.world)
        return self._remake(self._made)

    def certificates_changed(self, identities: frozenset[Identity]) -> set[ProxyClass]:
        """The certificate lane: secrets only."""
        return self._remake(kind for kind in self._made if kind.identity in identities)

    def _view(self, kind: ProxyClass) -> View:
        return view(self._shaped, kind, self._resolved)

    def _remake(self, kinds: Iterable[ProxyClass]) -> set[ProxyClass]:
        changed = set()
        for kind in list(kinds):
            before = self._made[kind]
            made = self._make(kind, before.view, before.snapshot)
            resources = kept(before.world.resources, made.world.resources)
            if any(resources[each] is not before.world.resources[each] for each in resources):
                self._made[kind] = replace(made, world=replace(made.world, resources=resources))
                changed.add(kind)
        return changed

    def _make(self, kind: ProxyClass, seen: View, shape: Snapshot) -> Made:
        for name, assignment in shape.assignments.items():
            if name not in self._assignments:
                self._assignments[name] = self._assignment(assignment)
        resources = {
            Type.CLUSTER: shape.clusters,
            Type.ENDPOINTS: {name: self._assignments[name] for name in shape.assignments},
            Type.SECRET: self._secrets(kind, shape),
            Type.LISTENER: shape.listeners,
            Type.ROUTES: shape.routes,
        }
        by_name = kind.interception is Interception.GRPC
        return Made(seen, shape, World(self.mesh.revision, resources, by_name))

    def _assignment(self, assignment: Assignment) -> Resource:
        endpoints = self.mesh.endpoints_of(assignment.service, assignment.port)
        return load_assignment(assignment, endpoints)

    def _secrets(self, kind: ProxyClass, shape: Snapshot) -> Resources:
        secrets = {
            name: _validation(name, self._custody.roots_pem, sans)
            for name, sans in shape.validations.items()
        }
        if kind.interception is Interception.GRPC:  # its certificate is in its files
            return secrets
        held = self._custody.held(kind.identity)
        if held is not None:
            secrets[OWN] = certificate(OWN, held.chain_pem.encode(), held.key_pem.encode())
        return secrets


def kept(old: Mapping[Type, Resources], new: Mapping[Type, Resources]) -> dict[Type, Resources]:
    """The new resources; a type in which nothing moved stays the object it was."""
    return {kind: old[kind] if same(old[kind], new[kind]) else new[kind] for kind in new}


def same(old: Resources, new: Resources) -> bool:
    return old.keys() == new.keys() and all(
        resource.version == new[name].version for name, resource in old.items()
    )


@lru_cache(maxsize=4096)
def _validation(name: str, roots: str, sans: tuple[str, ...]) -> Resource:
    return validation(name, roots.encode(), sans)


@lru_cache(maxsize=65536)
def sizes(assignment: Resource) -> tuple[tuple[int, int], ...]:
    """How many endpoints a load assignment has at each priority."""
    packed = Any.FromString(assignment.any)
    sized: Counter[int] = Counter()
    for locality in ClusterLoadAssignment.FromString(packed.value).endpoints:
        sized[locality.priority] += len(locality.lb_endpoints)
    return tuple(sorted(sized.items())) or ((0, 0),)
