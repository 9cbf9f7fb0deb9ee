"""What is different between what was known and what is now believed, and who is right."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec import Struct

from meshfed.catalog.model import Endpoint, Health, Port, Service, ServiceName
from meshfed.catalog.preferences import NO_PREFERENCES, Preference, Preferences

K = TypeVar("K")
V = TypeVar("V")

EndpointKey = tuple[str, int, str, int]  # service, port, address, target
Place = tuple[str, int, str]  # where one provider's word holds: an EndpointKey without the target


class Difference(Struct, Generic[K, V], frozen=True):
    joined: tuple[tuple[K, V], ...]
    altered: tuple[tuple[K, V, V], ...]  # key, before, after
    left: tuple[tuple[K, V], ...]

    def __bool__(self) -> bool:
        return bool(self.joined or self.altered or self.left)

    @property
    def keys(self) -> list[K]:
        """Of all that is different."""
        return [
            *(k for k, _ in self.joined),
            *(k for k, *_ in self.altered),
            *(k for k, _ in self.left),
        ]


def difference(before: Mapping[K, V], after: Mapping[K, V]) -> Difference[K, V]:
    joined, altered = [], []
    for key, value in after.items():
        if key not in before:
            joined.append((key, value))
        elif before[key] != value:
            altered.append((key, before[key], value))
    left = [(key, value) for key, value in before.items() if key not in after]
    return Difference(tuple(joined), tuple(altered), tuple(left))


def apart(
    before: frozenset[V],
    after: frozenset[V],
    place: Callable[[V], Hashable],
    also: Iterable[Hashable] = (),
) -> tuple[list[V], list[V]]:
    """What one of two sets alone has, and what of both is in its places or those named.

    A place is cheap to tell, and a part of the key: of 100,000 values of which one is different,
    the others are not asked for theirs.
    """
    places = {*also, *map(place, () if before is after else before ^ after)}
    if not places:
        return [], []
    return [v for v in before if place(v) in places], [v for v in after if place(v) in places]


def by_key(values: Iterable[V], key: Callable[[V], K]) -> dict[K, V]:
    """One value per key; of several, the same one whatever order they come in."""
    kept: dict[K, V] = {}
    for value in values:
        at = key(value)
        if at not in kept or repr(value) < repr(kept[at]):
            kept[at] = value
    return kept


def placed(key: EndpointKey) -> str:
    """An endpoint as people read it."""
    service, port, address, target = key
    literal = f"[{address}]" if ":" in address else address
    return f"{service}:{port} at {literal}:{target}"


class Claim(Struct, frozen=True):
    """An endpoint as one scope of one provider has it."""

    endpoint: Endpoint
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How a claim fares beside others of the same endpoint."""

    outranked: bool = False
    conflict: str = ""


def standings(
    claims: Sequence[Endpoint], preferences: Preferences = NO_PREFERENCES
) -> tuple[Standing, ...]:
    """Of the claims to one place its owner's stand; else those of the first provider by name.

    One provider may well have several endpoints there; of two that say so of one endpoint, the
    first scope by name has it.
    """
    if len(claims) == 1:
        return (Standing(),)
    preference = preferences.of(claims[0].service)
    ranked = sorted(claims, key=lambda claim: _rank(claim, preference))
    return tuple(_standing(claim, ranked) for claim in claims)


def _standing(claim: Endpoint, ranked: Sequence[Endpoint]) -> Standing:
    rivals = [other for other in ranked if other is claim or _rival(claim, other)]
    told = "; ".join(_also(claim, other) for other in rivals if other is not claim)
    owned = claim.provider == ranked[0].provider and claim is rivals[0]
    return Standing(outranked=not owned, conflict=told)


def _rival(claim: Endpoint, other: Endpoint) -> bool:
    return claim.provider != other.provider or claim.target == other.target


def disputed(old: Standing, new: Standing) -> str:
    """What became of a claim that others dispute, in the words of `history`."""
    if not new.conflict:
        return "conflict over"
    if old.outranked == new.outranked:
        return "conflict"
    return "outranked" if new.outranked else "owned"


def _also(claim: Endpoint, other: Endpoint) -> str:
    name = other.provider if other.provider != claim.provider else other.scope
    target = f", at port {other.target}" if other.target != claim.target else ""
    identity = f", as {other.identity or 'nobody'}" if other.identity != claim.identity else ""
    return f"{name} claims it too{target}{identity}"


def _rank(claim: Endpoint, preference: Preference) -> tuple[int, str, str, int]:
    owner = preference.claim(claim.provider, claim.platform)
    return owner, claim.provider, claim.scope, claim.target


# What became different, in the words of `history`; the first that applies.
ALTERED: tuple[tuple[str, Callable[[Claim, Claim], bool]], ...] = (
    ("doubted", lambda old, new: new.stale and not old.stale),
    ("seen again", lambda old, new: old.stale and not new.stale),
    ("health lost", lambda old, new: _well(old) and not _well(new)),
    ("health back", lambda old, new: _well(new) and not _well(old)),
    ("identity changed", lambda old, new: old.endpoint.identity != new.endpoint.identity),
    ("weight changed", lambda old, new: old.endpoint.weight != new.endpoint.weight),
)


def change(old: Claim, new: Claim) -> str:
    return next((words for words, applies in ALTERED if applies(old, new)), "changed")


def _well(claim: Claim) -> bool:
    return claim.endpoint.health in (Health.HEALTHY, Health.UNKNOWN)


def implied(port: Port) -> bool:
    """Whether nobody declared it: the endpoint of an undeclared service speaks HTTP."""
    return port == Port(port.number, f"http-{port.number}")


def union(name: ServiceName, statements: Iterable[tuple[str, str, Service]]) -> Service | None:
    """The mesh's service, from (provider, scope, what it says); the first wins a difference.

    What someone declared goes before what is only implied by an endpoint. One is headless where
    somebody says so and nobody has an address for it.
    """
    said = [service for _, _, service in sorted(statements, key=lambda s: s[:2])]
    if not said:
        return None
    ports: dict[int, Port] = {}
    for port in sorted((port for service in said for port in service.ports), key=implied):
        ports.setdefault(port.number, port)
    vip = next((service.vip for service in said if service.vip), "")
    return Service(
        name=name,
        ports=tuple(ports[number] for number in sorted(ports)),
        vip=vip,
        plaintext=any(service.plaintext for service in said),
        headless=not vip and any(service.headless for service in said),
    )
