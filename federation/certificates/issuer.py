"""Who signs certificates: the seam that an authority of one's own fits into."""

from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import entry_points
from typing import Protocol, Self, runtime_checkable

from cryptography.x509 import Certificate, CertificateSigningRequest

from meshfed.federation.certificates.keys import Seal

GROUP = "meshfed.issuers"


class Unissuable(Exception):
    """The issuer could not sign, now or ever; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a certificate says of its holder: one URI, and on the one used for xDS one DNS name.

    The control plane's has `hosts` too, by which gRPC clients find it: DNS names and addresses.
    """

    uri: str
    dns: str = ""
    hosts: tuple[str, ...] = ()


class Safe(Protocol):
    """Where an issuer's certificate and sealed key stand, for all replicas; the catalog is one."""

    async def authority(self) -> tuple[str, bytes] | None:
        """The certificate (PEM) and the sealed key that stand, if any do."""
        ...

    async def keep_authority(self, certificate_pem: str, sealed_key: bytes) -> tuple[str, bytes]:
        """Keep these, unless others stand already; returns what stands."""
        ...


@runtime_checkable
class Issuer(Protocol):
    """Signs what it is asked to sign: who may ask is decided before it is asked."""

    @classmethod
    async def open(cls, *, trust_domain: str, safe: Safe, seal: Seal) -> Self:
        """The issuer of a trust domain, ready to sign; the same for every replica.

        Secrets of its own it keeps in `safe`, sealed with `seal`; anything else it needs it reads
        from its environment. Raises Unissuable, and Unsealable when `seal` does not fit.
        """
        ...

    async def sign(
        self, csr: CertificateSigningRequest, names: Names, lifetime: timedelta
    ) -> tuple[Certificate, ...]:
        """A chain, leaf first, for the key of `csr` and exactly these names. Raises Unissuable.

        Whatever names the request carries are ignored. The leaf is good for client and server.
        """
        ...

    async def roots(self) -> tuple[Certificate, ...]:
        """What its certificates are verified with; never empty. Raises Unissuable."""
        ...


class UnknownIssuer(ValueError):
    """No installed package brings this type of issuer."""


def load(kind: str) -> type[Issuer]:
    """The issuer class of a type. Raises UnknownIssuer, naming the types there are."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in found:
        raise UnknownIssuer(f"issuer: {kind!r} is none of {', '.join(sorted(found))}")
    loaded: type[Issuer] = found[kind].load()
    return loaded
