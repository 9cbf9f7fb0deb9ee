"""Workloads that people register by hand: what they may say, and what is known of them then."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from meshfed.catalog.byhand import PROVIDER, scope
from meshfed.catalog.differences import implied
from meshfed.catalog.model import (
    Endpoint,
    Interception,
    Known,
    Locality,
    Platform,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.providers.hostlist import (
    LABEL,
    Account,
    Entry,
    HostName,
    Place,
    is_literal,
    port_ref,
    reachable,
    several,
)
from meshfed.providers.listing import Wrong, asked, known_as
from meshfed.providers.observed import everywhere


@dataclass(frozen=True, slots=True)
class Served:
    """A port of a service, by number, target or name."""

    service: ServiceName
    port: int | str


def served(text: object) -> Served:
    service, colon, where = str(text).rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is not <name>.<namespace>:<port>")
    return Served(ServiceName.parse(service), port_ref(int(where) if where.isdecimal() else where))


def address(text: object) -> str:
    found = reachable(text)
    if not is_literal(found):
        why = "nobody would ask for its address again: give that, or put the host in a list"
        raise ValueError(f"{text!r} is a DNS name: {why}")
    return found


def addresses(value: object) -> object:
    if not value:
        raise ValueError("empty: name at least one")
    return several(value)


IpAddress = Annotated[str, PlainValidator(address, json_schema_input_type=str)]
PortOfService = Annotated[str, Field(pattern=rf"^{LABEL}\.{LABEL}:{LABEL}$")]
Serves = Annotated[Served, PlainValidator(served, json_schema_input_type=PortOfService)]


class Registration(Entry):
    """A workload as it is registered; the words are those of host lists."""

    name: HostName
    address: Annotated[
        tuple[IpAddress, ...],
        Field(description="one IPv4 or IPv6 address, or several"),
        BeforeValidator(addresses, json_schema_input_type=IpAddress | list[IpAddress]),
    ]
    service: Annotated[
        tuple[Serves, ...],
        Field(description="<name>.<namespace>:<port>, one or several; none, if it only calls"),
        BeforeValidator(several, json_schema_input_type=Serves | list[Serves]),
    ] = ()
    identity: Account | None = Field(
        None, description="<account>.<namespace>; needed unless interception is none"
    )
    interception: Interception = Interception.EXPLICIT
    platform: Literal["host", "vm"] = "host"
    locality: Place = Field(
        Locality(), description="<region> or <region>/<zone>", json_schema_extra={"default": ""}
    )


def known(said: Registration, services: Mapping[ServiceName, Service]) -> Known:
    """What is known once it is registered, in a mesh that has these services. Raises Wrong."""
    known_as(said.identity, said.interception)
    here = Workload(
        said.name,
        PROVIDER,
        scope(said.name),
        Platform(said.platform),
        said.identity,
        said.address,
        said.interception,
        everywhere(said.address),
        locality=said.locality,
    )
    serves = [(each.service, *_place(each, services)) for each in said.service]
    return Known(
        PROVIDER,
        here.scope,
        _implied(serves),
        frozenset({here}),
        frozenset(
            Endpoint(
                service,
                number,
                at,
                target,
                here.id,
                PROVIDER,
                here.scope,
                here.platform,
                here.identity,
                here.interception,
                here.locality,
            )
            for service, number, target in serves
            for at in here.addresses
        ),
    )


def _place(each: Served, services: Mapping[ServiceName, Service]) -> tuple[int, int]:
    """The service's port, and the application's. Raises Wrong."""
    if ports := _declared(services.get(each.service)):
        try:
            (found,) = asked(Service(each.service, ports), each.port)
        except Wrong as wrong:
            raise Wrong("service", wrong.why) from wrong
        return found.number, found.target or found.number
    if isinstance(each.port, str):
        why = f"{each.port!r} is the name of none: nobody declares {each.service}, so give a number"
        raise Wrong("service", why)
    return each.port, each.port


def _declared(service: Service | None) -> tuple[Port, ...]:
    """The ports that somebody declared, rather than an endpoint on them."""
    return tuple(port for port in service.ports if not implied(port)) if service else ()


def _implied(serves: list[tuple[ServiceName, int, int]]) -> frozenset[Service]:
    """What such endpoints imply where nobody declares the service: HTTP on that port."""
    numbers: dict[ServiceName, set[int]] = {}
    for service, number, _ in serves:
        numbers.setdefault(service, set()).add(number)
    return frozenset(
        Service(name, tuple(Port(n, f"http-{n}") for n in sorted(found)))
        for name, found in numbers.items()
    )
