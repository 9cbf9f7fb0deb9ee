"""What a name that someone asks about is: an endpoint, a service, a workload or an identity."""

import time
from dataclasses import dataclass, replace
from ipaddress import ip_address

from meshfed.catalog.database import stamp
from meshfed.catalog.model import Endpoint, Interception, Mesh, ServiceName, Workload
from meshfed.federation.explain import envoy, probes, seen
from meshfed.federation.explain.callers import Unknown
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.left_out import left_out
from meshfed.federation.explain.seen import Seen
from meshfed.federation.explain.step import Step
from meshfed.federation.explain.why import (
    absent,
    endpoint_steps,
    observed,
    sent,
    service_steps,
    subjects,
    workload_steps,
)
from meshfed.federation.findings import nearest
from meshfed.xds.endpoints import reached_at

MOST_TRIED = 20  # endpoints of one thing


@dataclass(frozen=True, slots=True)
class Place:
    """An address, and a port where one was named: the application's, or the sidecar's."""

    address: str
    port: int | None = None


Thing = Place | ServiceName | tuple[Workload, ...] | None


def meant(facts: Facts, name: str) -> Thing:
    if place := parsed(name):
        return place
    if service := _service(facts, name):
        return service
    everyone = facts.mesh.everyone
    found = tuple(w for w in everyone if name in (w.name, w.id))
    return found or tuple(w for w in everyone if str(w.identity) == name) or None


def parsed(name: str) -> Place | None:
    """`ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`; None when it is no such thing."""
    host, colon, port = name.rpartition(":")
    bracketed = name.startswith("[")
    for address, number in ((name, ""), (host, port) if colon else ("", "")):
        try:
            literal = ip_address(address.strip("[]") if bracketed else address)
        except ValueError:
            continue
        if number and not number.isdecimal():
            return None
        return Place(str(literal), int(number) if number else None)
    return None


def _service(facts: Facts, name: str) -> ServiceName | None:
    try:
        service = ServiceName.parse(name)
    except ValueError:
        return None
    known = service in facts.mesh.services or service in facts.resolved.splits.of
    return service if known else None


def why(facts: Facts, url: str, name: str) -> tuple[Step, ...]:
    """The way of a thing through the mesh. Raises Unknown, Away."""
    thing = meant(facts, name)
    match thing:
        case Place():
            return _endpoint(facts, _tried(facts, seen.read(url, addresses=[thing.address])), thing)
        case ServiceName():
            read = _tried(facts, seen.read(url, service=str(thing)))
            return service_steps(facts, read, thing)
        case None:
            return _missing(facts, seen.read(url, service=name, workload=name), name)
        case workloads:
            steps: list[Step] = []
            for each in workloads:
                now = time.time()
                read = seen.read(url, addresses=each.addresses, workload=each.name)
                read = replace(_tried(facts, read, each.id), ended=_ended(each, now))
                steps += workload_steps(facts, read, each, stamp(now))
            return tuple(dict.fromkeys(steps))


def _tried(facts: Facts, read: Seen, workload: str = "") -> Seen:
    endpoints = [s.endpoint for s in subjects(facts, read, workload=workload)][:MOST_TRIED]
    return replace(read, answers=probes.answering(probes.places(endpoints)))


def _ended(workload: Workload, now: float) -> str:
    """The word of its own Envoy, if that can be asked from here."""
    without = workload.interception in (Interception.NONE, Interception.GRPC)
    if workload.identity is None or without:
        return ""
    try:
        return envoy.ended(workload, now)
    except envoy.Elsewhere:
        return ""


def _endpoint(facts: Facts, read: Seen, place: Place) -> tuple[Step, ...]:
    every = subjects(facts, read)
    if not every:
        return _missing(facts, read, place.address)
    mine = tuple(s for s in every if place.port in (None, *_ports(s.endpoint)))
    if not mine:
        known = " and ".join(map(str, sorted({s.endpoint.target for s in every})))
        asked = f"[{place.address}]" if ":" in place.address else place.address
        there = f"at {place.address} there is port {known}"
        raise Unknown(f"nothing here is called {asked}:{place.port}: {there}")
    scopes = [(s.listed.provider, s.listed.scope) for s in mine]
    steps = [*observed(facts, read, scopes)]
    for subject in mine:
        steps += endpoint_steps(facts, read, subject)
        steps += sent(facts, (subject,))
    return tuple(dict.fromkeys(steps))


def _ports(endpoint: Endpoint) -> tuple[int, int]:
    """The application's, and the one that callers dial: a sidecar's is everybody's there."""
    return endpoint.target, reached_at(endpoint)[1]


def _missing(facts: Facts, read: Seen, name: str) -> tuple[Step, ...]:
    """What is not there may have been, or may stand in a list with a mistake in it."""
    if not (read.gone or any(left_out(facts, name, name))):
        raise Unknown(f"nothing here is called {name}{_perhaps(facts.mesh, name)}")
    return (*observed(facts, read, []), *absent(facts, read, name))


def _perhaps(mesh: Mesh, name: str) -> str:
    known = {str(service) for service in mesh.services} | {w.name for w in mesh.workloads.values()}
    near = nearest(name, known)
    if near:
        return f": did you mean {near}?"
    return ": name an endpoint's address, a service, a workload or an identity"
