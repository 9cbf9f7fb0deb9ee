"""Where one proxy's calls may end, as values."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from meshfed.catalog.model import (
    Endpoint,
    HttpMatch,
    Identity,
    Locality,
    Port,
    Protocol,
    ServiceName,
)
from meshfed.catalog.preferences import (
    NO_PREFERENCE,
    SAME_CLUSTER,
    SAME_REGION,
    SAME_ZONE,
    Preference,
)

ANYWHERE = Locality()
THROUGH = ">"  # in the name of a cluster: the split service that was called, and the backend


@dataclass(frozen=True, slots=True)
class Near:
    """Where a caller is, as far as somebody's preference asks."""

    locality: Locality = ANYWHERE
    cluster: str = ""

    def __str__(self) -> str:
        cluster = f"cluster {self.cluster}" if self.cluster else ""
        return ", ".join(filter(None, (str(self.locality), cluster)))

    def asked(self, terms: Collection[str]) -> "Near":
        """No more of it than these terms need: callers who are alike in that share the bytes."""
        locality = ANYWHERE
        if SAME_ZONE in terms and self.locality.zone:
            locality = self.locality
        elif SAME_REGION in terms:
            locality = Locality(self.locality.region)
        return Near(locality, self.cluster if SAME_CLUSTER in terms else "")

    def holds(self, term: str, there: Endpoint) -> bool:
        match term:
            case "same-zone":
                return bool(self.locality.zone) and self.locality == there.locality
            case "same-region":
                region = self.locality.region
                return bool(region) and region == there.locality.region
            case "same-cluster":
                return bool(self.cluster) and self.cluster == there.cluster
            case _:
                return term in (there.provider, there.platform)


NOWHERE = Near()


class Transport(StrEnum):
    """What a gRPC client speaks to a whole cluster: it has no word for it per endpoint."""

    MUTUAL = "mtls"
    PLAINTEXT = "plaintext"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The endpoints of a service's port that some callers share.

    Its variant names what makes these callers differ from others, so equal ones share the bytes.
    """

    service: ServiceName
    port: int
    identities: tuple[Identity, ...] | None = None  # which these callers may reach; None is all
    network: str = ""
    near: Near = NOWHERE
    preference: Preference = NO_PREFERENCE
    plaintext: bool = False  # the service's own word on endpoints without a sidecar
    only: Transport | None = None  # for gRPC clients; the sidecar of others is told per endpoint

    @property
    def name(self) -> str:
        name = f"{self.service}|{self.port}"
        if self.only is not None:
            name += f"|{self.only}"
        if self.identities is None and not self.network and self.near == NOWHERE:
            return name
        identities = "*" if self.identities is None else ",".join(map(str, self.identities))
        place = (str(self.near.locality), *filter(None, [self.near.cluster]))
        variant = "\0".join((identities, self.network, *place))
        return f"{name}|{sha256(variant.encode()).hexdigest()[:16]}"

    def level(self, endpoint: Endpoint) -> int:
        """The first thing preferred that it is, from 0; behind them all where it is none."""
        prefer = self.preference.prefer
        for level, term in enumerate(prefer):
            if self.near.holds(term, endpoint):
                return level
        return len(prefer)


@dataclass(frozen=True, slots=True)
class Target:
    """One place a call may end, and who may answer there."""

    assignment: Assignment
    protocol: Protocol
    identities: tuple[Identity, ...]  # empty: nothing there has a sidecar
    requests: tuple[HttpMatch, ...] | None  # what the caller itself must enforce; None is nothing
    root: ServiceName | None = None  # the split service that was called; None: this one itself

    @property
    def cluster(self) -> str:
        """A backend is one cluster as such, and another for each split: calls are counted apart."""
        name = self.assignment.name
        return f"{self.root}{THROUGH}{name}" if self.root else name


@dataclass(frozen=True, slots=True)
class Share:
    target: Target
    weight: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Where calls go that match: by weight, or nowhere and why."""

    matches: tuple[HttpMatch, ...] | None  # any may hold; None is every call
    shares: tuple[Share, ...]
    why: str = ""  # there are no shares

    @property
    def silent(self) -> bool:
        """Not this caller's to reach, nor to know of."""
        return not self.shares and not self.why


@dataclass(frozen=True, slots=True)
class Outbound:
    """A service's port that this proxy may call."""

    service: ServiceName
    port: Port
    addresses: tuple[str, ...]  # what transparent callers dial
    choices: tuple[Choice, ...]  # the first that matches; the last one matches everything
