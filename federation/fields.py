"""The fields of the configuration: what may stand in each, and why something else may not."""

import json
import re
from datetime import date, timedelta
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from meshfed.catalog import entra
from meshfed.catalog.model import LABEL
from meshfed.catalog.ranges import ENDS

LONGEST = timedelta(hours=87600)  # ten years
DURATION = re.compile(r"(?=\d)(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")
# SPIFFE-ID, section 2.1; with the longest service before it, it must still be a DNS name of 253.
TRUST_DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
LONGEST_TRUST_DOMAIN = 114
HOST_NAME = rf"{LABEL.pattern}(\.{LABEL.pattern})*"


class Address(str):
    """Where to listen, `host:port`; an IPv6 host in brackets."""

    __slots__ = ()

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or ip_address(self.host).is_loopback

    def overlaps(self, other: "Address") -> bool:
        """Whether one of the two could not listen; 0 is any free port."""
        wild = any(host in ("0.0.0.0", "::") for host in (self.host, other.host))
        return self.port == other.port != 0 and (wild or self.host == other.host)


class CatalogUrl(str):
    """A database URL that does not show its password by accident."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        """Without its password."""
        shown = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", self)
        return re.sub(r"(password=)[^&]*", r"\1***", shown)

    def __repr__(self) -> str:
        return repr(self.shown)

    def under(self, base: Path) -> "CatalogUrl":
        """The same database, found from anywhere: SQLite's files are named by absolute path."""
        scheme, found, file = self.partition("sqlite:///")
        return CatalogUrl(f"{scheme}{found}{Path(quote(str(base))) / file}") if found else self


def spelt(value: object) -> str:
    """A value as it stands in YAML, for whoever wrote another than is wanted there."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return re.sub(r"(?=inf|nan)", ".", repr(value))
    return f"the date {value}" if isinstance(value, date) else repr(value)


def whole(value: object) -> object:
    """pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError(f"{spelt(value)} is not a whole number")
    return value


