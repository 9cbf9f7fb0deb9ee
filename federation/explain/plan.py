"""What policy files would change, before they are used: access, splits, and whom it concerns."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from meshfed.catalog.access import Grant
from meshfed.catalog.model import Mesh, ObjectName, Policy, Specified, Workload
from meshfed.catalog.reach import Assignment
from meshfed.catalog.resolved import Resolved, resolve
from meshfed.catalog.rows import KINDS
from meshfed.catalog.splits import Split
from meshfed.catalog.view import Anonymous, ProxyClass, View, proxy_class, view
from meshfed.federation.explain.path import condition
from meshfed.xds.endpoints import load_assignment
from meshfed.xds.resource import Resources, Type
from meshfed.xds.snapshot import snapshot

Key = tuple[str, ObjectName]  # kind and name


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that would become different."""

    what: str  # policy, access, split, proxies
    object: str
    change: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    effects: tuple[Effect, ...]
    proxies: int  # that would be told something new
    of: int


def planned(
    mesh: Mesh, specified: Specified, files: Mapping[tuple[str, str], str], gone: frozenset[Key]
) -> Plan:
    """The blast radius of these policies, put in the place of those of the same names.

    `gone`: what the files no longer say. `files`: where the policies in force stand.
    """
    said = {_key(policy): (policy, where) for policy, where in specified.policies}
    after = replace(mesh, policies=_merged(mesh.policies, said, gone))
    before_, after_ = resolve(mesh), resolve(after)
    radius = list(_radius(mesh, after, before_, after_))
    effects = (
        *_policies(mesh, said, gone, files),
        *_without_effect(before_, after_),
        *_access(mesh, after, before_, after_),
        *_splits(before_, after_),
        *(effect for effect, _ in radius),
    )
    return Plan(effects, sum(count for _, count in radius), sum(1 for _ in _classes(mesh, before_)))


def _key(policy: Policy) -> Key:
    return KINDS[type(policy)], policy.name


def _merged(
    standing: Iterable[Policy], said: Mapping[Key, tuple[Policy, str]], gone: frozenset[Key]
) -> tuple[Policy, ...]:
    """By kind and name, as the catalog gives them."""
    kept = {_key(policy): policy for policy in standing if _key(policy) not in gone}
    kept |= {key: policy for key, (policy, _) in said.items()}
    return tuple(kept[key] for key in sorted(kept, key=lambda key: (key[0], key[1])))


def removed(
    mesh: Mesh,
    said: Specified,
    files: Mapping[tuple[str, str], str],
    given: frozenset[str],
    *,
    whole: bool,
) -> frozenset[Key]:
    """What stands in one of the given files now, and would not stand there any more."""
    there = {_key(policy) for policy, _ in said.policies}
    return frozenset(
        key
        for key in map(_key, mesh.policies)
        if key not in there and (whole or files.get((key[0], str(key[1]))) in given)
    )


# Policies


def _policies(
    mesh: Mesh,
    said: Mapping[Key, tuple[Policy, str]],
    gone: frozenset[Key],
    files: Mapping[tuple[str, str], str],
) -> Iterator[Effect]:
    standing = {_key(policy): policy for policy in mesh.policies}
    for key in sorted(said):
        policy, where = said[key]
        if key not in standing:
            yield Effect("policy", f"{key[0]} {key[1]}", "added", where)
        elif standing[key] != policy:
            yield Effect("policy", f"{key[0]} {key[1]}", "changed", where)
    for key in sorted(gone):
        yield Effect(
            "policy", f"{key[0]} {key[1]}", "removed", files.get((key[0], str(key[1])), "")
        )


def _without_effect(before: Resolved, after: Resolved) -> Iterator[Effect]:
    for each in sorted(set(after.unresolved) - set(before.unresolved)):
        yield Effect("without effect", f"{each.kind} {each.name}", each.why)


# Access

Way = tuple[str, str]  # source, service:port


def _access(
    before: Mesh, after: Mesh, resolved: Resolved, resolved_after: Resolved
) -> Iterator[Effect]:
    had, has = _ways(before, resolved), _ways(after, resolved_after)
    for verb, ways in (("lost", _less(had, has)), ("gained", _less(has, had))):
        for source, service in sorted(ways):
            requests = ways[source, service]
            by = sorted({policy for policies in requests.values() for policy in policies})
            change = f"{verb}: {', '.join(sorted(requests))}"
            yield Effect("access", f"{source} → {service}", change, ", ".join(by))


def _less(these: "Ways", those: "Ways") -> "Ways":
    """What the first allow and the others do not."""
    left = {
        way: {what: by for what, by in requests.items() if what not in those.get(way, {})}
        for way, requests in these.items()
    }
    return {way: requests for way, requests in left.items() if requests}


