"""Why a caller is told nothing of a service: which policies there are, and what they lack."""

from collections.abc import Iterator

from meshfed.catalog.access import Grant
from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Interception,
    Mesh,
    Port,
    ServiceName,
    TrafficTarget,
)
from meshfed.catalog.reach import Choice
from meshfed.catalog.resolved import Resolved, reachable
from meshfed.federation.explain.step import Step, failing, some


def why_denied(
    mesh: Mesh, resolved: Resolved, source: Identity, name: ServiceName, port: Port
) -> tuple[Step, ...]:
    """A step for each identity that answers there and does not let the source in."""
    split = resolved.splits.of.get(name)
    services = [backend.service for backend in split.backends] if split else [name]
    answering = {
        identity
        for service in services
        for identity in resolved.answering.get((service, port.number), ())
    }
    if not answering:
        return tuple(why_nobody(mesh, services, port))
    return tuple(
        _denied(mesh, resolved, source, identity, port)
        for identity in sorted(filter(None, answering))
    )


def why_nobody(mesh: Mesh, services: list[ServiceName], port: Port) -> Iterator[Step]:
    for service in services:
        there = mesh.endpoints_of(service, port.number)
        plaintext = service in mesh.services and mesh.services[service].plaintext
        out = [e for e in there if not reachable(e, plaintext=plaintext)]
        if out:
            yield failing("endpoint", service, unfit(out[0]), remedy_for(out[0]))
        else:
            why = f"no provider sees an endpoint of it on port {port.number}"
            yield failing("endpoint", service, why, f"meshfed why {service}")


def unfit(endpoint: Endpoint) -> str:
    """Why an endpoint cannot be called by anybody."""
    if endpoint.interception is Interception.NONE:
        return f"{endpoint.address} has no sidecar, and {endpoint.service} allows no plaintext"
    return f"{endpoint.address} has no identity: nothing can be granted on it"


def remedy_for(endpoint: Endpoint) -> str:
    if endpoint.interception is Interception.NONE:
        return "give it a sidecar, or write `plaintext: allow` for the service"
    return f"give its workload an identity in {endpoint.scope}"


def _denied(
    mesh: Mesh, resolved: Resolved, source: Identity, destination: Identity, port: Port
) -> Step:
    grants = resolved.access.grants.get(destination, ())
    ours = [grant for grant in grants if source in grant.sources]
    if ours:
        why = "; ".join(_short(grant, port) for grant in ours)
        return failing("policy", destination, why, _wider(port))
    if lost := _misplaced(mesh, resolved, source, destination):
        return failing("policy", destination, lost, "put it right, and `meshfed validate` it")
    others = some(sorted(str(grant.policy) for grant in grants))
    there = f"{others} let others in" if others else "there is none to it at all"
    why = f"no TrafficTarget lets {source} call {destination}: {there}"
    remedy = (
        f"write a TrafficTarget in namespace {destination.namespace} with destination"
        f" {destination.account} and {source.account} ({source.namespace}) among its sources"
    )
    return failing("policy", destination, why, remedy)


def _short(grant: Grant, port: Port) -> str:
    """What a grant to the right source lacks for this port."""
    named = f"{grant.policy} names {', '.join(map(str, grant.sources))}"
    if port.protocol.is_http and not grant.http:
        return f"{named}, but grants no HTTP: port {port.number} speaks {port.protocol}"
    if not port.protocol.is_http and not grant.tcp:
        return f"{named}, but grants HTTP alone: port {port.number} speaks {port.protocol}"
    ports = ", ".join(map(str, sorted(grant.ports or ())))
    return f"{named}, but on port {ports} alone, not on {port.number}"


def _wider(port: Port) -> str:
    kind = "HTTPRouteGroup" if port.protocol.is_http else "TCPRoute"
    return f"refer to {_article(kind)} that covers port {port.number} in its rules"


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOUH" else f"a {kind}"


def _misplaced(mesh: Mesh, resolved: Resolved, source: Identity, destination: Identity) -> str:
    """A TrafficTarget that would let the source in, were there nothing wrong with it."""
    meant = {
        str(policy.name)
        for policy in mesh.policies
        if isinstance(policy, TrafficTarget)
        and policy.destination == destination
        and source in policy.sources
    }
    return "; ".join(str(each) for each in resolved.access.unresolved if each.name in meant)


def why_unreachable(mesh: Mesh, network: str, choice: Choice) -> Iterator[Step]:
    """The caller may call it, and yet is sent no endpoint."""
    for share in choice.shares:
        at = share.target.assignment
        there = mesh.endpoints_of(at.service, at.port)
        elsewhere = sorted({e.network for e in there if e.network and e.network != network})
        weightless = [e for e in there if not e.weight]
        if weightless and len(weightless) == len(there):
            why, remedy = "all its endpoints have weight 0", "give one a weight"
        elif network and elsewhere:
            why = f"its endpoints are in network {', '.join(elsewhere)}, the caller in {network}"
            remedy = "give both the same `network`, or none"
        else:
            why, remedy = "none of its endpoints can be reached", f"meshfed why {at.service}"
        yield failing("endpoint", at.service, why, remedy)
