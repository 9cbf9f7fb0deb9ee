"""What replicas report of their proxies and of the certificates, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from meshfed.catalog.model import Identity, ServiceName

Reached = tuple[str, int, str, int, str]  # cluster, priority, service, endpoints, version
Reach = frozenset[Reached]


class Receipt(Struct, frozen=True):
    """A proxy's answer to one response: which version of which type it accepted or rejected."""

    proxy: str  # Workload.id
    type: str  # CDS, EDS, LDS, RDS, SDS
    version: str
    sent_at: float  # seconds since the epoch
    answered_at: float
    rejected: str = ""  # the proxy's words, when it rejected it


@dataclass(frozen=True, slots=True)
class Pushed:
    """All that a proxy was sent of one type and still has, once a revision had been sent."""

    proxy: str  # Workload.id
    type: str  # CDS, EDS, LDS, RDS, SDS
    revision: int
    versions: Mapping[str, str]  # by name; empty: rejected, so the one before it is what it has


@dataclass(frozen=True, slots=True)
class ProxyState:
    """One connected proxy, as the replica that serves it sees it."""

    proxy: str  # Workload.id
    identity: Identity
    workload: str  # Workload.name
    connected_since: float  # seconds since the epoch
    state: Literal["synced", "behind", "rejecting", "expiring"] = "synced"
    reason: str = ""
    envoy_version: str = ""
    behind: int | None = None  # the oldest revision it has not acknowledged
    kind: int = 0  # the number of its class, at this replica
    whole: bool = False  # nobody here knows what is recorded of it: this, and all its answers, are


@dataclass(frozen=True, slots=True)
class Reaches:
    """What the proxies of one class can reach, as their replica tells them."""

    number: int
    clusters: Reach
    before: Reach | None = None  # what is recorded; None: nobody here knows


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the catalog had of a replica when that recorded something."""

    known: bool  # False: not any more, and nothing of what it had recorded of its proxies
    own: frozenset[str]  # its proxies of which all of it stands, by id


@dataclass(frozen=True, slots=True)
class CertificateState:
    """The certificate that an identity has on behalf of one of its services."""

    identity: Identity
    service: ServiceName
    issuer: str
    state: Literal["unclaimed", "claimed", "retired"]
    serial: str
    not_before: float  # seconds since the epoch
    not_after: float
