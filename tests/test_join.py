"""Joining with a real `serve` and real TLS: two commands and an Envoy, and who is not let in."""

import asyncio
import http.client
import inspect
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from asyncio.sslproto import SSLProtocol
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import live
import pytest
from attesting import LEAF_KEY, ROOT, certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from joining import WEB, Ground, grounded, in_a_loop

from meshfed.catalog.model import Identity
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.catalog.times import stamp
from meshfed.catalog.tokens import Token
from meshfed.federation.agent import unit
from meshfed.federation.bootstrap import bootstrap
from meshfed.federation.certificates.keypair import request
from meshfed.federation.cli.main import app, main
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.demo.processes import environment
from meshfed.federation.join.dial import connected
from meshfed.federation.join.line import Line
from meshfed.federation.join.machine import join, leave
from meshfed.federation.join.methods import Caller
from meshfed.federation.join.pace import MOST, WINDOW, Pace
from meshfed.federation.join.papers import Papers, Server, Unjoinable
from meshfed.federation.join.request import Refused, signing_request
from meshfed.federation.join.secret import Secret
from meshfed.federation.join.server import Guard, again
from meshfed.federation.join.tls import CALLER, EACH, FROM_ONE, ROOM, STRANGERS, Room, slim
from meshfed.federation.register import register
from meshfed.providers.registered import Registration
from meshfed.xds.peer import Peer

BUYER, STORE = "127.0.47.1", "127.0.47.2"
HOSTS = f"""
hosts:
  - {{name: buyer, address: {BUYER}, bind: {BUYER}, identity: buyer.live}}
"""
REFUSALS = 5


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with grounded(tmp_path_factory.mktemp("join"), HOSTS, "127.0.47", refusals=REFUSALS) as ground:
        yield ground


# Two commands, and an Envoy


def typed(*words: str) -> tuple[int, list[str]]:
    """A command, as a person types it: how it ended, and what it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "meshfed.federation.cli.main", *words[1:]],
        cwd="/",
        env=environment(os.environ),
        text=True,
        capture_output=True,
        check=False,
    )
    return ended.returncode, [*ended.stdout.splitlines(), *ended.stderr.splitlines()]


async def test_a_machine_serves_in_the_mesh_after_two_commands_renews_and_leaves(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = ground.folder / "machine"
    (application,) = free_ports(1)
    serves = f"--identity {WEB} --service {WEB}:{application} --config {ground.mesh.config}"
    await asyncio.to_thread(app, shlex.split(f"token create {serves}"), standalone_mode=False)
    said = capsys.readouterr()
    assert "it is not shown again" in said.err
    # Here the machine is another address of this one, so the line says where it is called.
    here = re.sub(r"https://\S+:", "https://127.0.0.1:", said.out.strip())
    line = shlex.split(f"{here} --out {machine} --name store --address {STORE}")
    code, (first, start) = await asyncio.to_thread(typed, *line)
    assert (code, first) == (0, "store: joined")
    assert (machine / "key.pem").stat().st_mode & 0o777 == 0o600

    await ground.mesh.start("buyer")
    agent = live.Process(
        shlex.split(start.removeprefix("start it with: ")), ground.folder / "store.log"
    )
    try:
        async with live.listening(live.Web("store"), "127.0.0.1", application):
            await answered(ground.mesh.sidecars["buyer"], application)

            before = (machine / "certificate.pem").read_bytes(), (machine / "key.pem").read_bytes()
            await asyncio.to_thread(app, line[1:], standalone_mode=False)
            assert capsys.readouterr().err == "store: renewed\n"
            after = (machine / "certificate.pem").read_bytes(), (machine / "key.pem").read_bytes()
            assert before[0] != after[0]
            assert before[1] != after[1]
            await answered(ground.mesh.sidecars["buyer"], application)

            out = ["leave", "--out", str(machine)]
            await asyncio.to_thread(app, out, standalone_mode=False)
            assert capsys.readouterr().err == f"{machine}: removed\n"
            assert not machine.exists()
            told = [change for name, change in ground.told() if name == "store"]
            assert [each.partition(" ")[0] for each in told] == ["admitted", "renewed,", "left"]
            await until("the end of the stream", lambda: gone(ground))
    finally:
        agent.end()


def says(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """How a command ends, and what it says of that."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0), capsys.readouterr().err.strip()


