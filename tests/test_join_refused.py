"""Joining with a real `serve` and real TLS: who is not let in."""

import asyncio
import http.client
import shutil
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import live
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from forged import forged_papers
from hypothesis import given, settings
from hypothesis import strategies as st
from joining import WEB, Ground, grounded

from meshfed.catalog.joins import Joins
from meshfed.catalog.model import Identity
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.catalog.tokens import Token
from meshfed.federation.bootstrap import bootstrap
from meshfed.federation.certificates.keypair import request
from meshfed.federation.join.machine import join, leave
from meshfed.federation.join.methods import ByCertificate, Caller
from meshfed.federation.join.pace import MOST, WINDOW, Pace
from meshfed.federation.join.request import Refused, signing_request
from meshfed.federation.join.secret import Secret
from meshfed.federation.register import register
from meshfed.providers.registered import Registration
from meshfed.xds.peer import Peer

HOSTS = """
hosts:
  - {name: buyer, address: 127.0.80.1, identity: buyer.live}
"""
REFUSALS = 5


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with grounded(tmp_path_factory.mktemp("join"), HOSTS, "127.0.80", refusals=REFUSALS) as ground:
        yield ground


KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = request(KEY)


def pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(Encoding.PEM).decode()


def enclosed(der: bytes) -> str:
    label = "CERTIFICATE REQUEST"
    return f"-----BEGIN {label}-----\n{b64encode(der).decode()}\n-----END {label}-----\n"


def asking(*names: x509.GeneralName, subject: str = "") -> str:
    """A request that claims names."""
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder(x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return pem(builder.sign(KEY, hashes.SHA256()))


def by(token: str, **more: object) -> dict[str, object]:
    said = {"csr": pem(GOOD), "token": token, "untrusted_name": "thief"}
    return {**said, "untrusted_addresses": ["192.0.2.66"], **more}


def other_key() -> str:
    """A request whose signature is of another key than its own."""
    der = bytearray(GOOD.public_bytes(Encoding.DER))
    der[-1] ^= 1
    return enclosed(bytes(der))


def rsa_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return pem(x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256()))


def replayed(ground: Ground) -> tuple[int, str]:
    token = ground.token()
    ground.joined("honest", token)
    return ground.asks(by(token))


def expired(ground: Ground) -> tuple[int, str]:
    secret = Secret.made(b"\0" * 32)
    ended = "2001-01-01T00:00:00.000Z"
    token = Token(secret.id, secret.hash, Identity.parse(WEB), (), 1, ended)
    ground.catalog(lambda joins: joins.create(token, "a test"))
    return ground.asks(by(secret.text))


def revoked(ground: Ground) -> tuple[int, str]:
    token = ground.token()
    ground.catalog(lambda joins: joins.revoke(Secret.parse(token).id, "a test"))
    return ground.asks(by(token))


def other_secret(ground: Ground) -> tuple[int, str]:
    return ground.asks(by(replace(Secret.parse(ground.token()), secret=b"\1" * 32).text))


def listed(ground: Ground) -> tuple[int, str]:
    """A certificate of a workload that never joined: `proxy bootstrap` made it."""
    papers = ground.folder / "listed"
    asyncio.run(bootstrap(ground.settings, "buyer", papers))
    return ground.asks({"csr": pem(GOOD)}, papers)


def stolen(ground: Ground) -> tuple[int, str]:
    """The papers of a machine that was deregistered since."""
    papers = ground.joined("stolen")

    async def deregister() -> None:
        with closing(Catalog(ground.url)) as catalog:
            await catalog.deregister("stolen", "a test")

    asyncio.run(deregister())
    return ground.asks({"csr": pem(GOOD)}, papers.folder)


def turned(ground: Ground) -> tuple[int, str]:
    """The papers of a machine whose name is somebody else's since."""
    papers = ground.joined("turned")
    kept = ground.folder / "kept"
    shutil.copytree(papers.folder, kept)
    leave(replace(ground.server, roots=papers.bundle), papers)
    ground.joined("turned", ground.token(identity="other.live"))
    return ground.asks({"csr": pem(GOOD)}, kept)


def copied(ground: Ground) -> tuple[int, str]:
    """Papers from before the machine left and joined again, as the same."""
    papers = ground.joined("again")
    kept = ground.folder / "kept-again"
    shutil.copytree(papers.folder, kept)
    leave(replace(ground.server, roots=papers.bundle), papers)
    ground.joined("again")
    return ground.asks({"csr": pem(GOOD)}, kept)


def by_hand(ground: Ground) -> tuple[int, str]:
    """Papers of a workload that was registered by hand, and never joined."""
    papers = ground.folder / "by-hand"

    async def made() -> None:
        said = Registration(name="hand", address=["192.0.2.10"], identity=WEB)
        with closing(Catalog(ground.url)) as catalog:
            await register(catalog, said, "a test")
        await bootstrap(ground.settings, "hand", papers)

    asyncio.run(made())
    return ground.asks({"csr": pem(GOOD)}, papers)


