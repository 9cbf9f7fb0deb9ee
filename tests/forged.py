"""Certificates that the mesh did not issue."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshfed.federation.certificates.keypair import key_pem

# Certificates that the mesh did not issue.


def self_signed(name: x509.GeneralName) -> tuple[bytes, bytes]:
    """A certificate and its key; PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "of its own making")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key).encode()


def carrying(context: ssl.SSLContext, certificate: bytes, key: bytes) -> ssl.SSLContext:
    with TemporaryDirectory() as name:
        file = Path(name) / "both.pem"
        file.write_bytes(certificate + key)
        context.load_cert_chain(file)
    return context


def own_tls(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """An application's own TLS: what it serves with, and what its callers trust."""
    certificate, key = self_signed(x509.DNSName(host))
    served = carrying(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), certificate, key)
    return served, ssl.create_default_context(cadata=certificate.decode())


def no_papers() -> ssl.SSLContext:
    """A client that believes anything, and has nothing to show."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def forged_papers(uri: str) -> ssl.SSLContext:
    """The right name, signed by nobody that the mesh knows."""
    return carrying(no_papers(), *self_signed(x509.UniformResourceIdentifier(uri)))


def client_hello(host: str) -> bytes:
    """The first bytes of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = no_papers().wrap_bio(incoming, outgoing, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()
