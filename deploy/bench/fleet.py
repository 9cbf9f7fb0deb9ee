"""Many endpoints as values: services of a hundred workloads each, in a scope of its own each."""

from collections.abc import Iterator
from functools import lru_cache

from msgspec import structs

from meshfed.catalog.model import (
    Endpoint,
    Evidence,
    Health,
    Identity,
    Interception,
    Locality,
    Observation,
    Platform,
    Port,
    Service,
    ServiceName,
    Workload,
)

PROVIDER = "fleet"
EACH = 100  # endpoints of a service, each on a workload of its own
PORT = 80

located, identified = lru_cache(16)(Locality), lru_cache(65_536)(Identity)  # as of a cluster


def fleet(endpoints: int) -> list[Observation]:
    """A scope for each service, as a cluster is observed; all values anew at each call."""
    return [scope(n) for n in range(endpoints // EACH)]


def scope(number: int, weight: int = 1) -> Observation:
    """One service; `weight` is that of its first endpoint."""
    name, who = ServiceName(f"app-{number}", "bench"), identified(f"app-{number}", "bench")
    where = f"{PROVIDER}/{name}"
    first, *others = _members(name, who, where, range(number * EACH, (number + 1) * EACH))
    workloads, endpoints = zip(first, *others, strict=True)
    return Observation(
        where,
        frozenset({Service(name, (Port(PORT),))}),
        frozenset(workloads),
        frozenset({structs.replace(endpoints[0], weight=weight), *endpoints[1:]}),
        evidence=Evidence.STATED,
    )


def whole(endpoints: int) -> Observation:
    """The same in one scope, as a list is observed."""
    where, found = f"{PROVIDER}/list", fleet(endpoints)
    workloads = {w.name: structs.replace(w, scope=where) for each in found for w in each.workloads}
    ids = {old.id: workloads[old.name].id for each in found for old in each.workloads}
    return Observation(
        where,
        frozenset(service for each in found for service in each.services),
        frozenset(workloads.values()),
        frozenset(
            structs.replace(e, scope=where, workload=ids[e.workload])
            for each in found
            for e in each.endpoints
        ),
        evidence=Evidence.STATED,
    )


def _members(
    name: ServiceName, who: Identity, where: str, numbers: range
) -> Iterator[tuple[Workload, Endpoint]]:
    for n in numbers:
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        place = located("eu-1", f"eu-1{'abc'[n % 3]}")
        workload = Workload(
            f"{name.name}-{n}",
            PROVIDER,
            where,
            Platform.KUBERNETES,
            who,
            (address,),
            Interception.TRANSPARENT,
            locality=place,
        )
        yield (
            workload,
            Endpoint(
                name,
                PORT,
                address,
                8080,
                workload.id,
                PROVIDER,
                where,
                Platform.KUBERNETES,
                who,
                Interception.TRANSPARENT,
                place,
                1,
                Health.HEALTHY,
            ),
        )
