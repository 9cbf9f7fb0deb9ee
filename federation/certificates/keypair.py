"""A key made here with its certificate, and when the two are due to be replaced."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshfed.federation.backoff import doubled
from meshfed.federation.certificates.issuer import Issuer, Names, Unissuable

PATIENCE = 10.0  # seconds for one signature
# Timers stand still while a machine sleeps and know nothing of a clock that is set, so nothing
# ever waits for a moment of renewal: it looks at the wall clock this often.
GLANCE = 30.0
LONGEST_PAUSE = 30.0  # seconds between attempts at an issuer that does not sign


@dataclass(frozen=True, slots=True)
class Keypair:
    """A certificate chain, leaf first, and its key. Times are seconds since the epoch."""

    chain_pem: str
    key_pem: str = field(repr=False)
    serial: str
    issued_at: float
    not_before: float
    not_after: float

    def due(self, now: float) -> bool:
        """Two thirds of its life are over, or the clock says that it has not begun."""
        renew_at = self.issued_at + (self.not_after - self.issued_at) * 2 / 3
        return not self.not_before <= now < renew_at


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed: which one in a row, when, and why."""

    count: int
    at: float
    why: str

    @property
    def pause(self) -> float:
        return doubled(1.0, self.count, LONGEST_PAUSE)

    def rests(self, now: float) -> bool:
        """Whether it is too early to try again; a clock that went back never makes it so."""
        return self.at <= now < self.at + self.pause


def glance(lifetime: timedelta) -> float:
    """Seconds between two looks: several in the last third, however short the life."""
    return min(GLANCE, lifetime.total_seconds() / 10)


def request(key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """A request that proves possession of the key and claims no name: the signer says the names."""
    return x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(
        key, hashes.SHA256()
    )


def keypair(
    chain: tuple[x509.Certificate, ...], key: ec.EllipticCurvePrivateKey, issued_at: float
) -> Keypair:
    return Keypair(
        chain_pem=pem(chain),
        key_pem=key_pem(key),
        serial=f"{chain[0].serial_number:x}",
        issued_at=issued_at,
        not_before=chain[0].not_valid_before_utc.timestamp(),
        not_after=chain[0].not_valid_after_utc.timestamp(),
    )


def pem(certificates: tuple[x509.Certificate, ...]) -> str:
    encoding = serialization.Encoding.PEM
    return "".join(each.public_bytes(encoding).decode() for each in certificates)


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


async def issue(
    issuer: Issuer, names: Names, lifetime: timedelta, clock: Callable[[], float]
) -> Keypair:
    """A new key and its certificate. Raises Unissuable."""
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        async with asyncio.timeout(PATIENCE):
            chain = await issuer.sign(request(key), names, lifetime)
    except TimeoutError as error:
        raise Unissuable(f"the issuer did not answer within {PATIENCE:.0f} s") from error
    return keypair(chain, key, clock())
