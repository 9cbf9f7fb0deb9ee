"""What Azure attests of a machine, for tests: documents as it makes them, signed with own keys."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(4)]
ROOT_KEY, INTER_KEY, LEAF_KEY, EVIL_KEY = KEYS


def name(of: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, of)])


def certificate(
    subject: str,
    key: rsa.RSAPrivateKey,
    issuer: str,
    signed_by: rsa.RSAPrivateKey,
    sans: Sequence[str] = (),
    ends: datetime = NOW + 30 * DAY,
) -> x509.Certificate:
    """An authority, unless it has names."""
    authority = not sans
    usage = x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder(
            name(issuer), name(subject), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key()),
            critical=False,
        )
        .add_extension(usage, critical=True)
    )
    if sans:
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        names = x509.SubjectAlternativeName([x509.DNSName(each) for each in sans])
        made = made.add_extension(server, critical=False).add_extension(names, critical=False)
    return made.sign(signed_by, hashes.SHA256())


ROOT = certificate("root", ROOT_KEY, "root", ROOT_KEY)
INTER = certificate("inter", INTER_KEY, "root", ROOT_KEY)
AZURE = ("westeurope.metadata.azure.com", "metadata.azure.com")
LEAF = certificate("azure", LEAF_KEY, "inter", INTER_KEY, AZURE)
FEW, NONE = pkcs7.PKCS7Options.NoCapabilities, pkcs7.PKCS7Options.NoAttributes


@dataclass(frozen=True)
class Document:
    """What is signed, by whom, and what lies beside it."""

    vm_id: str = "vm-1"
    subscription: str = "sub-1"
    nonce: str = "n-1"
    ends: datetime = NOW + timedelta(hours=6)
    signer: x509.Certificate = LEAF
    key: rsa.RSAPrivateKey = LEAF_KEY
    beside: tuple[x509.Certificate, ...] = ()
    attributes: bool = False

    @property
    def der(self) -> bytes:
        said = {
            "nonce": self.nonce,
            "vmId": self.vm_id,
            "subscriptionId": self.subscription,
            "timeStamp": {"expiresOn": self.ends.strftime("%m/%d/%y %H:%M:%S -0000")},
        }
        builder = pkcs7.PKCS7SignatureBuilder().set_data(json.dumps(said).encode())
        builder = builder.add_signer(self.signer, self.key, hashes.SHA256())
        for each in self.beside:
            builder = builder.add_certificate(each)
        options = [pkcs7.PKCS7Options.Binary]
        options.append(
            pkcs7.PKCS7Options.NoCapabilities
            if self.attributes
            else pkcs7.PKCS7Options.NoAttributes
        )
        return builder.sign(serialization.Encoding.DER, options)
