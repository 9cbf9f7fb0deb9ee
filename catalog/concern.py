"""Whose views a change of the mesh may concern: nobody else's are worked out again."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from meshfed.catalog.access import Access, Grant
from meshfed.catalog.model import Identity, Interception, Mesh
from meshfed.catalog.resolved import Part, Resolved
from meshfed.catalog.view import ProxyClass

Place = tuple[int, int, str]


def concern(
    before: Mesh, known: Resolved, after: Mesh, resolved: Resolved
) -> Callable[[ProxyClass], bool]:
    """Says of a class of proxies whether its view may be another now."""
    if general(before, known, after, resolved):
        return lambda kind: True
    identities = regranted(known.access, resolved.access)
    dialled = readdressed(known, resolved)

    def concerned(kind: ProxyClass) -> bool:
        # Whoever is intercepted transparently has the addresses of others in its listeners.
        listens = dialled and kind.interception is Interception.TRANSPARENT
        return listens or kind.identity in identities

    return concerned


def general(before: Mesh, known: Resolved, after: Mesh, resolved: Resolved) -> bool:
    """Whether something moved that is in everybody's view."""
    return (
        before.trust_domain != after.trust_domain
        or before.permissive != after.permissive
        or before.preferences != after.preferences
        or (before.services is not after.services and before.services != after.services)
        or known.answering != resolved.answering
        or known.splits.of != resolved.splits.of
    )


def regranted(known: Access, resolved: Access) -> frozenset[Identity]:
    """Who may call otherwise than before, and who may be called otherwise."""
    found: set[Identity] = set()
    for destination in known.grants.keys() | resolved.grants.keys():
        old, new = known.grants.get(destination, ()), resolved.grants.get(destination, ())
        if old is new or old == new:
            continue
        found.add(destination)
        was, now = by_source(old), by_source(new)
        found |= {who for who in was.keys() | now.keys() if was.get(who) != now.get(who)}
    return frozenset(found)


def by_source(grants: Iterable[Grant]) -> dict[Identity, list[object]]:
    """What each may do, whoever else may."""
    found: defaultdict[Identity, list[object]] = defaultdict(list)
    for grant in grants:
        for source in grant.sources:
            found[source].append((grant.policy, grant.http, grant.tcp, grant.ports))
    return dict(found)


def readdressed(known: Resolved, resolved: Resolved) -> bool:
    """Whether endpoints have other addresses or ports than before."""
    for name in known.parts.keys() | resolved.parts.keys():
        old, new = known.parts.get(name), resolved.parts.get(name)
        if old is not new and places(old) != places(new):
            return True
    return False


def places(part: Part | None) -> frozenset[Place]:
    return frozenset((e.port, e.target, e.address) for e in part.endpoints) if part else frozenset()
