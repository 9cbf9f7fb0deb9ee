"""What the catalog's views say of one thing: the rows that `why` walks along."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from meshfed.catalog.reader import query

Row = Mapping[str, object]

SECONDS = 60.0
MOST = 100_000  # rows of one service, or of one address


@dataclass(frozen=True, slots=True)
class Provided:
    """How one scope of a provider stands."""

    provider: str
    type: str
    scope: str
    state: str
    age_s: int | None
    doubt: str
    reason: str

    @classmethod
    def of(cls, row: Row) -> Self:
        age = row["age_s"]
        return cls(
            str(row["provider"]),
            str(row["type"]),
            str(row["scope"]),
            str(row["state"]),
            age if isinstance(age, int) else None,
            str(row["doubt"] or ""),
            str(row["reason"] or ""),
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """An endpoint as `mesh_endpoints` has it: with what doubt and conflict there is about it."""

    service: str
    address: str
    port: int  # the application's
    provider: str
    scope: str
    stale: bool
    doubt: str
    conflict: str
    revision: int

    @classmethod
    def of(cls, row: Row) -> Self:
        return cls(
            str(row["service"]),
            str(row["address"]),
            int(str(row["port"])),
            str(row["provider"]),
            str(row["scope"]),
            bool(row["stale"]),
            str(row["doubt"] or ""),
            str(row["conflict"] or ""),
            int(str(row["revision"])),
        )


@dataclass(frozen=True, slots=True)
class Gone:
    """The last that was known of an endpoint that left."""

    service: str
    address: str
    provider: str
    at: str
    revision: int
    cause: str


@dataclass(frozen=True, slots=True)
class Certified:
    identity: str
    service: str
    state: str
    not_after: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A policy that is not in force."""

    name: str
    state: str
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    """All of it."""

    providers: tuple[Provided, ...] = ()
    endpoints: tuple[Listed, ...] = ()
    gone: tuple[Gone, ...] = ()
    certificates: tuple[Certified, ...] = ()
    answers: Mapping[tuple[str, int], bool] = field(default_factory=dict)  # who was tried, answers
    ended: str = ""  # when the certificate ended with which its Envoy would connect


def read(url: str, *, service: str = "", addresses: Iterable[str] = (), workload: str = "") -> Seen:
    """What the views have of a service, of addresses, or of a workload's name. Raises Away."""
    about = _condition(service, tuple(addresses), workload)
    endpoints = f"select * from mesh_endpoints where {about} order by service, address, port"
    gone = (
        "select service, address, provider, valid_to, valid_to_revision, cause"
        f" from mesh_endpoint_history where ({about}) and change like '%left'"
        " order by valid_to_revision desc"
    )
    return Seen(
        providers=provided(url),
        endpoints=tuple(map(Listed.of, _rows(url, endpoints))),
        gone=tuple(
            Gone(
                str(row["service"]),
                str(row["address"]),
                str(row["provider"]),
                str(row["valid_to"]),
                int(str(row["valid_to_revision"])),
                str(row["cause"]),
            )
            for row in _rows(url, f"{gone} limit 20")
        ),
        certificates=certified(url),
    )


def provided(url: str) -> tuple[Provided, ...]:
    return tuple(
        map(Provided.of, _rows(url, "select * from mesh_providers order by provider, scope"))
    )


def certified(url: str) -> tuple[Certified, ...]:
    standing = "select * from mesh_certificates where state <> 'retired' order by identity, service"
    names = ("identity", "service", "state", "not_after")
    return tuple(Certified(*(str(row[name]) for name in names)) for row in _rows(url, standing))


def refused(url: str) -> tuple[Refusal, ...]:
    wrong = "select * from mesh_policies where state <> 'accepted' order by kind, namespace, name"
    return tuple(
        Refusal(
            f"{row['kind']} {row['namespace']}/{row['name']}".strip(" /") or str(row["source"]),
            str(row["state"]),
            str(row["field"] or ""),
            str(row["reason"] or ""),
        )
        for row in _rows(url, wrong)
    )


def _condition(service: str, addresses: tuple[str, ...], workload: str) -> str:
    either = [f"service = {quoted(service)}"] if service else []
    if addresses:
        either.append(f"address in ({', '.join(map(quoted, addresses))})")
    if workload:
        either.append(f"workload = {quoted(workload)}")
    return " or ".join(either) or "0 = 1"


def quoted(text: str) -> str:
    """A text as SQL has it; what cannot be in one is left out."""
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def _rows(url: str, statement: str) -> list[Row]:
    answer = query(url, statement, seconds=SECONDS, rows=MOST)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
