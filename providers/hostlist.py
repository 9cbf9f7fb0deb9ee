"""What a host list may say, entry by entry, in its native format."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)
from pydantic_core import ErrorDetails

from meshfed.catalog.model import (
    Identity,
    Interception,
    Locality,
    Port,
    Protocol,
    Service,
    ServiceName,
)
from meshfed.providers.probe import WRITTEN, Probe

SIDECAR = frozenset({15000, 15001, 15003, 15010, 15053})  # taken at every sidecar
NAME = r"[A-Za-z0-9]([-._:A-Za-z0-9]{0,251}[A-Za-z0-9])?"  # colons: an IPv6 address may be a name
LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
WORD = re.compile(r"[-._A-Za-z0-9]+")
DNS = re.compile(r"(?!.*\.[0-9]+$)(?=.{1,253}$)([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.?)+")


def reachable(text: object) -> str:
    """An IP literal in its shortest form, or a DNS name in lower case, that callers connect to."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not text: put it in quotes")
    if (parsed := _parsed(text)) is not None:
        if parsed.is_unspecified:
            raise ValueError(f"{text} is no address that callers could connect to")
        return _shortest(parsed, text)
    name = text.lower().removesuffix(".")
    if DNS.fullmatch(name) and not name.isdigit():
        return name
    raise ValueError(f"{text!r} is neither an IP address nor a DNS name; a port goes into `port`")


def literal(text: object) -> str:
    """An IP literal in its shortest form."""
    parsed = _parsed(text) if isinstance(text, str) else None
    if parsed is None:
        raise ValueError(f"{text!r} is not an IP address")
    return _shortest(parsed, str(text))


def is_literal(text: str) -> bool:
    return _parsed(text) is not None


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """None: it is no literal, or Envoy takes none such."""
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        if "%" in text:  # Envoy takes no zone index
            return None
        return parsed.ipv4_mapped or parsed  # RFC 4291, section 2.5.5.2: one address, two ways
    return parsed


def _shortest(parsed: IPv4Address | IPv6Address, text: str) -> str:
    if parsed.is_multicast:
        raise ValueError(f"{text} is a multicast address: nothing can connect to it")
    return parsed.compressed


def _locality(text: object) -> Locality:
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) > 2 or not parts or not all(WORD.fullmatch(part) for part in parts):
        raise ValueError(f"{text!r} is not <region> or <region>/<zone>")
    return Locality(*parts)


def _service(text: object) -> ServiceName:
    return _service_of(str(text))


def _identity(text: object) -> Identity:
    return _identity_of(str(text))


# Of many hosts few are of another service, or somebody else, than those before them.
_service_of = lru_cache(maxsize=1 << 12)(ServiceName.parse)


@lru_cache(maxsize=1 << 12)
def _identity_of(text: str) -> Identity:
    # JSON can hold halves of characters; a message with one could not be written.
    return Identity.parse(text.encode("utf-8", "backslashreplace").decode())


def _probe(text: object) -> Probe:
    return Probe.parse(str(text))


def port_ref(value: object) -> int | str:
    if isinstance(value, str) and re.fullmatch(LABEL, value) and not value.isdigit():
        return value
    if type(value) is int and 1 <= value <= 65535:
        return value
    raise ValueError(f"{value!r} is neither a port number (1-65535) nor the name of a port")