def joining(ground: Ground, token: str, out: Path, *words: str) -> tuple[str, ...]:
    url = f"https://127.0.0.1:{ground.port}"
    return ("join", url, "--token", token, "--out", str(out), "--no-unit", *words)


def used(ground: Ground, token: str) -> int:
    made = ground.catalog(lambda joins: joins.token(Secret.parse(token).id))
    return int(made.used)


def test_where_nothing_can_be_written_nothing_is_asked(
    ground: Ground, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    token = ground.token()
    named = ("--name", "nowhere", "--address", next(ground.addresses))
    proc = Path("/proc/nowhere")  # where not even root can make a folder
    line = joining(ground, token, proc, *named)
    assert says(capsys, *line) == (1, f"{proc}: No such file or directory")
    # A disk that takes a name and no content.
    full = tmp_path / "a" / "full"
    command = (
        sys.executable,
        "-m",
        "meshfed.federation.cli",
        *joining(ground, token, full, *named),
    )
    ended = subprocess.run(
        ["prlimit", "--fsize=60000", *command],
        env=environment(os.environ),
        text=True,
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, f"{full}: File too large\n")
    assert list(tmp_path.iterdir()) == []
    assert used(ground, token) == 0
    assert not [name for name, _ in ground.told() if name == "nowhere"]


def test_who_cannot_write_after_all_leaves_again(
    ground: Ground, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "proxy"
    (out / "..data").mkdir(parents=True)  # where a link has to stand
    named = ("--name", "clumsy", "--address", next(ground.addresses))
    code, why = says(capsys, *joining(ground, ground.token(), out, *named))
    left = "clumsy has left again, and a use of the token is gone"
    assert (code, why) == (1, f"{out}: Is a directory: {left}")
    told = [change.partition(" ")[0] for name, change in ground.told() if name == "clumsy"]
    assert told == ["admitted", "left"]


def test_joining_again_as_another_is_refused_and_a_token_is_kept(
    ground: Ground, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, token, address = tmp_path / "proxy", ground.token(), next(ground.addresses)
    named = ("--name", "again", "--address", address)
    assert says(capsys, *joining(ground, token, out, *named))[1].startswith("again: joined")
    other = tmp_path / "other.pem"
    other.write_bytes(ROOT.public_bytes(Encoding.PEM))
    for option, value, why in (
        ("--name", "else", "this machine joined as again"),
        ("--address", "192.0.2.7", f"this machine joined as called at {address}"),
        ("--pin", "00" * 32, "this machine joined a mesh with another root"),
        ("--ca", str(other), "this machine joined a mesh with another root"),
    ):
        refused = (1, f"{option}: {why}: `meshfed leave` comes first")
        assert says(capsys, *joining(ground, token, out, option, value)) == refused
    no_pin = "--pin: not 64 hex digits: it is the SHA-256 of the mesh's root"
    for pin in ("abcd", "00" * 33, "zz" * 32):
        assert says(capsys, *joining(ground, token, out, "--pin", pin)) == (1, no_pin)
        assert says(capsys, *joining(ground, token, tmp_path / "new", "--pin", pin)) == (1, no_pin)
    same = joining(ground, token, out, *named, "--pin", Secret.parse(token).pin.hex())
    assert says(capsys, *same, "--keep-token") == (0, "again: renewed")
    assert (out / "token").read_text() == token
    assert says(capsys, "join", "--out", str(out), "--keep-token") == (
        1,
        "--keep-token: there is no --token to keep",
    )
    assert says(capsys, "leave", "--out", str(out)) == (0, f"{out}: removed")


def test_who_leaves_too_late_takes_its_unit_along(
    ground: Ground,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = ground.joined("lapsed").folder
    ends = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    ended = certificate("lapsed", LEAF_KEY, "lapsed", LEAF_KEY, ends=ends)
    (folder / "certificate.pem").write_bytes(ended.public_bytes(Encoding.PEM))
    # The unit's folder and the usual one, as if they were this machine's.
    monkeypatch.setattr("meshfed.federation.cli.join.FOLDER", folder)
    monkeypatch.setattr(unit.remove, "__defaults__", (tmp_path,))
    monkeypatch.setattr(unit, "FOLDER", tmp_path)
    monkeypatch.setattr(unit, "BOOTED", tmp_path / "no-systemd")
    written = unit.write(unit.command(folder), tmp_path)
    code, said = says(capsys, "leave", "--out", str(folder))
    late, *removed = said.splitlines()
    what = "`meshfed deregister lapsed` on the control plane, if it stands there"
    assert late == f"the certificate of lapsed ended at {stamp(ends.timestamp())}: {what}"
    assert (code, removed) == (0, [f"{written}: removed", f"{folder}: removed"])
    assert not written.exists()
    assert not folder.exists()


async def answered(buyer: live.Sidecar, port: int) -> None:
    async def served() -> bool:
        async with buyer.http() as client:
            got = await client.get("/", headers={"host": f"{WEB}:{port}"})
        return got.headers.get("x-name") == "store"

    await until("an answer of the machine that joined", served)


async def gone(ground: Ground) -> bool:
    return all(proxy["workload"] != "store" for proxy in await ground.mesh.proxies())


# Who is not let in


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
    flooder = "127.0.47.251"
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
    context = live.forged_papers(f"spiffe://{live.DOMAIN}/ns/live/sa/web")
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


# A connection that is kept


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each that a machine has made."""
    made: list[object] = []

    def counted(*given: Any) -> http.client.HTTPSConnection:
        made.append(given)
        return connected(*given)

    monkeypatch.setattr("meshfed.federation.join.line.connected", counted)
    return made


def test_however_often_an_agent_comes_it_shakes_hands_once_for_each_of_its_papers(
    ground: Ground, handshakes: list[object]
) -> None:
    papers, line = ground.joined("steady"), Line()
    for _ in range(10):
        assert line.lease(papers, {}) == 30
    assert len(handshakes) == 1
    join(papers.server, papers.folder, {}, papers)
    renewed = Papers.read(papers.folder)
    assert renewed is not None
    for _ in range(3):
        line.lease(renewed, {})
    assert len(handshakes) == 2
    line.close()


def test_a_connection_that_ended_meanwhile_is_made_again_and_nobody_hears_of_it(
    ground: Ground, handshakes: list[object]
) -> None:
    papers, line = ground.joined("interrupted"), Line()
    line.lease(papers, {})
    assert line._open is not None
    line._open.sock.shutdown(socket.SHUT_RDWR)
    line.lease(papers, {})
    assert len(handshakes) == 2
    line.close()


def test_what_is_refused_is_said_and_asked_no_second_time(
    ground: Ground, handshakes: list[object]
) -> None:
    papers, line = ground.joined("refused"), Line()
    line.lease(papers, {})
    with pytest.raises(Unjoinable, match="health: Extra inputs are not permitted"):
        line.lease(papers, {"health": "well"})
    assert len(handshakes) == 1
    line.lease(papers, {})
    assert len(handshakes) == 1
    line.close()


def test_one_certificate_has_a_few_connections_and_the_oldest_gives_way(ground: Ground) -> None:
    papers = ground.joined("many")
    lines = [Line() for _ in range(EACH + 1)]
    for line in lines:
        line.lease(papers, {})
    oldest, *others = [line._open.sock for line in lines if line._open]
    assert oldest.recv(1) == b""
    for sock in others:
        sock.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            sock.recv(1)
    for line in lines:
        line.close()


async def test_a_certificate_that_ends_while_its_connection_stands_counts_no_more() -> None:
    refused: list[tuple[int, str]] = []

    class Desk:
        async def refuse(self, why: Refused, _: Caller) -> Response:
            refused.append((why.status, why.why))
            return Response(status_code=why.status)

    async def app(*_: object) -> None:
        refused.append((200, ""))

    async def asked(ends: float) -> None:
        caller = Caller("192.0.2.1", Peer((), (), ends, "", "", ""), "a1")
        scope = {"type": "http", "method": "POST", CALLER: caller}
        await Guard(app, Desk())(scope, again(b"{}"), noted)

    async def noted(_: object) -> None:
        pass

    await asked(time.time() + 60)
    await asked(time.time() - 1)
    why = "certificate: it has ended since this connection began"
    assert refused == [(200, ""), (401, why)]


async def test_a_connection_that_is_kept_is_read_a_little_at_a_time_and_no_less(
    ground: Ground,
) -> None:
    """What asyncio calls it is its own affair: 5,000 connections would be 1.3 GB without."""
    speaks = SimpleNamespace(max_size=1 << 18, _ssl_buffer=b"", _ssl_buffer_view=b"")
    slim(SimpleNamespace(_ssl_protocol=speaks))
    assert (speaks.max_size, len(speaks._ssl_buffer_view)) == (ROOM, ROOM)
    written = inspect.getsource(SSLProtocol)
    assert "self._ssl_buffer_view = memoryview(self._ssl_buffer)" in written
    assert "want > self.max_size" in written
    papers, line = await asyncio.to_thread(ground.joined, "wordy"), Line()
    failing = {"untrusted_failing": dict.fromkeys(range(1, 60), "x" * 200)}
    await asyncio.to_thread(line.lease, papers, failing)
    line.close()


def test_who_shakes_no_hands_has_few_descriptors_of_the_control_plane(ground: Ground) -> None:
    serve = ground.mesh.process
    files = Path(f"/proc/{serve.popen.pid}/fd")
    before, there = len([*files.iterdir()]), ("127.0.0.1", ground.port)
    with ExitStack() as silent:
        for _ in range(2 * FROM_ONE):
            opened = socket.create_connection(there, 5, ("127.0.47.254", 0))
            silent.enter_context(closing(opened))
        ground.joined("neighbour")
        assert len([*files.iterdir()]) - before < FROM_ONE + 20
        _, measured = in_a_loop(ground.mesh.control.get("/metrics"))
    said = [json.loads(line) for line in serve.log.read_text().splitlines()]
    (refused,) = [each for each in said if each["event"] == "connections refused"]
    assert (refused["door"], refused["last"]) == ("join.listen", "127.0.47.254")
    assert f'meshfed_connections_refused_total{{door="join.listen"}} {FROM_ONE:.1f}' in measured


def test_strangers_leave_room_for_those_who_joined() -> None:
    room = Room(STRANGERS + 20)
    strangers = [SimpleNamespace(shown=b"", source=str(n)) for n in range(STRANGERS + 1)]
    assert [room.enter(each) for each in strangers] == [True] * STRANGERS + [False]
    room.leave(strangers[-1], was_there=False)
    members = [SimpleNamespace(shown=b"%d" % n) for n in range(21)]
    assert [room.enter(each) for each in members] == [True] * 20 + [False]
    for each in strangers[:-1]:
        room.leave(each, was_there=True)
    room = Room(10 * STRANGERS)
    of_one = [SimpleNamespace(shown=b"", source="one") for _ in range(2 * STRANGERS)]
    assert sum(room.enter(each) for each in of_one) == FROM_ONE
    another = SimpleNamespace(shown=b"", source="another")
    assert room.enter(another), "who is refused takes no room of others"


# Whom a machine believes


def test_a_machine_sends_its_token_to_nobody_but_the_mesh_of_its_pin(
    ground: Ground, tmp_path: Path
) -> None:
    server = ground.server.believed_by(b"\1" * 32)
    with pytest.raises(Unjoinable, match="not the mesh of this token: the pin is 0101"):
        join(server, tmp_path / "new", {"token": "secret"}, None)


async def test_who_relays_the_roots_of_the_mesh_is_not_believed_for_it(
    ground: Ground, tmp_path: Path
) -> None:
    """With a certificate of its own making, and with one that the mesh gave to a workload."""
    papers = await asyncio.to_thread(ground.joined, "relay")
    own = certificate("mesh", LEAF_KEY, "mesh", LEAF_KEY, ["mesh.example"])
    (tmp_path / "own.pem").write_bytes(own.public_bytes(Encoding.PEM))
    key = LEAF_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "own.key").write_bytes(key)
    heard: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request := await live.read_request(reader):
            heard.append(request.path)
        body = papers.bundle
        writer.write(f"HTTP/1.1 200 so\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()

    (port,) = free_ports(1)
    server = Server("127.0.0.1", port).believed_by(Secret.parse(ground.standing).pin)
    its = papers.folder / "certificate.pem", papers.folder / "key.pem"
    for shown in ((tmp_path / "own.pem", tmp_path / "own.key"), its):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*shown)
        async with live.listening(handle, "127.0.0.1", port, context):
            with pytest.raises(Unjoinable):
                await asyncio.to_thread(join, server, tmp_path / "new", {"token": "x"}, None)
    assert heard == ["/v1/roots"] * 2


async def test_a_machine_speaks_tls_1_3_alone(ground: Ground, tmp_path: Path) -> None:
    """With whom it does not know yet, too."""
    papers = await asyncio.to_thread(ground.joined, "modern")
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    older.load_cert_chain(papers.folder / "certificate.pem", papers.folder / "key.pem")
    heard: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readline()).decode())

    (port,) = free_ports(1)
    there = Server("127.0.0.1", port)
    async with live.listening(handle, "127.0.0.1", port, older):
        for server in (replace(there, roots=papers.bundle), there.believed_by(b"\1" * 32)):
            with pytest.raises(Unjoinable, match="TLS: "):
                await asyncio.to_thread(join, server, tmp_path / "new", {"token": "x"}, None)
    assert heard == []


async def test_a_machine_joins_on_one_connection(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handshakes: list[object] = []

    def counted(*given: Any) -> Any:
        handshakes.append(given)
        return connected(*given)

    monkeypatch.setattr("meshfed.federation.join.dial.connected", counted)
    await asyncio.to_thread(ground.joined, "once")
    assert len(handshakes) == 1


async def test_a_workload_cannot_pass_for_the_control_plane(ground: Ground, tmp_path: Path) -> None:
    papers = await asyncio.to_thread(ground.joined, "impostor")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.folder / "certificate.pem", papers.folder / "key.pem")
    heard: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))

    (port,) = free_ports(1)
    server = Server("127.0.0.1", port, papers.bundle)
    async with live.listening(handle, "127.0.0.1", port, context):
        with pytest.raises(Unjoinable, match="not the control plane of this mesh"):
            await asyncio.to_thread(join, server, tmp_path / "new", {"token": "secret"}, None)
    assert b"".join(heard) == b""
    assert not (tmp_path / "new").exists()


async def test_the_api_describes_itself(ground: Ground) -> None:
    async with httpx.AsyncClient(verify=live.no_papers(), trust_env=False) as client:
        described = (await client.get(f"https://127.0.0.1:{ground.port}/openapi.json")).json()
    assert set(described["paths"]) == {
        "/v1/roots",
        "/v1/nonce",
        "/v1/join",
        "/v1/lease",
        "/v1/leave",
    }


# Without a network


DER = GOOD.public_bytes(Encoding.DER)


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
