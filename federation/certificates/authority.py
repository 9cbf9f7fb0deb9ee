"""The built-in issuer: one root per trust domain, whose key leaves the catalog only sealed."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshfed.federation.certificates.issuer import Names, Safe, Unissuable
from meshfed.federation.certificates.keypair import pem
from meshfed.federation.certificates.keys import Seal

ROOT_LIFETIME = timedelta(days=3653)
BACKDATED = timedelta(minutes=5)  # hosts' clocks differ
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)  # what Envoy takes; no Ed25519
SMALLEST_RSA = 2048


class LocalAuthority:
    """Signs with a root of its own, the same on every replica that shares the catalog."""

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    async def open(cls, *, trust_domain: str, safe: Safe, seal: Seal) -> Self:
        standing = await safe.authority()
        if standing is None:
            certificate, key = root(trust_domain, datetime.now(UTC))
            standing = await safe.keep_authority(pem((certificate,)), seal.close(pkcs8(key)))
        return cls(*opened(*standing, trust_domain, seal))

    async def sign(
        self, csr: x509.CertificateSigningRequest, names: Names, lifetime: timedelta
    ) -> tuple[x509.Certificate, ...]:
        now = datetime.fromtimestamp(self._clock(), UTC)
        return (leaf(csr, names, lifetime, self._certificate, self._key, now),)

    async def roots(self) -> tuple[x509.Certificate, ...]:
        return (self._certificate,)


def root(trust_domain: str, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A new self-signed root, in the shape of an X.509-SVID signing certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    skid = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two roots of one trust domain must not share a name: verifiers look issuers up by it.
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"meshfed authority {skid.digest[:4].hex()}")]
    )
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .add_extension(alternative_names(Names(f"spiffe://{trust_domain}")), critical=False)
        .add_extension(skid, critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def leaf(
    csr: x509.CertificateSigningRequest,
    names: Names,
    lifetime: timedelta,
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """A certificate for the request's key and these names. Raises Unissuable."""
    refuse(csr, lifetime, issuer, now)
    issuer_skid = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        # No subject: SPIFFE and the mesh look at the alternative names alone, which must then be
        # critical (RFC 5280, 4.2.1.6).
        x509.CertificateBuilder(subject_name=x509.Name([]), issuer_name=issuer.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(alternative_names(names), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_skid),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def refuse(
    csr: x509.CertificateSigningRequest,
    lifetime: timedelta,
    issuer: x509.Certificate,
    now: datetime,
) -> None:
    """Raises Unissuable when nothing good could come of signing this."""
    try:
        proven, key = csr.is_signature_valid, csr.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise Unissuable(f"the request's key cannot be used: {error}") from error
    if not proven:
        raise Unissuable("the request is not signed with its own key")
    if not usable(key):
        raise Unissuable("the request's key is none that Envoy takes: use ECDSA P-256 or RSA 2048")
    if lifetime <= timedelta():
        raise Unissuable(f"a lifetime of {lifetime} is none")
    if now < issuer.not_valid_before_utc:
        raise Unissuable(f"this clock says {now:%F %T}Z, before the root began: set the clock")
    if now >= issuer.not_valid_after_utc:
        raise Unissuable(f"the authority's root ended at {issuer.not_valid_after_utc:%F %T}Z")


def usable(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= SMALLEST_RSA
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES)


def opened(
    certificate_pem: str, sealed_key: bytes, trust_domain: str, seal: Seal
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The root as it stands in the catalog. Raises Unsealable; Unissuable if another's."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    key = serialization.load_der_private_key(seal.open(sealed_key), None)
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        raise Unissuable("the catalog's root key is not its root certificate's: restore a backup")
    theirs = uris(certificate)
    if theirs != (f"spiffe://{trust_domain}",):
        raise Unissuable(
            f"mesh.trust_domain is {trust_domain}, but this catalog's authority is for"
            f" {', '.join(theirs)}: change it back, or begin with a new catalog"
        )
    return certificate, key


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def alternative_names(names: Names) -> x509.SubjectAlternativeName:
    dns = [x509.DNSName(names.dns)] if names.dns else []
    hosts = [host(name) for name in names.hosts]
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(names.uri), *dns, *hosts])


def host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def uris(certificate: x509.Certificate) -> tuple[str, ...]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
