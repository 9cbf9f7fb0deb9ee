"""What callers dial, where two services want the same: an address and port, or a loopback port."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from meshfed.catalog.access import Unresolved
from meshfed.catalog.model import Endpoint, Port, Service, ServiceName
from meshfed.catalog.reach import Outbound

Heard = tuple[tuple[Outbound, ...], list[Unresolved]]
Denied = tuple[tuple[int, tuple[str, ...]], ...]  # port: addresses


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

    The first by name has it: two equal matches make Envoy reject the whole listener.
    """
    owner: dict[tuple[str, int], Outbound] = {}
    unresolved: list[Unresolved] = []
    kept: list[Outbound] = []
    for outbound in outbounds:
        places = [(address, outbound.port.number) for address in outbound.addresses]
        taken = [owner[p] for p in places if p in owner and not both_http(owner[p], outbound)]
        if places and not taken:
            kept.append(outbound)
            owner.update((place, outbound) for place in places if place not in owner)
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
    if service.vip:
        yield port.number, service.vip
    for endpoint in endpoints:
        if endpoint.port == port.number:
            yield port.number, endpoint.address
            yield endpoint.target, endpoint.address
