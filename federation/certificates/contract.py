"""The suite every issuer passes, ours and others'.

class TestMine(IssuerContract):
    async def issuer(self) -> Issuer:
        return await Mine.open(trust_domain="mesh.example", safe=…, seal=…)
"""

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from meshfed.federation.certificates.issuer import Issuer, Names, Unissuable

WEB = Names("spiffe://mesh.example/ns/shop/sa/web")
SERVED = Names("spiffe://mesh.example/meshfed/control-plane", hosts=("mesh.example", "192.0.2.7"))
STORE = Names("spiffe://mesh.example/ns/shop/sa/store", dns="0123abcd.workload.mesh.example")
HOUR = timedelta(hours=1)
SIGNATURE = 8  # bytes from the end, inside the signature


def request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *claims: str
) -> x509.CertificateSigningRequest:
    """A request that also claims some names, as requests may."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, claim) for claim in claims])
    builder = x509.CertificateSigningRequestBuilder(subject_name=subject)
    if claims:
        names = x509.SubjectAlternativeName([x509.DNSName(claim) for claim in claims])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


def names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return list(found.value)


class IssuerContract(ABC):
    """Subclass it as `Test…` and say how the issuer is made; `mesh.example` is its trust domain."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def issuer(self) -> Issuer:
        """The issuer under test; every call opens it again, as another replica would."""

    async def signed(
        self, names: Names = WEB, lifetime: timedelta = HOUR, *claims: str
    ) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = await (await self.issuer()).sign(request(key, *claims), names, lifetime)
        assert chain[0].public_key() == key.public_key(), "the leaf is for the request's key"
        return chain[0]

    async def test_it_is_an_issuer(self) -> None:
        assert isinstance(await self.issuer(), Issuer)

    async def test_the_chain_leads_to_the_roots_that_every_replica_has(self) -> None:
        csr = request(ec.generate_private_key(ec.SECP256R1()))
        leaf, *between = await (await self.issuer()).sign(csr, STORE, HOUR)
        verifier = PolicyBuilder().store(Store(list(await (await self.issuer()).roots())))
        verifier.build_client_verifier().verify(leaf, between)
        verifier.build_server_verifier(x509.DNSName(STORE.dns)).verify(leaf, between)

    async def test_it_says_exactly_the_names_it_was_asked_for(self) -> None:
        assert names(await self.signed(WEB)) == [x509.UniformResourceIdentifier(WEB.uri)]
        assert names(await self.signed(STORE)) == [
            x509.UniformResourceIdentifier(STORE.uri),
            x509.DNSName(STORE.dns),
        ]
        assert names(await self.signed(SERVED)) == [
            x509.UniformResourceIdentifier(SERVED.uri),
            x509.DNSName("mesh.example"),
            x509.IPAddress(IPv4Address("192.0.2.7")),
        ]

    async def test_names_that_the_request_claims_are_ignored(self) -> None:
        leaf = await self.signed(WEB, HOUR, "root.mesh.example")
        assert names(leaf) == [x509.UniformResourceIdentifier(WEB.uri)]
        assert b"root.mesh.example" not in leaf.public_bytes(serialization.Encoding.DER)

    async def test_it_is_good_for_both_sides_of_a_connection_and_nothing_else(self) -> None:
        extensions = (await self.signed()).extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert {*usage} == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign

    async def test_it_lives_no_longer_than_asked_and_is_valid_now(self) -> None:
        leaf = await self.signed(lifetime=HOUR)
        now = datetime.now(UTC)
        assert leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc <= now + HOUR

    async def test_no_leaf_outlives_its_root(self) -> None:
        leaf = await self.signed(lifetime=timedelta(days=100 * 365))
        ends = [root.not_valid_after_utc for root in await (await self.issuer()).roots()]
        assert leaf.not_valid_after_utc <= max(ends)

    async def test_no_serial_is_used_twice(self) -> None:
        assert len({(await self.signed()).serial_number for _ in range(3)}) == 3

    async def test_a_request_not_signed_with_its_own_key_is_refused(self) -> None:
        der = bytearray(
            request(ec.generate_private_key(ec.SECP256R1())).public_bytes(
                serialization.Encoding.DER
            )
        )
        der[-SIGNATURE] ^= 1
        forged = x509.load_der_x509_csr(bytes(der))
        with pytest.raises(Unissuable):
            await (await self.issuer()).sign(forged, WEB, HOUR)

    async def test_a_key_that_is_too_small_is_refused(self) -> None:
        weak = request(rsa.generate_private_key(65537, 1024))
        with pytest.raises(Unissuable):
            await (await self.issuer()).sign(weak, WEB, HOUR)

    async def test_a_lifetime_of_nothing_is_refused(self) -> None:
        with pytest.raises(Unissuable):
            await self.signed(lifetime=timedelta())
