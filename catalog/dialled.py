"""What callers dial, where two services want the same: an address and port, or a loopback port."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from meshfed.catalog.access import Unresolved
from meshfed.catalog.model import Endpoint, Mesh, Port, Service, ServiceName
from meshfed.catalog.reach import Outbound

Heard = tuple[tuple[Outbound, ...], list[Unresolved]]
Denied = tuple[tuple[int, tuple[str, ...]], ...]  # port: addresses
Names = tuple[tuple[ServiceName, tuple[str, ...]], ...]  # service: what its name stands for


def distinct_locals(outbounds: Iterable[Outbound]) -> Heard:
    """A loopback port leads to one service: the first by name. The others have CONNECT."""
    owner: dict[int, ServiceName] = {}
    unresolved: list[Unresolved] = []
    kept: list[Outbound] = []
    for outbound in outbounds:
        local = None if outbound.port.protocol.is_http else outbound.port.local
        if local is not None and owner.setdefault(local, outbound.service) != outbound.service:
            why = f"local port {local} leads to {owner[local]} already: choose another"
            unresolved.append(Unresolved("Service", str(outbound.service), why))
            kept.append(replace(outbound, port=replace(outbound.port, local=None)))
        else:
            kept.append(outbound)
    return tuple(kept), unresolved


def distinct_addresses(outbounds: Iterable[Outbound]) -> Heard:
    """HTTP services may share an address and port; a TCP service needs its own.

    The first by name has it: two equal matches make Envoy reject the whole listener. The others are
    reached by what is left to them: the virtual IP, of two that are on one machine.
    """
    owner: dict[tuple[str, int], Outbound] = {}
    unresolved: list[Unresolved] = []
    kept: list[Outbound] = []
    for outbound in outbounds:
        places = [(address, outbound.port.number) for address in outbound.addresses]
        taken = [owner[p] for p in places if p in owner and not both_http(owner[p], outbound)]
        free = [p for p in places if p not in owner or both_http(owner[p], outbound)]
        if free:
            addresses = tuple(address for address, _ in free)
            kept.append(replace(outbound, addresses=addresses) if taken else outbound)
            owner.update((place, outbound) for place in free if place not in owner)
            continue
        why = "it has neither a virtual IP nor endpoints"
        if taken:
            port = outbound.port.number
            why = f"port {port} of its address leads to {taken[0].service} already"
        why += ": transparent callers cannot reach it; give it a virtual IP of its own"
        unresolved.append(Unresolved("Service", str(outbound.service), why))
    return tuple(kept), unresolved


def both_http(one: Outbound, other: Outbound) -> bool:
    return one.port.protocol.is_http and other.port.protocol.is_http


def denied(
    outbounds: Iterable[Outbound],
    services: Iterable[Service],
    endpoints: Mapping[ServiceName, tuple[Endpoint, ...]],
) -> Denied:
    """Mesh addresses that would else be passed through as if they were the outside world.

    A sidecar refuses what comes in plaintext; where there is none, nothing but this does.
    """
    given = {(o.port.number, address) for o in outbounds for address in o.addresses}
    known = {
        place
        for service in services
        for port in service.ports
        for place in dialled(service, port, endpoints.get(service.name, ()))
    }
    ports: defaultdict[int, list[str]] = defaultdict(list)
    for number, address in sorted(known - given):
        ports[number].append(address)
    return tuple((number, tuple(addresses)) for number, addresses in ports.items())


def dialled(
    service: Service, port: Port, endpoints: Iterable[Endpoint]
) -> Iterable[tuple[int, str]]:
    for address in found_at(service):
        yield port.number, address
    for endpoint in endpoints:
        if endpoint.port == port.number:
            yield port.number, endpoint.address
            yield endpoint.target, endpoint.address


def found_at(service: Service) -> tuple[str, ...]:
    """The addresses that are its own, whoever answers: a platform's, else the mesh's."""
    return (service.vip,) if service.vip else service.virtual


def named(mesh: Mesh) -> Names:
    """What the name of each service stands for: its own addresses, or else its members'.

    It does not matter who may call it: a name that is not found looks like a mistake, and is
    remembered after access was given.
    """
    found = {
        name: found_at(service) or members(mesh.endpoints.get(name, ()))
        for name, service in mesh.services.items()
    }
    return tuple((name, found[name]) for name in sorted(found) if found[name])


def members(endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    return tuple(sorted({endpoint.address for endpoint in endpoints}))
