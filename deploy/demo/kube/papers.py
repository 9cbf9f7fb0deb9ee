"""Certificates of a cluster: its authority, its server, and whoever has one to show."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = "127.0.0.1"
AGES = timedelta(days=3)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, plain)


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def _usage(**said: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: said.get(name, False) for name in names})


@dataclass(frozen=True)
class Paper:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def file(self) -> Path:
        return self.folder / "ca.crt"

    @classmethod
    def make(cls, folder: Path) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        made = (
            _begun(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        one = cls(folder, made, key)
        one.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return one

    def serves(self, *names: str) -> Paper:
        """What a server shows that is on this machine, and has these names as well."""
        stem = "-".join(("server", *names))
        return self._issue(stem, x509.Name([]), ExtendedKeyUsageOID.SERVER_AUTH, *names)

    def client(self, user: str, *groups: str) -> Paper:
        """What a user of groups shows."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        return self._issue(f"client-{user}", subject, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(
        self, stem: str, subject: x509.Name, purpose: x509.ObjectIdentifier, *more: str
    ) -> Paper:
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = [x509.DNSName(name) for name in ("localhost", *more)]
        names = [x509.IPAddress(ip_address(LOOPBACK)), *hosts]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = (
            _begun(subject, self.certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)
            .sign(self.key, hashes.SHA256())
        )
        paper = Paper(self.folder / f"{stem}.crt", self.folder / f"{stem}.key")
        paper.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        paper.key.write_bytes(pem(key))
        return paper


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + AGES)
        .add_extension(own, critical=False)
    )