Ways = Mapping[Way, Mapping[str, set[str]]]  # the requests, and by which policies


def _ways(mesh: Mesh, resolved: Resolved) -> Ways:
    """Who may make which requests of what, and by which policies."""
    found: dict[Way, dict[str, set[str]]] = {}
    for destination, grants in resolved.access.grants.items():
        for name, number in resolved.places.get(destination, ()):
            service = mesh.services.get(name)
            port = service.port(number) if service else None
            if port is None:
                continue
            for grant in (grant for grant in grants if grant.covers(port)):
                for source in grant.sources:
                    for requests in _requests(grant, http=port.protocol.is_http):
                        way = found.setdefault((str(source), f"{name}:{number}"), {})
                        way.setdefault(requests, set()).add(str(grant.policy))
    return found


def _requests(grant: Grant, *, http: bool) -> tuple[str, ...]:
    return tuple(map(condition, grant.http)) if http else ("connections",)


# Splits


def _splits(before: Resolved, after: Resolved) -> Iterator[Effect]:
    had, has = before.splits.of, after.splits.of
    for root in sorted(had.keys() | has.keys()):
        was, becomes = _parts(had.get(root)), _parts(has.get(root))
        if was != becomes:
            by = has[root].policy if root in has else had[root].policy
            change = f"{was or 'not split'} → {becomes or 'not split'}"
            yield Effect("split", str(root), change, str(by))


def _parts(split: Split | None) -> str:
    if split is None:
        return ""
    parts = ", ".join(f"{backend.weight} {backend.service}" for backend in split.backends)
    return f"{parts}, where one of {len(split.matches)} matches holds" if split.matches else parts


# What proxies are told


def _classes(mesh: Mesh, resolved: Resolved) -> Iterator[tuple[ProxyClass, Workload]]:
    for workload in mesh.everyone:
        try:
            yield proxy_class(mesh, workload, resolved), workload
        except Anonymous:
            continue


def _radius(
    before: Mesh, after: Mesh, resolved: Resolved, resolved_after: Resolved
) -> Iterator[tuple[Effect, int]]:
    """For each class of proxies that would be told something new: what, by type."""
    classes: dict[ProxyClass, list[Workload]] = {}
    for kind, workload in _classes(before, resolved):
        classes.setdefault(kind, []).append(workload)
    told = Told(before), Told(after)
    for kind in sorted(classes, key=lambda kind: (str(kind.identity), kind.serves)):
        seen = view(before, kind, resolved), view(after, kind, resolved_after)
        if seen[0] == seen[1]:
            continue  # most classes: what is made of equal views is equal
        old, new = (each.to(shown) for each, shown in zip(told, seen, strict=True))
        moved = {type_.short: _moved(old[type_], new[type_]) for type_ in Type}
        change = ", ".join(f"{name} {words}" for name, words in moved.items() if words)
        if change:
            there = sorted(workload.name for workload in classes[kind])
            names = ", ".join(there[:3]) + (", …" if len(there) > 3 else "")
            yield Effect("proxies", f"{kind.identity} ({len(there)}: {names})", change), len(there)


def _moved(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """`+1 -2 ~3`: resources added, removed and changed."""
    counted = Counter(
        "+" if name not in old else "-" if name not in new else "~"
        for name in old.keys() | new.keys()
        if old.get(name) != new.get(name)
    )
    return " ".join(f"{sign}{counted[sign]}" for sign in "+-~" if counted[sign])


@dataclass(frozen=True)
class Told:
    """What a mesh tells: names and versions of resources, by type."""

    mesh: Mesh
    assignments: dict[str, str] = field(default_factory=dict)  # many classes share each

    def to(self, seen: View) -> dict[Type, Mapping[str, str]]:
        shape = snapshot(seen)
        return {
            Type.CLUSTER: _versions(shape.clusters),
            Type.ENDPOINTS: {
                name: self._endpoints(name, at) for name, at in shape.assignments.items()
            },
            Type.SECRET: {name: ",".join(sans) for name, sans in shape.validations.items()},
            Type.LISTENER: _versions(shape.listeners),
            Type.ROUTES: _versions(shape.routes),
        }

    def _endpoints(self, name: str, at: Assignment) -> str:
        if name not in self.assignments:
            there = self.mesh.endpoints_of(at.service, at.port)
            self.assignments[name] = load_assignment(at, there).version
        return self.assignments[name]


def _versions(resources: Resources) -> Mapping[str, str]:
    return {name: resource.version for name, resource in resources.items()}