def several(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _spelled_out(value: object) -> object:
    return {"number": value} if type(value) is int else value


# How each kind of value is read from a file, and what the JSON Schema says of it.
Number = Annotated[int, Field(strict=True, ge=1, le=65535)]
PortName = Annotated[str, Field(pattern=rf"^{LABEL}$")]
HostName = Annotated[str, Field(pattern=rf"^{NAME}$")]
Network = Annotated[str, Field(pattern=r"^[-._A-Za-z0-9]{0,63}$")]
HostAddress = Annotated[str, PlainValidator(reachable, json_schema_input_type=str)]
Literally = Annotated[str, PlainValidator(literal, json_schema_input_type=str)]
PortRef = Annotated[int | str, PlainValidator(port_ref, json_schema_input_type=Number | PortName)]
Place = Annotated[Locality, PlainValidator(_locality, json_schema_input_type=str)]
ServicePattern = Annotated[str, Field(pattern=rf"^{LABEL}\.{LABEL}$")]
ServiceRef = Annotated[ServiceName, PlainValidator(_service, json_schema_input_type=ServicePattern)]
ServiceRefs = Annotated[
    tuple[ServiceRef, ...],
    BeforeValidator(several, json_schema_input_type=ServiceRef | list[ServiceRef]),
]
ProbePattern = Annotated[str, Field(pattern=f"^{WRITTEN.pattern}$")]
ProbeRef = Annotated[Probe, PlainValidator(_probe, json_schema_input_type=ProbePattern)]
ProbeRefs = Annotated[
    tuple[ProbeRef, ...],
    BeforeValidator(several, json_schema_input_type=ProbeRef | list[ProbeRef]),
]
AccountPattern = Annotated[str, Field(pattern=rf"^{LABEL}(\.{LABEL})+$")]
Account = Annotated[Identity, PlainValidator(_identity, json_schema_input_type=AccountPattern)]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PortEntry(Entry):
    """A port of a service."""

    number: Number = Field(description="what callers say")
    protocol: Protocol | None = Field(None, description="the service's protocol, if absent")
    target: Number | None = Field(None, description="the application's port, if another")
    local: Number | None = Field(
        None, description="the loopback port at every explicit caller; not for HTTP"
    )

    @model_validator(mode="after")
    def _local_is_free(self) -> Self:
        if self.local in SIDECAR:
            raise ValueError(f"local {self.local} is the sidecar's own: choose another")
        return self


PortOrNumber = Annotated[
    PortEntry, BeforeValidator(_spelled_out, json_schema_input_type=Number | PortEntry)
]


class ServiceEntry(Entry):
    """What a service is; its hosts say where it is."""

    ports: dict[PortName, PortOrNumber] = Field(min_length=1)
    protocol: Protocol = Protocol.HTTP
    vip: Literally | None = Field(None, description="a virtual IP that callers may use")
    plaintext: Literal["allow", "deny"] = Field(
        "deny", description="allow: callers reach hosts without a sidecar in the clear"
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        names: dict[int, str] = {}
        for name, port in self.ports.items():
            if port.number in names:
                raise ValueError(f"{names[port.number]} and {name} are both port {port.number}")
            names[port.number] = name
            if port.local and (port.protocol or self.protocol).is_http:
                raise ValueError(
                    f"{name} is HTTP, which callers reach through 127.0.0.1:15001: "
                    "take `local` away, or say protocol: tcp"
                )
        return self

    def service(self, name: ServiceName) -> Service:
        ports = (
            Port(port.number, key, port.protocol or self.protocol, port.target, port.local)
            for key, port in self.ports.items()
        )
        return Service(name, tuple(sorted(ports)), self.vip or "", self.plaintext == "allow")


class HostEntry(Entry):
    """One host; the same name again is the same host, serving something more."""

    name: HostName
    address: HostAddress = Field(description="an IPv4 or IPv6 address, or a DNS name")
    service: ServiceRefs = Field((), description="what it serves; nothing, if it only calls")
    port: PortRef | None = Field(
        None, description="number, target or name of one port of the service; absent: all of them"
    )
    identity: Account | None = Field(
        None, description="<account>.<namespace>; needed unless interception is none"
    )
    locality: Place = Field(
        Locality(),
        description="<region> or <region>/<zone>",
        json_schema_extra={"default": ""},
    )
    weight: Number = 1
    probe: ProbeRefs = Field(
        (),
        description="how the control plane asks its applications whether they are well, where no"
        " agent does: http:8080/healthz, tcp:3306 or grpc:9090; the port is the application's",
    )
    labels: dict[str, str] = {}
    interception: Interception = Interception.EXPLICIT
    bind: Literally | None = Field(
        None, description="where the sidecar listens for the mesh; absent: everywhere"
    )
    application: Literally = Field(
        "127.0.0.1", description="where the sidecar finds the application"
    )
    network: Network = Field("", description="hosts of one network reach each other directly")
    cluster: Network = Field("", description="which of several installations it is part of")
    platform: Literal["host", "vm"] = "host"


class HostList(Entry):
    """A host list of meshfed."""

    services: dict[str, ServiceEntry] | None = None
    hosts: list[HostEntry] | None = None


def schema() -> dict[str, object]:
    """The JSON Schema that editors check host lists with; `hosts.schema.json` is a copy of it."""
    generated = HostList.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or all there are."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def explain(error: ErrorDetails, model: type[Entry]) -> str:
    """What is wrong, and what to do, in words for whoever wrote the entry."""
    given = error["input"]
    context = error.get("ctx", {})
    if given is None:
        return "nothing is written here: give it a value, or take the key away"
    match error["type"]:
        case "missing":
            return "missing: it cannot be left out"
        case "extra_forbidden":
            inner = PortEntry if len(error["loc"]) > 1 else model
            return f"unknown key; {nearest(str(error['loc'][-1]), inner.model_fields)}"
        case "enum" | "literal_error":
            return f"{given!r} is none of {context['expected'].replace(' or ', ', ')}"
        case "greater_than_equal" | "less_than_equal":
            return f"{given} is not in 1-65535"
        case "int_type" | "int_from_float":
            return f"{given!r} is not a whole number"
        case "string_type":
            return f"{given!r} is not text: put it in quotes"
        case "string_pattern_mismatch":
            return f"{given!r} is not a name: letters, digits and - inside"
        case "dict_type" | "model_type":
            return f"{given!r} is not a mapping of keys to values"
        case "too_short":
            return "empty: name at least one"
        case _:
            return error["msg"].removeprefix("Value error, ")


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
