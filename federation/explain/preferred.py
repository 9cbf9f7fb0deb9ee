"""What the federation's rules come to for one caller: where its calls go now, and what is next."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any

from meshfed.catalog.model import Mesh
from meshfed.catalog.reach import NOWHERE, Assignment, Target
from meshfed.catalog.view import ProxyClass
from meshfed.federation.explain.judge import USED, told_endpoints
from meshfed.federation.explain.step import Step, note, ok
from meshfed.xds.endpoints import load_assignment

ENVOYS = 140  # its overprovisioning factor where none is told


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints that are called alike."""

    priority: int
    name: str
    weight: int
    healthy: int
    total: int


def preferred(mesh: Mesh, target: Target) -> Iterator[Step]:
    """One line, where there is a rule."""
    assignment = target.assignment
    rule = assignment.preference
    if not (rule.prefer or rule.weights or rule.minimum_healthy):
        return
    known = mesh.endpoints_of(assignment.service, assignment.port)
    packed = Any.FromString(load_assignment(assignment, known).any)
    told = ClusterLoadAssignment.FromString(packed.value)
    found = groups(told, dict(_names(mesh, target)))
    factor = told.policy.overprovisioning_factor.value or ENVOYS
    parts = [
        f"{share:.3g} % to {group.name} ({group.healthy} of {group.total} healthy)"
        for group, share in zip(found, shares(found, factor), strict=True)
    ]
    if rule.minimum_healthy:
        parts.append(f"the next from below {rule.minimum_healthy} % healthy on")
    yield (ok if parts else note)("preferred", assignment.service, ", ".join(parts) or "nobody")


def groups(told: ClusterLoadAssignment, names: dict[int, str]) -> list[Group]:
    found: dict[tuple[int, str, int], list[bool]] = {}
    for locality in told.endpoints:
        name, weight = names.get(locality.priority, ""), locality.load_balancing_weight.value
        weighed = locality.locality.sub_zone if weight else ""
        label = ", ".join(dict.fromkeys(filter(None, (name, weighed)))) or "all"
        key = (locality.priority, label, weight)
        used = [member.health_status in USED for member in locality.lb_endpoints]
        found.setdefault(key, []).extend(used)
    return [Group(*key, sum(used), len(used)) for key, used in found.items()]


def _names(mesh: Mesh, target: Target) -> Iterator[tuple[int, str]]:
    """What is preferred, by the priority that it became for this caller."""
    for endpoint, _, priority in told_endpoints(mesh, target):
        yield priority, term(target.assignment, target.assignment.level(endpoint))


def term(assignment: Assignment, level: int) -> str:
    prefer = assignment.preference.prefer
    return "" if not prefer else prefer[level] if level < len(prefer) else "the rest"


def shares(found: list[Group], factor: int) -> list[float]:
    """Percent of the calls that each gets: first by priority and its health, then by weight."""
    levels = sorted({group.priority for group in found})
    able = {level: _able([g for g in found if g.priority == level], factor) for level in levels}
    total = min(1.0, sum(able.values()))
    load: dict[int, float] = {}
    for level in levels:
        left = 1.0 - sum(load.values())
        load[level] = min(left, able[level] / total) if total else 0.0
    pulls = [(group.weight or group.total) * _able([group], factor) for group in found]
    sums = {
        level: sum(p for g, p in zip(found, pulls, strict=True) if g.priority == level)
        for level in levels
    }
    return [
        100 * load[group.priority] * pull / sums[group.priority] if pull else 0.0
        for group, pull in zip(found, pulls, strict=True)
    ]


def _able(some: list[Group], factor: int) -> float:
    """How much of what falls to them these can take, from 0 to 1."""
    total = sum(group.total for group in some)
    return min(1.0, factor / 100 * sum(group.healthy for group in some) / total)


def ranked(about: str, told: Iterable[tuple[ProxyClass, frozenset[int]]]) -> Iterator[Step]:
    """At which priority each caller is told of something, in one line."""
    found: dict[int, list[str]] = {}
    for kind, priorities in told:
        where = "" if kind.near == NOWHERE else f" in {kind.near}"
        found.setdefault(min(priorities), []).append(f"{kind.identity}{where}")
    parts = [f"{n} for {', '.join(sorted(set(who)))}" for n, who in sorted(found.items())]
    yield ok("preferred", about, f"at priority {'; '.join(parts)}")
