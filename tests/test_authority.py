"""The built-in authority: its root, the leaves it signs, and who believes them."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtensionOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.certificates.authority import LocalAuthority, root
from meshfed.federation.certificates.issuer import Names, Unissuable
from meshfed.federation.certificates.keypair import Keypair, issue, pem, request
from meshfed.federation.certificates.keys import Seal, Unsealable

DOMAIN = "shop.example"
WEB = Names(f"spiffe://{DOMAIN}/ns/shop/sa/web")
STORE = Names(f"spiffe://{DOMAIN}/ns/shop/sa/store", dns=f"0123abcd.workload.{DOMAIN}")
DAY = timedelta(days=1)
Root = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
NOW = datetime(2026, 8, 1, tzinfo=UTC)


class Memory:
    """A safe that forgets when the process ends."""

    def __init__(self) -> None:
        self.standing: tuple[str, bytes] | None = None

    async def authority(self) -> tuple[str, bytes] | None:
        await asyncio.sleep(0)  # as a database would, it lets others in
        return self.standing

    async def keep_authority(self, certificate_pem: str, sealed_key: bytes) -> tuple[str, bytes]:
        self.standing = self.standing or (certificate_pem, sealed_key)
        return self.standing


def authority(now: datetime = NOW, born: datetime = NOW) -> LocalAuthority:
    return LocalAuthority(*root(DOMAIN, born), clock=now.timestamp)


async def signed(
    by: LocalAuthority, names: Names = WEB, lifetime: timedelta = DAY
) -> x509.Certificate:
    csr = request(ec.generate_private_key(ec.SECP256R1()))
    return (await by.sign(csr, names, lifetime))[0]


def secret_of(pkcs8: bytes) -> bytes:
    key = serialization.load_der_private_key(pkcs8, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32, "big")


async def test_the_root_is_made_once_and_stands_sealed(tmp_path: Path) -> None:
    safe, seal = Memory(), Seal(tmp_path / "meshfed.key")
    first = await LocalAuthority.open(trust_domain=DOMAIN, safe=safe, seal=seal)
    again = await LocalAuthority.open(trust_domain=DOMAIN, safe=safe, seal=seal)
    assert await first.roots() == await again.roots()
    assert safe.standing
    assert seal.open(safe.standing[1]) not in safe.standing[1]


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("meshfed.db*"))


async def test_a_dump_of_the_catalog_contains_no_private_key(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/meshfed.db"
    await asyncio.to_thread(migrate, url)
    seal = Seal(tmp_path / "meshfed.key")
    with closing(Catalog(url)) as catalog:
        by = await LocalAuthority.open(trust_domain=DOMAIN, safe=catalog, seal=seal)
        stands = await catalog.authority()
        dump = content(tmp_path)  # while it is open: the write-ahead log belongs to it
    assert stands
    assert pem(await by.roots()).encode() in dump
    clear = seal.open(stands[1])
    assert stands[1] in dump
    assert b"PRIVATE KEY" not in dump
    assert clear not in dump
    assert secret_of(clear) not in dump


async def test_replicas_that_start_together_share_one_root(tmp_path: Path) -> None:
    safe, seal = Memory(), Seal(tmp_path / "meshfed.key")
    opening = (LocalAuthority.open(trust_domain=DOMAIN, safe=safe, seal=seal) for _ in range(3))
    roots = [await each.roots() for each in await asyncio.gather(*opening)]
    assert len(set(roots)) == 1


async def test_a_root_sealed_with_another_key_is_not_replaced(tmp_path: Path) -> None:
    safe = Memory()
    await LocalAuthority.open(trust_domain=DOMAIN, safe=safe, seal=Seal(tmp_path / "a.key"))
    stood = safe.standing
    with pytest.raises(Unsealable, match=r"b\.key: the key that opens the root key is missing"):
        await LocalAuthority.open(trust_domain=DOMAIN, safe=safe, seal=Seal(tmp_path / "b.key"))
    assert safe.standing == stood


async def test_another_trust_domain_s_root_is_refused(tmp_path: Path) -> None:
    safe, seal = Memory(), Seal(tmp_path / "meshfed.key")
    await LocalAuthority.open(trust_domain=DOMAIN, safe=safe, seal=seal)
    with pytest.raises(Unissuable, match=r"is b\.example, but .* is for spiffe://shop\.example: "):
        await LocalAuthority.open(trust_domain="b.example", safe=safe, seal=seal)


def test_the_root_signs_leaves_only_for_ten_years() -> None:
    certificate, _ = root(DOMAIN, NOW)
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert certificate.not_valid_after_utc == NOW.replace(year=NOW.year + 10)
    assert certificate.subject == certificate.issuer
    certificate.verify_directly_issued_by(certificate)


def test_two_roots_of_one_trust_domain_have_different_names() -> None:
    assert root(DOMAIN, NOW)[0].subject != root(DOMAIN, NOW)[0].subject


async def test_a_leaf_names_its_key_and_its_issuer_s() -> None:
    by = authority()
    (issuer,) = await by.roots()
    leaf = await signed(by)
    ours = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    theirs = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert ours.key_identifier == theirs.digest
    assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).critical
    assert leaf.subject == x509.Name([])


async def test_a_leaf_begins_early_for_clocks_that_differ() -> None:
    leaf = await signed(authority())
    assert timedelta(minutes=1) <= NOW - leaf.not_valid_before_utc <= timedelta(minutes=5)
    assert leaf.not_valid_after_utc == NOW + DAY


async def test_a_leaf_ends_with_its_root() -> None:
    late = NOW.replace(year=NOW.year + 10) - timedelta(hours=1)
    leaf = await signed(authority(now=late, born=NOW), lifetime=DAY)
    assert leaf.not_valid_after_utc == late + timedelta(hours=1)


async def test_a_root_that_ended_signs_nothing() -> None:
    with pytest.raises(Unissuable, match="root ended at 2036-08-01"):
        await signed(authority(now=NOW.replace(year=NOW.year + 11), born=NOW))


async def test_a_clock_that_stands_before_the_root_signs_nothing() -> None:
    with pytest.raises(Unissuable, match="says 2026-07-31 00:00:00Z, before the root began"):
        await signed(authority(now=NOW - DAY, born=NOW))


async def test_a_key_that_envoy_does_not_take_is_refused() -> None:
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
    csr = builder.sign(ed25519.Ed25519PrivateKey.generate(), None)
    with pytest.raises(Unissuable, match="none that Envoy takes"):
        await authority().sign(csr, WEB, DAY)


@pytest.mark.parametrize(
    ("leaf_by", "at"),
    [
        pytest.param(authority(), NOW + DAY + timedelta(seconds=1), id="an expired one"),
        pytest.param(authority(), NOW - timedelta(hours=1), id="one that is not valid yet"),
        pytest.param(authority(), NOW, id="one by another root of the same trust domain"),
    ],
)
async def test_what_is_not_to_be_believed_is_not_verified(
    leaf_by: LocalAuthority, at: datetime, request: pytest.FixtureRequest
) -> None:
    other = "another root" in request.node.callspec.id
    roots = await (authority() if other else leaf_by).roots()
    verifier = PolicyBuilder().store(Store(list(roots))).time(at).build_client_verifier()
    with pytest.raises(VerificationError):
        verifier.verify(await signed(leaf_by), [])


def openssl(folder: Path, roots: str, leaf: str, *arguments: str) -> str:
    (folder / "roots.pem").write_text(roots)
    (folder / "leaf.pem").write_text(leaf)
    command = ["openssl", "verify", "-x509_strict", "-CAfile", "roots.pem", *arguments, "leaf.pem"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.skipif(not which("openssl"), reason="no openssl command on this machine")
async def test_openssl_agrees(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ours, theirs = authority(now, now), authority(now, now)
    roots, leaf = pem(await ours.roots()), pem((await signed(ours, STORE),))
    host = ("-verify_hostname", STORE.dns)
    assert "leaf.pem: OK" in openssl(tmp_path, roots, leaf, "-purpose", "sslclient")
    assert "leaf.pem: OK" in openssl(tmp_path, roots, leaf, "-purpose", "sslserver", *host)
    foreign = pem((await signed(theirs),))
    assert "unable to get local issuer certificate" in openssl(tmp_path, roots, foreign)
    later = str(int((now + 2 * DAY).timestamp()))
    assert "certificate has expired" in openssl(tmp_path, roots, leaf, "-attime", later)


def context(side: int, pair: Keypair, roots: str, folder: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=roots)
    (folder / "pair.pem").write_text(pair.key_pem + pair.chain_pem)
    made.load_cert_chain(folder / "pair.pem")
    return made


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, object] | None:
    """What the server learns of the client, over memory instead of a socket."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].getpeercert()


