"""What is observed of a host list, once its DNS names are addresses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from meshfed.catalog.model import (
    Endpoint,
    Evidence,
    Health,
    Observation,
    Platform,
    Rejected,
    Workload,
)
from meshfed.providers.hostlist import HostEntry, is_literal
from meshfed.providers.listing import Listing, Placed
from meshfed.providers.probe import reason

if TYPE_CHECKING:
    from meshfed.providers.probing import Believed, Target


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a DNS name; both may be there, when an older answer was kept."""

    addresses: tuple[str, ...] = ()
    fault: str = ""
    failing: bool = False  # DNS did not answer; not the same as the answer that there is none


def observation(
    listed: Listing, provider: str, scope: str, answers: Mapping[str, Answer] | None = None
) -> Observation:
    """What is seen of a host list. Without answers, names have no endpoints."""
    if listed.fault:
        return Observation(
            scope, evidence=Evidence.FAULT, fault=listed.fault, rejected=listed.rejected
        )
    workloads: dict[str, Workload] = {}
    endpoints: dict[tuple[str, int, str, int], tuple[Endpoint, str]] = {}
    rejected = list(listed.rejected)
    for placed in listed.hosts:
        addresses = _addresses(placed.host, answers)
        if not addresses and answers is not None:
            rejected.append(_unresolved(placed, answers[placed.host.address]))
        here = _workload(placed.host, addresses, provider, scope)
        workloads[here.name] = here
        for endpoint in _endpoints(placed, here):
            other, where = endpoints.setdefault(endpoint.key, (endpoint, placed.where))
            if other is not endpoint:
                rejected.append(_taken(placed, endpoint, where))
                break
    failing = [f"{name}: {a.fault}" for name, a in (answers or {}).items() if a.failing]
    return Observation(
        scope,
        listed.services,
        frozenset(workloads.values()),
        frozenset(endpoint for endpoint, _ in endpoints.values()),
        # What is missing from a list with faulty entries may be missing by accident.
        Evidence.LISTED if rejected or listed.short else Evidence.STATED,
        fault=listed.short or min(failing, default=""),
        rejected=tuple(rejected),
    )


def probed(listed: Listing, answers: Mapping[str, Answer]) -> "frozenset[Target]":
    """Where hosts are asked whether they are well."""
    return frozenset(
        (address, probe)
        for placed in listed.hosts
        if placed.host.probe
        for address in _addresses(placed.host, answers)
        for probe in placed.host.probe
    )


def judged(seen: Observation, believed: "Believed") -> Observation:
    """With what probes found."""
    failing = believed.failing.items()
    why = {(at, probe.port): reason(probe, said) for (at, probe), said in failing}
    if not why and not believed.doubt:
        return seen
    endpoints = frozenset(
        structs.replace(each, health=Health.UNHEALTHY, health_reason=said)
        if (said := why.get((each.address, each.target)))
        else each
        for each in seen.endpoints
    )
    return replace(seen, endpoints=endpoints, fault=seen.fault or believed.doubt)


def _addresses(host: HostEntry, answers: Mapping[str, Answer] | None) -> tuple[str, ...]:
    if is_literal(host.address):
        return (host.address,)
    return answers[host.address].addresses if answers else ()


def _unresolved(placed: Placed, answer: Answer) -> Rejected:
    name = placed.host.address
    why = f"{name}: {answer.fault}; it is asked for again by itself: correct the name, or DNS"
    return replace(placed.unresolved, why=why)


def _taken(placed: Placed, endpoint: Endpoint, where: str) -> Rejected:
    why = (
        f"{endpoint.address} port {endpoint.target} answers for {endpoint.service} at {where} "
        "already: take one of the two away"
    )
    return replace(placed.unresolved, why=why)


def everywhere(addresses: tuple[str, ...]) -> str:
    """Where a sidecar listens that is called at these; `::` is both families."""
    return "::" if any(":" in address for address in addresses) else "0.0.0.0"


def _workload(host: HostEntry, addresses: tuple[str, ...], provider: str, scope: str) -> Workload:
    return Workload(
        host.name,
        provider,
        scope,
        Platform(host.platform),
        host.identity,
        addresses,
        host.interception,
        host.bind or everywhere(addresses),
        host.application,
        host.network,
        host.locality,
        tuple(sorted(host.labels.items())),
        cluster=host.cluster,
    )


def _endpoints(placed: Placed, here: Workload) -> Iterable[Endpoint]:
    for service, port, target in placed.serves:
        for address in here.addresses:
            yield Endpoint(
                service,
                port,
                address,
                target,
                here.id,
                here.provider,
                here.scope,
                here.platform,
                here.identity,
                here.interception,
                here.locality,
                placed.host.weight,
                cluster=here.cluster,
                network=here.network,
            )