def beating(ground: Ground) -> tuple[int, str]:
    """A sign of life by papers from before the last renewal but one."""
    papers = ground.joined("beating")
    kept = ground.folder / "kept-beating"
    shutil.copytree(papers.folder, kept)
    for _ in range(2):
        join(replace(ground.server, roots=papers.bundle), papers.folder, {}, papers)
    return ground.asks({}, kept, path="/v1/lease")


def unleased(ground: Ground) -> tuple[int, str]:
    """A sign of life of a workload that was registered by hand."""
    by_hand(ground)
    return ground.asks({}, ground.folder / "by-hand", path="/v1/lease")


Attack = Callable[[Ground], tuple[int, str]]


def lying(**more: object) -> Attack:
    """What no agent says, of one that joined."""

    def asks(ground: Ground) -> tuple[int, str]:
        if not (ground.folder / "liar").exists():
            ground.joined("liar")
        return ground.asks(more, ground.folder / "liar", path="/v1/lease")

    return asks


def said(**more: object) -> Attack:
    """With a token that stands: all that is wrong is this."""
    return lambda ground: ground.asks(by(ground.standing, **more))


def spiffe(who: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"spiffe://{live.DOMAIN}/ns/live/sa/{who}")


CUT = GOOD.public_bytes(Encoding.DER)[:-20]
ATTACKS: Mapping[str, tuple[Attack, int, str]] = {
    "a replayed token": (replayed, 401, "was used 1 of 1 times"),
    "an expired token": (expired, 401, "ended at 2001"),
    "a revoked token": (revoked, 401, "was revoked at"),
    "another secret": (other_secret, 401, "token: unknown"),
    "a token that is none": (lambda g: g.asks(by(Secret.made(b"\0" * 32).text)), 401, "unknown"),
    "a token cut short": (lambda g: g.asks(by(g.standing[:-5])), 401, "not a whole join token"),
    "a password": (lambda g: g.asks(by("hunter2")), 401, "not a join token"),
    "nothing to show": (lambda g: g.asks(by("")), 401, "neither a token nor a certificate"),
    "another identity asked": (said(identity="bank.live"), 400, "identity: Extra inputs"),
    "other services asked": (said(service=["bank.live:80"]), 400, "service: Extra inputs"),
    "a CSR with another identity": (said(csr=asking(spiffe("bank"))), 403, "asks for names"),
    "a CSR with another workload": (said(csr=asking(x509.DNSName("a.b"))), 403, "asks for names"),
    "a CSR with a subject": (said(csr=asking(subject="admin")), 403, "asks for names"),
    "a CSR of another's key": (said(csr=other_key()), 400, "not signed with its own key"),
    "a CSR for RSA": (said(csr=rsa_key()), 400, "not ECDSA"),
    "malformed ASN.1": (said(csr=enclosed(CUT)), 400, "not a PKCS#10 request"),
    "no ASN.1 at all": (said(csr=enclosed(b"\xff" * 64)), 400, "not a PKCS#10 request"),
    "no PEM": (said(csr="let me in"), 400, "not a PKCS#10 request"),
    "a CSR that is no text": (said(csr=7), 400, "csr: Input should be a valid string"),
    "half a character": (said(untrusted_name="\ud800"), 400, "untrusted_name: Input should"),
    "an oversized body": (said(padding="x" * 20_000), 413, "more than 16384 bytes"),
    "an oversized token": (lambda g: g.asks(by("x" * 5000)), 400, "token: String should have"),
    "no JSON": (lambda g: g.asks(b"{"), 400, "not JSON"),
    "a deep list": (lambda g: g.asks(b"[" * 16_000), 400, "body: not JSON"),
    "bytes": (lambda g: g.asks(b"\xff\xfe\xff"), 400, "body: not JSON"),
    "a list": (lambda g: g.asks([]), 400, "body: "),
    "another's name": (
        said(untrusted_name="buyer"),
        409,
        "hosts.yaml already: join with another --name",
    ),
    "a name of two lines": (said(untrusted_name="a\nb"), 422, "untrusted_name"),
    "every address": (said(untrusted_addresses=["0.0.0.0"]), 422, "untrusted_addresses"),
    "no sidecar at all": (said(untrusted_interception="none"), 400, "untrusted_interception"),
    "a name for an address": (said(untrusted_addresses=["bank.live"]), 422, "is a DNS name"),
    "a stolen certificate": (stolen, 403, "no provider knows the workload"),
    "papers of former times": (turned, 403, "turned is other.live now, not web.live"),
    "papers from before it left": (copied, 409, "not the last certificate that again"),
    "papers made by hand": (by_hand, 409, "not the last certificate that hand"),
    "papers of a listed host": (listed, 403, "no provider knows the workload"),
    "a sign of life of nobody": (lambda g: g.asks({}, path="/v1/lease"), 401, "none was shown"),
    "one by former papers": (beating, 409, "not the last certificate that beating"),
    "one of who never joined": (unleased, 403, "it did not join"),
    "one that says healthy": (lying(health="healthy"), 400, "health: Extra inputs"),
    "one of two lines": (lying(untrusted_lost="a\nb"), 400, "untrusted_lost: String should match"),
    "one of no port": (lying(untrusted_failing={"http": "x"}), 400, "untrusted_failing.http"),
    "leaving for others": (lambda g: g.asks({}, path="/v1/leave"), 401, "none was shown"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_is_refused_in_one_line_and_recorded(ground: Ground, attack: str) -> None:
    act, status, why = ATTACKS[attack]
    got, words = act(ground)
    assert (got, why in words, words.count("\n")) == (status, True, 0), words
    assert ground.told()[-1][1] == f"refused: {words}"
    ground.mesh.process.running()


def test_one_that_is_gone_is_recorded_by_the_name_that_it_had(ground: Ground) -> None:
    papers = ground.joined("departed")
    ground.deregister("departed")
    status, why = ground.asks({"csr": pem(GOOD)}, papers.folder)
    assert (status, ground.told()[-1]) == (403, ("departed", f"refused: {why}"))


def test_after_all_of_that_nobody_got_in_and_no_use_is_gone(ground: Ground) -> None:
    assert query(ground.url, "select name from mesh_workloads where name = 'thief'").rows == ()
    tokens = {each.id: each for each in ground.catalog(lambda joins: joins.tokens())}
    assert tokens[Secret.parse(ground.standing).id].used == 0


def test_a_flood_is_told_a_few_times_and_stops_nobody_else(ground: Ground) -> None:
    before = len(ground.told())
    flooder = "127.0.80.251"
    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(lambda _: ground.asks(by("guess"), at=flooder)[0], range(30)))
    assert set(ended) == {401, 429}
    assert ended[-1] == 429
    told = ground.told()[before:]
    assert len(told) == REFUSALS
    assert "no more of it is told" in told[-1][1]
    # Its address waits, even with a token that stands; others do not.
    assert ground.asks(by(ground.standing), at=flooder)[0] == 429
    ground.joined("beside-the-flood")


def test_a_certificate_that_nobody_here_signed_ends_the_handshake(ground: Ground) -> None:
    context = forged_papers(f"spiffe://{live.DOMAIN}/ns/live/sa/web")
    line = http.client.HTTPSConnection("127.0.0.1", ground.port, context=context, timeout=10)
    with closing(line), suppress(ssl.SSLError, ConnectionError):
        line.connect()  # with TLS 1.3 a client hears of it only when it reads
        line.sock.sendall(b"GET /v1/roots HTTP/1.1\r\nhost: here\r\n\r\n")
        assert line.sock.recv(1) == b""
    ground.joined("after-the-forger")


def test_what_the_machine_says_of_itself_decides_neither_identity_nor_service(
    ground: Ground,
) -> None:
    ground.joined("plain")
    asked = "select identity, services from mesh_workloads where name = 'plain'"
    assert query(ground.url, asked).rows == ((WEB, WEB),)
    certificate = x509.load_pem_x509_certificate(
        (ground.folder / "plain" / "certificate.pem").read_bytes()
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe("web").value]
    assert len(names.get_values_for_type(x509.DNSName)) == 1


# Without a network


DER = GOOD.public_bytes(Encoding.DER)


async def test_a_certificate_that_names_nobody_is_refused_without_a_question_to_the_catalog(
    tmp_path: Path,
) -> None:
    nobody = Peer(uris=(), dns=(), not_after=None, node_id="", envoy_version="", address="")
    with closing(Catalog(f"sqlite:///{tmp_path / 'away.db'}")) as catalog:  # it has no tables
        holder = ByCertificate(Joins(catalog), "mesh.example")
        with pytest.raises(Refused, match="names one URI and one DNS name"):
            await holder.holder(Caller("192.0.2.1", nobody))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), max_size=6))