async def test_both_sides_of_a_connection_learn_who_the_other_is(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    by = authority(now, now)
    roots = pem(await by.roots())
    pairs = [await issue(by, names, DAY, now.timestamp) for names in (WEB, STORE)]
    seen = handshake(
        context(ssl.PROTOCOL_TLS_CLIENT, pairs[0], roots, tmp_path),
        context(ssl.PROTOCOL_TLS_SERVER, pairs[1], roots, tmp_path),
    )
    assert seen
    assert seen["subjectAltName"] == (("URI", WEB.uri),)


async def test_a_stranger_does_not_get_in(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ours, theirs = authority(now, now), authority(now, now)
    roots = pem(await ours.roots())
    stranger = await issue(theirs, WEB, DAY, now.timestamp)
    server = await issue(ours, STORE, DAY, now.timestamp)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(
            context(ssl.PROTOCOL_TLS_CLIENT, stranger, roots, tmp_path),
            context(ssl.PROTOCOL_TLS_SERVER, server, roots, tmp_path),
        )


@pytest.fixture
async def door() -> AsyncIterator[tuple[Root, int, Future[Mapping[str, list[bytes]]]]]:
    """A gRPC server that asks for our certificates, and what it learns of its first caller."""
    ours = root(DOMAIN, datetime.now(UTC) - 2 * DAY)
    by = LocalAuthority(*ours)
    seen: Future[Mapping[str, list[bytes]]] = Future()

    async def hello(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen.set_result(context.auth_context())
        return b"hello"

    pair = await issue(by, STORE, DAY, time.time)
    server = grpc.aio.server()
    handlers = {"hello": grpc.unary_unary_rpc_method_handler(hello)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("door", handlers)])
    port = server.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials(
            [(pair.key_pem.encode(), pair.chain_pem.encode())],
            pem(ours[:1]).encode(),
            require_client_auth=True,
        ),
    )
    await server.start()
    yield ours, port, seen
    await server.stop(None)


async def knock(port: int, pair: Keypair, roots: str) -> bytes:
    credentials = grpc.ssl_channel_credentials(
        roots.encode(), pair.key_pem.encode(), pair.chain_pem.encode()
    )
    named = [("grpc.ssl_target_name_override", STORE.dns)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, named) as channel:
        return await channel.unary_unary("/door/hello")(b"", timeout=5)


async def test_grpc_learns_the_uri_and_the_dns_name_of_its_client(door) -> None:
    ours, port, seen = door
    proxy = Names(WEB.uri, dns=f"4567cdef.workload.{DOMAIN}")
    pair = await issue(LocalAuthority(*ours), proxy, DAY, time.time)
    assert await knock(port, pair, pem(ours[:1])) == b"hello"
    assert seen.result()["peer_uri"] == [proxy.uri.encode()]
    assert seen.result()["peer_dns"] == [proxy.dns.encode()]


@pytest.mark.parametrize(
    ("ours", "ago"),
    [
        pytest.param(True, DAY, id="a certificate that expired"),
        pytest.param(False, timedelta(), id="another root's certificate"),
    ],
)
async def test_grpc_does_not_let_in(door, ours: bool, ago: timedelta) -> None:
    theirs, port, seen = door
    then = datetime.now(UTC) - ago
    by = LocalAuthority(*(theirs if ours else root(DOMAIN, then)), clock=then.timestamp)
    pair = await issue(by, WEB, timedelta(hours=1), then.timestamp)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await knock(port, pair, pem(theirs[:1]))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not seen.done()
