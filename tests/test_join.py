"""Joining with a real `serve` and real TLS: two commands, an Envoy, and whom a machine believes."""

import asyncio
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import live
import pytest
from applications import Web, listening, read_request
from attesting import LEAF_KEY, ROOT, certificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from forged import no_papers
from joining import WEB, Ground, grounded

from meshfed.catalog.times import stamp
from meshfed.federation.agent import unit
from meshfed.federation.cli.main import app, main
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.demo.processes import environment
from meshfed.federation.join.dial import connected
from meshfed.federation.join.machine import join
from meshfed.federation.join.papers import Server, Unjoinable
from meshfed.federation.join.secret import Secret

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
        async with listening(Web("store"), "127.0.0.1", application):
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
        if request := await read_request(reader):
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
        async with listening(handle, "127.0.0.1", port, context):
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
    async with listening(handle, "127.0.0.1", port, older):
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
    async with listening(handle, "127.0.0.1", port, context):
        with pytest.raises(Unjoinable, match="not the control plane of this mesh"):
            await asyncio.to_thread(join, server, tmp_path / "new", {"token": "secret"}, None)
    assert b"".join(heard) == b""
    assert not (tmp_path / "new").exists()


async def test_the_api_describes_itself(ground: Ground) -> None:
    async with httpx.AsyncClient(verify=no_papers(), trust_env=False) as client:
        described = (await client.get(f"https://127.0.0.1:{ground.port}/openapi.json")).json()
    assert set(described["paths"]) == {
        "/v1/roots",
        "/v1/nonce",
        "/v1/join",
        "/v1/lease",
        "/v1/leave",
    }
