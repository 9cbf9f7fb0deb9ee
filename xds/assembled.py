"""Load assignments kept in parts: a change costs what changed, in a cluster of any size."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf.any_pb2 import Any

from meshfed.catalog.model import Endpoint, Interception
from meshfed.catalog.reach import Assignment
from meshfed.xds.endpoints import (
    Group,
    Place,
    field,
    fragment,
    group,
    included,
    load_assignment,
    locality,
    order,
    policy,
    reached_at,
)
from meshfed.xds.resource import Resource, Type, shared

Order = tuple[str, int, str]
Members = Mapping[Place, tuple[Order, bytes]]  # in this order


@dataclass(frozen=True, slots=True)
class Assembled:
    """A load assignment as bytes, and what they were put together from."""

    assignment: Assignment
    endpoints: tuple[Endpoint, ...]
    groups: Mapping[Group, Members]
    crowded: bool  # two endpoints are one place to callers: which of them counts is a question
    resource: Resource


def assembled(
    assignment: Assignment, endpoints: tuple[Endpoint, ...], old: Assembled | None = None
) -> Assembled:
    """Endpoints that are the same objects as those of `old` are not looked at again."""
    if old is not None and not old.crowded and old.assignment == assignment:
        gone, new = moved(old.endpoints, endpoints)
        groups, crowded = changed(old, gone, new)
        if not crowded:
            return finished(assignment, endpoints, groups, crowded=False, old=old)
    if assignment.only is not None:  # for gRPC, to which endpoints of one weight are a locality
        made = load_assignment(assignment, endpoints)
        same = old is not None and old.resource.version == made.version
        kept = old.resource if old and same else made
        return Assembled(assignment, endpoints, {}, crowded=True, resource=kept)
    groups, crowded = grouped(assignment, endpoints)
    return finished(assignment, endpoints, groups, crowded=crowded, old=old)


def finished(
    assignment: Assignment,
    endpoints: tuple[Endpoint, ...],
    groups: Mapping[Group, Members],
    *,
    crowded: bool,
    old: Assembled | None,
) -> Assembled:
    made = resource(assignment, groups)
    if old is not None and old.resource.version == made.version:
        made = old.resource
    return Assembled(assignment, endpoints, groups, crowded, made)


def moved(
    old: Sequence[Endpoint], new: Sequence[Endpoint]
) -> tuple[list[Endpoint], list[Endpoint]]:
    """What is in one and not in the other, by which object it is: values take ten times as long."""
    if len(old) == len(new):
        pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
        old, new = [a for a, _ in pairs], [b for _, b in pairs]
    else:  # one that comes or goes moves those behind it, which end alike
        first = alike(old, new)
        old, new = old[first:], new[first:]
        last = alike(old[::-1], new[::-1])
        old, new = old[: len(old) - last], new[: len(new) - last]
    before, after = set(map(id, old)), set(map(id, new))
    return [e for e in old if id(e) not in after], [e for e in new if id(e) not in before]


def alike(old: Sequence[Endpoint], new: Sequence[Endpoint]) -> int:
    """How many at their heads are the same; slices are compared at the speed of pointers."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def changed(
    old: Assembled, gone: Iterable[Endpoint], new: Iterable[Endpoint]
) -> tuple[Mapping[Group, Members], bool]:
    """The groups with these taken out and those put in, and whether two are one place now."""
    groups: dict[Group, dict[Place, tuple[Order, bytes]]] = {}
    left: set[tuple[Group, Place]] = set()
    grown: set[Group] = set()
    for endpoint in (e for e in gone if included(old.assignment, e)):
        left.add((group(old.assignment, endpoint), reached_at(endpoint)))
    for endpoint in (e for e in new if included(old.assignment, e)):
        where, place = group(old.assignment, endpoint), reached_at(endpoint)
        members = groups.setdefault(where, dict(old.groups.get(where, {})))
        said = order(endpoint), packed(endpoint)
        if (where, place) in left and members[place][0] == said[0]:  # it has only changed
            left.remove((where, place))
        elif any(place in groups.get(at, its) for at, its in old.groups.items()) or any(
            place in groups[at] for at in groups.keys() - old.groups.keys()
        ):
            return old.groups, True
        else:
            grown.add(where)
        members[place] = said
    for where, place in left:
        del groups.setdefault(where, dict(old.groups[where]))[place]
    for where in grown:
        groups[where] = dict(sorted(groups[where].items(), key=lambda each: each[1][0]))
    return {at: its for at, its in {**old.groups, **groups}.items() if its}, False


def grouped(
    assignment: Assignment, endpoints: Iterable[Endpoint]
) -> tuple[Mapping[Group, Members], bool]:
    """All of them by what is one locality to Envoy, and whether two of them are one place."""
    groups: dict[Group, dict[Place, tuple[Order, bytes]]] = {}
    taken: set[Place] = set()
    crowded = False
    for endpoint in sorted((e for e in endpoints if included(assignment, e)), key=order):
        place = reached_at(endpoint)
        if place in taken:  # two ports of one workload are one sidecar: Envoy drops the second
            crowded = True
            continue
        taken.add(place)
        members = groups.setdefault(group(assignment, endpoint), {})
        members[place] = order(endpoint), packed(endpoint)
    return groups, crowded


def packed(endpoint: Endpoint) -> bytes:
    host, port = reached_at(endpoint)
    bare = endpoint.interception is Interception.NONE
    return fragment(host, port, endpoint.weight, endpoint.health, bare=bare)


def resource(assignment: Assignment, groups: Mapping[Group, Members]) -> Resource:
    # A priority without endpoints would be one that fails.
    levels = {level: n for n, level in enumerate(sorted({level for level, *_ in groups}))}
    before = endpoint_pb2.ClusterLoadAssignment(cluster_name=assignment.name)
    after = endpoint_pb2.ClusterLoadAssignment(policy=policy(assignment.preference))
    parts = []
    for where in sorted(groups):
        within = [each for _, each in groups[where].values()]
        parts.append(field(2, locality(levels[where[0]], where, within)))
    value = b"".join((before.SerializeToString(), *parts, after.SerializeToString()))
    return shared(assignment.name, Any(type_url=Type.ENDPOINTS, value=value))
