"""Where one proxy's calls may end, as values."""

from dataclasses import dataclass
from hashlib import sha256

from meshfed.catalog.model import HttpMatch, Identity, Locality, Port, Protocol, ServiceName

ANYWHERE = Locality()


@dataclass(frozen=True, slots=True)
class Assignment:
    """The endpoints of a service's port that some callers share.

    Its variant names what makes these callers differ from others, so equal ones share the bytes.
    """

    service: ServiceName
    port: int
    identities: tuple[Identity, ...] | None = None  # which these callers may reach; None is all
    network: str = ""
    locality: Locality = ANYWHERE
    plaintext: bool = False  # the service's own word on endpoints without a sidecar

    @property
    def name(self) -> str:
        name = f"{self.service}|{self.port}"
        if self.identities is None and not self.network and self.locality == ANYWHERE:
            return name
        identities = "*" if self.identities is None else ",".join(map(str, self.identities))
        variant = "\0".join((identities, self.network, str(self.locality)))
        return f"{name}|{sha256(variant.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Target:
    """One place a call may end, and who may answer there."""

    assignment: Assignment
    protocol: Protocol
    identities: tuple[Identity, ...]  # empty: nothing there has a sidecar
    requests: tuple[HttpMatch, ...] | None  # what the caller itself must enforce; None is nothing


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