def test_whatever_a_request_holds_it_is_a_request_or_refused(
    edits: list[tuple[int, int]],
) -> None:
    der = bytearray(DER)
    for at, value in edits:
        der[at] = value
    with suppress(Refused):
        assert signing_request(enclosed(bytes(der))).public_key() == KEY.public_key()


def test_a_token_is_read_as_it_was_written_and_shows_no_secret() -> None:
    made = Secret.made(b"\2" * 32)
    assert Secret.parse(made.text) == made
    assert made.secret.hex() not in repr(made)
    assert str(made.secret) not in repr(made)


def test_after_a_minute_an_address_may_be_refused_again() -> None:
    pace = Pace(2)
    assert [pace.refused("192.0.2.1", 0.0) for _ in range(3)] == [1, 0, -1]
    assert pace.exceeded("192.0.2.1", WINDOW - 1)
    assert not pace.exceeded("192.0.2.1", WINDOW)
    assert not pace.exceeded("192.0.2.2", 0.0)


def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    pace = Pace(1)
    pace.refused("2001:db8::1", 0.0)
    assert pace.exceeded("2001:db8::2", 0.0)
    assert not pace.exceeded("2001:db8:0:1::1", 0.0)


def test_no_more_addresses_are_remembered_than_there_is_room_for() -> None:
    pace = Pace(1)
    for n in range(MOST + 1):
        pace.refused(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0)
    assert not pace.exceeded("10.0.0.0", 0.0)
    assert pace.exceeded("10.0.0.1", 0.0)
