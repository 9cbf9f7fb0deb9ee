"""Who signs certificates: the seam that an authority of one's own fits into."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, runtime_checkable

from cryptography.x509 import Certificate, CertificateSigningRequest


class Unissuable(Exception):
    """The issuer could not sign, now or ever; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a certificate says of its holder: one URI, and on the one used for xDS one DNS name."""

    uri: str
    dns: str = ""


@runtime_checkable
class Issuer(Protocol):
    """Signs what it is asked to sign: who may ask is decided before it is asked."""

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
