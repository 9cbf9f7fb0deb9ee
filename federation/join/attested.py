"""Whether a document is what Azure attests of one of its machines, and what it says.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#attested-data
PKCS#7 carries certificates as an unordered bag, and whoever makes one may put anything there. So
what counts is the one signer that is named, its signature over the very bytes that are then read,
and a chain from it to a root.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from meshfed.federation.join.request import MALFORMED

SHA256 = "2.16.840.1.101.3.4.2.1"
SHA256_RSA = "1.2.840.113549.1.1.11"  # Azure names this where SHA-256 belongs
DOMAINS = ("metadata.azure.com",)  # of the public cloud
MOMENT = "%m/%d/%y %H:%M:%S %z"  # 11/28/26 00:16:17 -0000
SMALLEST = 2048  # bits of a key
# What two parsers raise of bytes that strangers chose.
UNREADABLE = (*MALFORMED, KeyError, IndexError, AttributeError, OverflowError)


class Unattested(ValueError):
    """Azure attests no such thing; one line."""


@dataclass(frozen=True, slots=True)
class Attested:
    """What is known of a machine then. Nothing of its name, its group and its addresses is."""

    vm_id: str
    subscription: str
    nonce: str


def attested(
    document: bytes, intermediates: Sequence[x509.Certificate], store: Store, now: datetime
) -> Attested:
    """From DER. The nonce is for the caller to judge. Raises Unattested."""
    try:
        leaf, content, bag = _signed(document)
    except UNREADABLE as error:
        raise Unattested("not PKCS#7 with one signer and its certificate") from error
    except InvalidSignature as error:
        raise Unattested("not signed by the certificate that it names") from error
    _issued(leaf, [*intermediates, *bag], store, now)
    return _said(content, now)


def _signed(document: bytes) -> tuple[x509.Certificate, bytes, list[x509.Certificate]]:
    """The signer's certificate, the bytes it signed, and the others. Raises what parsers raise."""
    info = cms.ContentInfo.load(document, strict=True)
    if info["content_type"].native != "signed_data":
        raise ValueError("no signed data")
    signed = info["content"]
    (signer,) = signed["signer_infos"]
    if signed["encap_content_info"]["content_type"].native != "data":
        raise ValueError("no data")
    content = bytes(signed["encap_content_info"]["content"].native)
    bag = [each.chosen for each in signed["certificates"]]
    (named,) = [each for each in bag if _named(each, signer["sid"])]
    if signer["digest_algorithm"]["algorithm"].dotted not in (SHA256, SHA256_RSA):
        raise ValueError("not SHA-256")
    leaf = x509.load_der_x509_certificate(named.dump())
    key = leaf.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < SMALLEST:
        raise ValueError("not RSA, or too short")
    covered = content
    if len(attributes := signer["signed_attrs"]):
        # RFC 5652, section 5.4: then those are signed, and they hold the digest of the content.
        (digest,) = [each for each in attributes if each["type"].native == "message_digest"]
        if [each.native for each in digest["values"]] != [sha256(content).digest()]:
            raise InvalidSignature
        covered = attributes.untag().dump()
    key.verify(signer["signature"].native, covered, padding.PKCS1v15(), hashes.SHA256())
    others = [x509.load_der_x509_certificate(each.dump()) for each in bag if each is not named]
    return leaf, content, others


def _named(certificate: object, sid: object) -> bool:
    """Whether a signer is named by this certificate's issuer and serial, or by its key."""
    chosen = sid.chosen  # type: ignore[attr-defined]  # asn1crypto ships no types
    if sid.name == "issuer_and_serial_number":  # type: ignore[attr-defined]
        same = certificate.serial_number == chosen["serial_number"].native  # type: ignore[attr-defined]
        return bool(same and certificate.issuer == chosen["issuer"])  # type: ignore[attr-defined]
    return bool(certificate.key_identifier == chosen.native)  # type: ignore[attr-defined]


def _issued(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], store: Store, now: datetime
) -> None:
    """Raises Unattested."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, *MALFORMED) as error:
        raise Unattested("its signer's certificate has no name") from error
    name = next((each for each in found if _azure(each)), None)
    if name is None:
        raise Unattested(f"its signer is {', '.join(found)[:100]}, which is not Azure's")
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(leaf, list(others))
    except VerificationError as error:
        raise Unattested(
            "its signer's certificate leads to no root of Azure, or has ended"
        ) from error


def _azure(name: str) -> bool:
    return any(name == domain or name.endswith(f".{domain}") for domain in DOMAINS)


def _said(content: bytes, now: datetime) -> Attested:
    """Raises Unattested."""
    try:
        said = json.loads(content)
        written = said["timeStamp"]["expiresOn"]
        ends = datetime.strptime(written, MOMENT)  # noqa: DTZ007  # it has %z
        found = Attested(*(said[name] for name in ("vmId", "subscriptionId", "nonce")))
        if not all(isinstance(each, str) and each for each in (found.vm_id, found.subscription)):
            raise ValueError("no machine")
    except (ValueError, KeyError, TypeError) as error:
        raise Unattested("signed, but no document of a machine") from error
    if ends <= now.astimezone(UTC):
        raise Unattested(f"ended at {ends.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return found
