"""What each class of proxies is told, built once and again only where something changed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any

from meshfed.catalog.concern import concern
from meshfed.catalog.model import Identity, Interception, Mesh, ServiceName, Workload
from meshfed.catalog.reach import Assignment
from meshfed.catalog.reports import Reach
from meshfed.catalog.resolved import resolve
from meshfed.catalog.view import ProxyClass, View, proxy_class, view
from meshfed.federation.certificates.custody import Custody
from meshfed.xds.assembled import Assembled, assembled
from meshfed.xds.resource import Resource, Resources, Type, World, once
from meshfed.xds.secrets import OWN, certificate, validation
from meshfed.xds.snapshot import Snapshot, snapshot
from meshfed.xds.soundness import LeftOut


@dataclass(frozen=True, slots=True)
class Reaching:
    """What a class can reach, and of what that was read."""

    shape: Snapshot
    told: Resources
    rows: Reach


@dataclass(frozen=True, slots=True)
class Made:
    """One class's view, its snapshot, and the world that was made of them."""

    view: View
    snapshot: Snapshot
    world: World


class Worlds:
    """The worlds of the classes that have a proxy connected, all of one mesh."""

    def __init__(
        self, mesh: Mesh, custody: Custody, viewed: Callable[[], None] = lambda: None
    ) -> None:
        self.mesh = mesh
        self._shaped = mesh  # what `_resolved` is of: endpoints go ahead, and views need one mesh
        self._resolved = resolve(mesh)
        self._custody = custody
        self._viewed = viewed
        self._made: dict[ProxyClass, Made] = {}
        self._assigned: dict[str, Assembled] = {}  # bytes once, for every class; by name
        self._holders: defaultdict[str, set[ProxyClass]] = defaultdict(set)  # by the same
        self._named: defaultdict[ServiceName, set[str]] = defaultdict(set)  # the same, by service
        self._reaching: dict[ProxyClass, Reaching] = {}
        self._moved: set[ProxyClass] = set()  # whose world changed in this lane

    def kind(self, workload: Workload) -> ProxyClass:
        """Raises Anonymous."""
        return proxy_class(self._shaped, workload, self._resolved)

    @property
    def moved(self) -> frozenset[str]:
        """The workloads that serve something else, by the last change of shape."""
        return self._resolved.moved

    def of(self, kind: ProxyClass) -> World:
        if kind not in self._made:
            seen = self._view(kind)
            shape = snapshot(seen)
            self._hold(kind, shape)
            self._made[kind] = Made(seen, shape, self._world(kind, self._told(kind, shape)))
        return self._made[kind].world

    def keep(self, kinds: Iterable[ProxyClass]) -> None:
        """Forget the classes that no proxy is of any more, and what only they were told."""
        for kind in self._made.keys() - set(kinds):
            self._release(kind, self._made.pop(kind).snapshot)
            self._reaching.pop(kind, None)

    def called(self, kind: ProxyClass) -> Collection[str]:
        """The clusters through which this class calls; the same object while they stay."""
        return self._made[kind].snapshot.fed

    def reach(self, kind: ProxyClass) -> Reach:
        """What proxies of this class can reach, as they are told it; what moved is read again."""
        made = self._made[kind]
        shape, told = made.snapshot, made.world.of(Type.ENDPOINTS)
        known = self._reaching.get(kind)
        if known is None or known.shape is not shape:
            known = Reaching(shape, told, reached(shape, told, shape.fed))
        elif known.told is not told:
            moved = [name for name, fed in shape.fed.items() if told[fed] is not known.told[fed]]
            gone, new = (reached(shape, each, moved) for each in (known.told, told))
            known = Reaching(shape, told, known.rows - gone | new)
        self._reaching[kind] = known
        return known.rows

    def reaches(self) -> dict[ProxyClass, Reach]:
        """The same of all classes there are."""
        return {kind: self.reach(kind) for kind in self._made}

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
        self._reassign([name for service in services for name in self._named.get(service, ())])
        return self._taken()

    def shape_changed(self, mesh: Mesh) -> set[ProxyClass]:
        """The shape lane: the views that what moved may concern. Returns the classes whose world
        changed."""
        before, known = self._shaped, self._resolved
        if mesh is not before:
            self._resolved = resolve(mesh, before, known)
        ahead, self.mesh = self.mesh, mesh
        self._shaped = mesh
        if mesh.endpoints is not ahead.endpoints:  # mostly the endpoint lane took them in
            self._reassign(list(self._assigned))
        concerned = concern(before, known, mesh, self._resolved)
        for kind in list(self._made):
            if concerned(kind):
                self._reshape(kind)
        return self._taken()

    def certificates_changed(self, identities: frozenset[Identity]) -> set[ProxyClass]:
        """The certificate lane: secrets only."""
        for kind in [kind for kind in self._made if kind.identity in identities]:
            self._tell(kind, self._made[kind].snapshot)
        return self._taken()

    def _taken(self) -> set[ProxyClass]:
        moved, self._moved = self._moved, set()
        return moved

    def _view(self, kind: ProxyClass) -> View:
        self._viewed()
        return view(self._shaped, kind, self._resolved)

    def _reshape(self, kind: ProxyClass) -> None:
        made, seen = self._made[kind], self._view(kind)
        # A host that joins or leaves mostly moves nobody's view, and a snapshot takes longer.
        if seen == made.view:
            return
        shape = snapshot(seen)
        self._hold(kind, shape)
        for name in made.snapshot.assignments.keys() - shape.assignments.keys():
            self._let_go(kind, name)
        self._made[kind] = replace(self._made[kind], view=seen, snapshot=shape)
        self._tell(kind, shape)

    def _tell(self, kind: ProxyClass, shape: Snapshot) -> None:
        made = self._made[kind]
        before, after = made.world.resources, self._told(kind, shape)
        resources = kept(before, after)
        if any(resources[each] is not before[each] for each in resources):
            self._made[kind] = Made(made.view, made.snapshot, self._world(kind, resources))
            self._moved.add(kind)

    def _world(self, kind: ProxyClass, resources: Mapping[str, Resources]) -> World:
        by_name = kind.interception is Interception.GRPC
        return World(self.mesh.revision, resources, by_name)

    def _told(self, kind: ProxyClass, shape: Snapshot) -> dict[str, Resources]:
        return {
            Type.CLUSTER: shape.clusters,
            Type.ENDPOINTS: {name: self._assigned[name].resource for name in shape.assignments},
            Type.SECRET: self._secrets(kind, shape),
            Type.LISTENER: shape.listeners,
            Type.ROUTES: shape.routes,
        }

    # Load assignments: each is made once, and again only when its service's endpoints moved

    def _reassign(self, names: Iterable[str]) -> None:
        """Make these again where they are outdated."""
        moved: defaultdict[ProxyClass, dict[str, Resource]] = defaultdict(dict)
        for name in names:
            old = self._assigned[name]
            self._assigned[name] = new = self._assign(old.assignment, old)
            if new.resource is not old.resource:
                for kind in self._holders[name]:
                    moved[kind][name] = new.resource
        for kind, news in moved.items():
            made = self._made.get(kind)
            if made is None:  # its first world is being made
                continue
            resources = dict(made.world.resources)
            resources[Type.ENDPOINTS] = {**resources[Type.ENDPOINTS], **news}
            self._made[kind] = Made(made.view, made.snapshot, self._world(kind, resources))
            self._moved.add(kind)

    def _assign(self, assignment: Assignment, old: Assembled | None) -> Assembled:
        there = self.mesh.endpoints.get(assignment.service, ())
        if old and old.endpoints is there and old.assignment == assignment:
            return old
        return assembled(assignment, there, old)

    def _hold(self, kind: ProxyClass, shape: Snapshot) -> None:
        outdated = []
        for name, assignment in shape.assignments.items():
            held = self._assigned.get(name)
            if held is None:
                self._assigned[name] = self._assign(assignment, None)
                self._named[assignment.service].add(name)
            elif (
                held.assignment != assignment
            ):  # its service's preference, or its word on plaintext
                self._assigned[name] = assembled(assignment, held.endpoints)
                outdated.append(name)
            self._holders[name].add(kind)
        self._reassign(outdated)

    def _release(self, kind: ProxyClass, shape: Snapshot) -> None:
        for name in shape.assignments:
            self._let_go(kind, name)

    def _let_go(self, kind: ProxyClass, name: str) -> None:
        self._holders[name].discard(kind)
        if not self._holders[name]:
            del self._holders[name]
            self._named[self._assigned.pop(name).assignment.service].discard(name)

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