def duration(text: object) -> timedelta:
    found = DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise ValueError(f"{spelt(text)} is not a duration: write 30d, 24h, 90m or 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta() < length <= LONGEST:
        raise ValueError(f"{text!r} must be more than 0s and at most 87600h (ten years)")
    return length


def address(text: object) -> Address:
    host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{spelt(text)} is not host:port, such as 127.0.0.1:15128 or [::1]:15128")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        version = 0 if host == "localhost" else ip_address(bare).version
    except ValueError as error:
        why = f"{host!r} is not an address to listen on; 0.0.0.0 is all of them"
        raise ValueError(why) from error
    if (version == 6) != (host == f"[{bare}]"):
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, and only that")
    return Address(f"{host}:{int(port)}")


def catalog_url(text: object) -> CatalogUrl:
    # The reasons do not quote the URL: it may hold a password.
    wanted = "must be sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
    scheme, found, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
    if scheme == "sqlite" and rest.startswith("/"):
        file = unquote(rest[1:].partition("?")[0])
        if file.endswith("/") or Path(file).name in ("", "..", ":memory:"):
            raise ValueError(f"{wanted}: a catalog is a file")
        return CatalogUrl(text)
    if not found or scheme not in ("postgresql+psycopg", "postgresql", "postgres"):
        raise ValueError(wanted)
    parts = urlsplit(f"postgresql://{rest}")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{wanted}: the port is none") from error
    asked = dict(parse_qsl(parts.query))
    if why := entra.refusal(asked, parts.password):
        raise ValueError(why)
    if strange := asked.keys() - {entra.KEY} - options():
        raise ValueError(f"{min(strange)!r} is no option of a connection to Postgres")
    return CatalogUrl(f"postgresql+psycopg://{rest}")


@cache
def options() -> frozenset[str]:
    """The parameters that libpq knows (PostgreSQL, 32.1.2)."""
    from psycopg import pq  # slow to load, and not needed for SQLite

    return frozenset(each.keyword.decode() for each in pq.Conninfo.get_defaults())


def trust_domain(text: str) -> str:
    if not TRUST_DOMAIN.fullmatch(text):
        why = "lower-case letters, digits, dots, dashes and underscores, as in shop.example"
        raise ValueError(f"{text!r} is not a trust domain: {why}")
    if len(text) > LONGEST_TRUST_DOMAIN:
        raise ValueError(
            f"{len(text)} characters, {LONGEST_TRUST_DOMAIN} at most: DNS names hold it"
        )
    return text


def label(text: str) -> str:
    if not LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a lower-case name (letters, digits, dashes)")
    return text


def dotted_name(text: str) -> str:
    """An RFC 1123 subdomain: a DNS name, or most names in Kubernetes."""
    if len(text) > 253 or not all(LABEL.fullmatch(part) for part in text.split(".")):
        raise ValueError(f"{text!r} is not a lower-case name (letters, digits, dashes, dots)")
    return text


def host_name(text: str) -> str:
    """A DNS name or an address, without a port."""
    try:
        return str(ip_address(text))
    except ValueError:
        if not re.fullmatch(HOST_NAME, text) or len(text) > 253:
            why = "write a DNS name or an address, without a port"
            raise ValueError(f"{text!r} is neither: {why}") from None
        return text


def loopback(listen: Address) -> Address:
    if not listen.is_loopback:
        why = "elsewhere it would need TLS and a credential, which it does not have"
        raise ValueError(f"{listen}: must be a loopback address, such as 127.0.0.1:15080: {why}")
    return listen


# Loopback, link-local, multicast and the like, and what is never captured (RFC 6890; Azure's own).
ELSEWHERE = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "224.0.0.0/4",
        "255.255.255.255/32", "::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip


def virtual_range(text: str) -> str:
    try:
        found = ip_network(text)
    except ValueError as error:
        why = f"{text!r} is not a range of addresses such as 240.240.0.0/16"
        raise ValueError(f"{why} ({error})") from error
    if found.num_addresses <= ENDS:
        raise ValueError(f"{text!r} has no address for a service")
    if any(found.version == each.version and found.overlaps(each) for each in ELSEWHERE):
        raise ValueError(f"{text!r}: what is said to such addresses does not come to a sidecar")
    return str(found)


def each_of_a_family(ranges: tuple[str, ...]) -> tuple[str, ...]:
    if len({ip_network(each).version for each in ranges}) < len(ranges):
        raise ValueError("at most one range of IPv4 and one of IPv6")
    return ranges


# As it stands there: pydantic would take 1 and "true" as well.
Switch = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(whole)]
PATTERN = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
Duration = Annotated[
    timedelta,
    PlainValidator(duration, json_schema_input_type=Annotated[str, Field(pattern=PATTERN)]),
]
Listen = Annotated[Address, PlainValidator(address, json_schema_input_type=str)]
LoopbackListen = Annotated[Listen, AfterValidator(loopback)]
Database = Annotated[CatalogUrl, PlainValidator(catalog_url, json_schema_input_type=str)]
TrustDomain = Annotated[
    str,
    AfterValidator(trust_domain),
    Field(json_schema_extra={"pattern": f"^{TRUST_DOMAIN.pattern}$"}),
]
VirtualRanges = Annotated[
    tuple[Annotated[str, AfterValidator(virtual_range)], ...], AfterValidator(each_of_a_family)
]
HostName = Annotated[str, AfterValidator(host_name)]
DottedName = Annotated[str, AfterValidator(dotted_name)]
Label = Annotated[
    str, AfterValidator(label), Field(json_schema_extra={"pattern": f"^{LABEL.pattern}$"})
]


# What may stand in it the provider of the same name says; here is only its schema.
Namespaces = Annotated[
    object,
    WithJsonSchema({
        "anyOf": [
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            {"type": "object", "properties": {"label": {"type": "string"}},
             "required": ["label"], "additionalProperties": False},
        ]
    }),
]  # fmt: skip


class AsWritten(GenerateJsonSchema):
    """A JSON Schema whose defaults are what a person would write."""

    def encode_default(self, dft: object) -> object:
        if isinstance(dft, timedelta):
            return f"{dft // timedelta(hours=1)}h"
        return super().encode_default(str(dft) if isinstance(dft, str) else dft)
