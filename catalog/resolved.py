"""What all views of one mesh share, worked out once, and taken over where nothing moved."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from immutables import Map
from msgspec import Struct

from meshfed.catalog.access import Access, Unresolved, access
from meshfed.catalog.model import Endpoint, Identity, Interception, Mesh, ServiceName
from meshfed.catalog.splits import Splits, splits

K = TypeVar("K")
V = TypeVar("V")

Place = tuple[ServiceName, int]  # a service's port


class Served(Struct, frozen=True, order=True):
    """A workload answers for this service's port on that port of its application."""

    service: ServiceName
    port: int
    target: int


@dataclass(frozen=True, slots=True)
class Part:
    """Who answers for one service, and which workloads; the same while the same endpoints do."""

    endpoints: tuple[Endpoint, ...]
    plaintext: bool
    answering: Mapping[int, frozenset[Identity | None]]  # by port
    serves: Mapping[str, list[Served]]  # by workload


@dataclass(frozen=True, slots=True)
class Resolved:
    """What all the views of one mesh share, worked out once."""

    access: Access
    splits: Splits
    answering: Mapping[Place, frozenset[Identity | None]]
    places: Mapping[Identity, tuple[Place, ...]]  # what an identity answers for
    serves: Map[str, tuple[Served, ...]]  # by workload
    relations: frozenset[str]  # what preferences ask of where a caller is
    parts: Mapping[ServiceName, Part]  # what the above was made of, service by service
    moved: frozenset[str] = frozenset()  # the workloads that serve other than in what was `known`

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """Everything that is written and has no effect, whoever calls."""
        return tuple(sorted({*self.access.unresolved, *self.splits.unresolved}))


EMPTY = Resolved(Access({}, (), {}), Splits({}, ()), {}, {}, Map(), frozenset(), {})


def resolve(mesh: Mesh, before: Mesh | None = None, known: Resolved | None = None) -> Resolved:
    """What was `known` of the mesh `before` is taken over where nothing moved."""
    if before is None or known is None:
        before, known = Mesh(trust_domain=""), EMPTY
    old, parts = known.parts, dict(known.parts)
    for name in touched(before, mesh):
        if name in mesh.endpoints:
            parts[name] = part(mesh, name, old.get(name))
        else:
            parts.pop(name, None)
    changed = others(old, parts)
    answering, places = known.answering, known.places
    if any(answered(old.get(name)) is not answered(parts.get(name)) for name in changed):
        answering, places = answers(parts)
    same = mesh.policies == before.policies
    unsplit = same and mesh.services is before.services
    serves, moved = served(known.serves, old, parts, changed)
    return Resolved(
        known.access if same else access(mesh.policies),
        known.splits if unsplit else splits(mesh.policies, mesh.services),
        answering,
        places,
        serves,
        mesh.preferences.relations,
        parts,
        moved,
    )


def touched(before: Mesh, after: Mesh) -> set[ServiceName]:
    """The services of which a part may be another now."""
    found = others(before.endpoints, after.endpoints)
    if before.services is not after.services:
        found |= others(before.services, after.services)
    return found


def others(before: Mapping[K, V], after: Mapping[K, V]) -> set[K]:
    """Under which keys another object stands, or none."""
    found = {key for key, value in after.items() if before.get(key) is not value}
    return found | (before.keys() - after.keys())


def part(mesh: Mesh, name: ServiceName, old: Part | None) -> Part:
    endpoints = mesh.endpoints[name]
    plaintext = name in mesh.services and mesh.services[name].plaintext
    if old and old.endpoints is endpoints and old.plaintext == plaintext:
        return old
    answering: defaultdict[int, set[Identity | None]] = defaultdict(set)
    serves: defaultdict[str, list[Served]] = defaultdict(list)
    for endpoint, one, workloads in alike(name, endpoints):
        for workload in workloads:
            serves[workload].append(one)
        if reachable(endpoint, plaintext=plaintext):
            answering[endpoint.port].add(endpoint.identity)
    found = {number: frozenset(who) for number, who in answering.items()}
    if old and found == old.answering:
        return Part(endpoints, plaintext, old.answering, serves)
    return Part(endpoints, plaintext, found, serves)


def answered(part: Part | None) -> Mapping[int, frozenset[Identity | None]] | None:
    """Who answers for each port; the same object while the same do."""
    return part.answering if part else None


def answers(
    parts: Mapping[ServiceName, Part],
) -> tuple[dict[Place, frozenset[Identity | None]], dict[Identity, tuple[Place, ...]]]:
    answering = {(name, n): who for name, its in parts.items() for n, who in its.answering.items()}
    places: defaultdict[Identity, list[Place]] = defaultdict(list)
    for place, identities in answering.items():
        for identity in filter(None, identities):
            places[identity].append(place)
    return answering, {identity: tuple(sorted(found)) for identity, found in places.items()}


def served(
    known: Map[str, tuple[Served, ...]],
    old: Mapping[ServiceName, Part],
    new: Mapping[ServiceName, Part],
    changed: Iterable[ServiceName],
) -> tuple[Map[str, tuple[Served, ...]], frozenset[str]]:
    """By workload, and whose moved."""
    serves, moved = known.mutate(), set[str]()
    for name in changed:
        was = old[name].serves if name in old else {}
        now = new[name].serves if name in new else {}
        for workload in was.keys() | now.keys():
            if was.get(workload) == now.get(workload):
                continue
            moved.add(workload)
            rest = [one for one in serves.get(workload, ()) if one.service != name]
            if found := tuple(sorted({*rest, *now.get(workload, ())})):
                serves[workload] = found
            else:
                del serves[workload]
    return serves.finish(), frozenset(moved)


def alike(
    name: ServiceName, endpoints: Iterable[Endpoint]
) -> Iterator[tuple[Endpoint, Served, list[str]]]:
    """One of the endpoints that differ in nothing that views ask, what they serve, and for whom.

    A service has few such groups, and hashing its endpoints' values one by one took seconds.
    """
    groups: dict[tuple[int, int, int, int], tuple[Endpoint, Served, list[str]]] = {}
    for e in endpoints:
        group = (e.port, e.target, id(e.identity), id(e.interception))
        if group not in groups:
            groups[group] = (e, Served(name, e.port, e.target), [])
        groups[group][2].append(e.workload)
    yield from groups.values()


def reachable(endpoint: Endpoint, *, plaintext: bool) -> bool:
    """Without a sidecar there is no mutual TLS: only where the service allows plaintext."""
    if endpoint.interception is Interception.NONE:
        return plaintext
    return endpoint.identity is not None