def kept(old: Mapping[str, Resources], new: Mapping[str, Resources]) -> dict[str, Resources]:
    """The new resources; a type in which nothing moved stays the object it was."""
    return {kind: old[kind] if same(old[kind], new[kind]) else new[kind] for kind in new}


def same(old: Resources, new: Resources) -> bool:
    return old.keys() == new.keys() and all(
        resource.version == new[name].version for name, resource in old.items()
    )


def reached(shape: Snapshot, told: Resources, names: Iterable[str]) -> Reach:
    """What of these clusters callers reach: how many endpoints, at each priority."""
    return frozenset(
        (name, priority, str(shape.assignments[fed].service), endpoints, told[fed].version)
        for name, fed in ((name, shape.fed[name]) for name in names if name in shape.clusters)
        for priority, endpoints in sizes(told[fed])
    )


@lru_cache(maxsize=4096)
def _validation(name: str, roots: str, sans: tuple[str, ...]) -> Resource:
    return validation(name, roots.encode(), sans)


@once
def sizes(assignment: Resource) -> tuple[tuple[int, int], ...]:
    """How many endpoints a load assignment has at each priority."""
    packed = Any.FromString(assignment.any)
    sized: Counter[int] = Counter()
    for locality in ClusterLoadAssignment.FromString(packed.value).endpoints:
        sized[locality.priority] += len(locality.lb_endpoints)
    return tuple(sorted(sized.items())) or ((0, 0),)
