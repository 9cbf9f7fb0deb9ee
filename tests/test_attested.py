"""Attested documents with own keys: the genuine one, and every forgery that we know of."""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime

import pytest
from asn1crypto import cms
from attesting import (
    AZURE,
    DAY,
    EVIL_KEY,
    INTER,
    INTER_KEY,
    LEAF,
    LEAF_KEY,
    NOW,
    ROOT,
    Document,
    certificate,
)
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import Store
from hypothesis import given, settings
from hypothesis import strategies as st

from meshfed.federation.join.attested import SHA256_RSA, Attested, Unattested, attested
from meshfed.federation.join.nonce import LIFE, Nonces

STORE = Store([ROOT])
EDITS = st.tuples(st.integers(0, 10_000), st.integers(0, 255))


def read(der: bytes, *intermediates: x509.Certificate, now: datetime = NOW) -> Attested:
    return attested(der, intermediates or [INTER], STORE, now)


GENUINE = Document()


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(GENUINE, id="as Azure makes them"),
        pytest.param(Document(attributes=True), id="with signed attributes"),
        pytest.param(Document(beside=(INTER, ROOT)), id="with its chain in the bag"),
    ],
)
def test_a_genuine_one_says_which_machine(document: Document) -> None:
    assert read(document.der) == Attested("vm-1", "sub-1", "n-1")


def test_azure_s_own_name_for_the_digest_is_understood() -> None:
    assert read(edited(GENUINE.der, digest)) == Attested("vm-1", "sub-1", "n-1")


def edited(der: bytes, edit: Callable[[cms.SignedData], None]) -> bytes:
    info = cms.ContentInfo.load(der)
    edit(info["content"])
    return bytes(info.dump(force=True))


def digest(signed: cms.SignedData) -> None:
    signed["signer_infos"][0]["digest_algorithm"]["algorithm"] = SHA256_RSA


def other_machine(document: Document) -> bytes:
    return document.der.replace(b"vm-1", b"vm-2")


def twice(signed: cms.SignedData) -> None:
    signed["signer_infos"].append(signed["signer_infos"][0].copy())


def unsigned(signed: cms.SignedData) -> None:
    del signed["signer_infos"][0]


def genuine_first(signed: cms.SignedData) -> None:
    """The bag is unordered: who looks at its first certificate alone sees Azure's."""
    theirs = cms.CertificateChoices.load(LEAF.public_bytes(serialization.Encoding.DER))
    own = list(signed["certificates"])
    signed["certificates"] = cms.CertificateSet([theirs, *own])


def named_genuine(signed: cms.SignedData) -> None:
    """Azure's certificate is named for the signer, though another key has signed."""
    genuine_first(signed)
    theirs = cms.CertificateChoices.load(LEAF.public_bytes(serialization.Encoding.DER)).chosen
    signed["signer_infos"][0]["sid"] = cms.SignerIdentifier(
        "issuer_and_serial_number",
        {"issuer": theirs.issuer, "serial_number": theirs.serial_number},
    )


def named(*sans: str, ends: datetime = NOW + DAY) -> Document:
    """Signed by a genuine authority for these names."""
    return Document(signer=certificate("x", LEAF_KEY, "inter", INTER_KEY, sans, ends))


EVIL = certificate("azure", EVIL_KEY, "azure", EVIL_KEY, AZURE)
FORGED = Document(vm_id="vm-2", signer=EVIL, key=EVIL_KEY)
NOWHERE = "leads to no root of Azure, or has ended"
MALFORMED = "not PKCS#7 with one signer and its certificate"
FORGERIES = {
    "another machine written into it": (other_machine(GENUINE), "not signed by"),
    "the same with signed attributes": (
        other_machine(Document(attributes=True)),
        "not signed by",
    ),
    "signed by oneself": (FORGED.der, NOWHERE),
    "with Azure's certificate beside": (edited(FORGED.der, genuine_first), NOWHERE),
    "with Azure's certificate named": (edited(FORGED.der, named_genuine), "not signed by"),
    "two signers": (edited(GENUINE.der, twice), MALFORMED),
    "no signer": (edited(GENUINE.der, unsigned), MALFORMED),
    "ended": (Document(ends=NOW).der, "ended at"),
    "by an ended certificate": (named("metadata.azure.com", ends=NOW - DAY).der, NOWHERE),
    "by another site": (named("example.com").der, "which is not Azure's"),
    "by a name that ends alike": (named("evilmetadata.azure.com").der, "which is not Azure's"),
    "by a name that begins alike": (named("metadata.azure.com.evil.com").der, "not Azure's"),
    "cut short": (GENUINE.der[:-1], MALFORMED),
    "with more behind it": (GENUINE.der + b"\0", MALFORMED),
    "empty": (b"", MALFORMED),
    "text": (b"let me in", MALFORMED),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_refused_in_one_line(forgery: str) -> None:
    der, why = FORGERIES[forgery]
    with pytest.raises(Unattested, match=why):
        read(der)


def test_without_the_authority_between_it_leads_nowhere() -> None:
    with pytest.raises(Unattested, match=NOWHERE):
        read(GENUINE.der, EVIL)


def test_another_root_is_no_root_of_azure() -> None:
    with pytest.raises(Unattested, match=NOWHERE):
        attested(GENUINE.der, [INTER], Store([EVIL]), NOW)


DER = GENUINE.der


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_whatever_is_changed_in_it_it_says_the_same_or_is_refused(
    edits: list[tuple[int, int]],
) -> None:
    der = bytearray(DER)
    for at, value in edits:
        der[at % len(der)] = value
    try:
        said = read(bytes(der))
    except Unattested:
        return
    assert said == Attested("vm-1", "sub-1", "n-1")


def test_a_nonce_is_good_for_five_minutes_at_every_replica_of_one_key() -> None:
    one, other, stranger = Nonces(b"key"), Nonces(b"key"), Nonces()
    nonce = one.made(1000.0)
    assert len(nonce) == 32
    assert other.good(nonce, 1000.0 + LIFE)
    assert not other.good(nonce, 1000.0 + LIFE + 1)
    assert not other.good(nonce, 998.0)
    assert not stranger.good(nonce, 1000.0)
    for wrong in ("", "n-1", nonce[:-4], "é", urlsafe_b64encode(b"\0" * 24).decode()):
        assert not one.good(wrong, 1000.0)
