"""A machine whose traffic is intercepted: real iptables, a real Envoy, the real agent."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import captured
import dns.message
import dns.query
import pytest
from joining import WEB, Ground, grounded
from machines import LIBC, PATH, Machine, ip
from namespaced import real

from meshfed.federation.agent import naming
from meshfed.federation.agent.intercepting import ANEW, listening
from meshfed.federation.capture import OUTBOUND
from meshfed.federation.demo.control import until
from meshfed.federation.join.papers import CAPTURE
from meshfed.xds.dns import DNS_PORT

BUYER, NETWORK = "127.0.53.1", "10.213.53"
OUTSIDE, OUTSIDE6, OWN6 = f"{NETWORK}.1", "fd53::1", "fd53::2"
APART = "10.213.54.1"  # excluded
TILL, EXCLUDED, OTHER, LONG, SHORT, LOST = range(8081, 8087)
HOSTS = f"""
services:
  till.live: {{ports: {{http: {TILL}}}, plaintext: allow}}
hosts:
  - {{name: buyer, address: {BUYER}, bind: {BUYER}, identity: buyer.live}}
  - {{name: till, address: {OUTSIDE}, service: till.live, interception: none}}
"""
XDS = {"listen": "0.0.0.0", "names": [OUTSIDE]}
SOMEBODY, ROOT = 12345, 0
SERVES = ("-m", "http.server", "8080")  # everywhere, of both families
TABLES = {  # where the tools are not the machine's own
    name: os.environ[name] for name in ("LD_LIBRARY_PATH", "XTABLES_LIBDIR") if name in os.environ
}
EVERYWHERE = os.environ["PATH"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with grounded(tmp_path_factory.mktemp("intercept"), HOSTS, "127.0.53", XDS) as ground:
        yield ground


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    path = f"{PATH}:{EVERYWHERE}"
    made = Machine(tmp_path, NETWORK, SERVES, **TABLES, PATH=path)
    try:
        made.start((f"{OUTSIDE6}/64", f"{OWN6}/64"), (f"{APART}/24", "10.213.54.2/24"))
        # Virtual IPs are nowhere, and what leads nowhere is not even sent.
        ip("-n", made.name, "route", "add", "default", "via", OUTSIDE)
        yield made
    finally:
        made.end()


class Till(BaseHTTPRequestHandler):
    """Says whether a sidecar has had the request in its hands."""

    def do_GET(self) -> None:
        came = b"sidecar" if "x-request-id" in self.headers else b"direct"
        self.send_response(200)
        self.send_header("content-length", str(len(came)))
        self.end_headers()
        self.wfile.write(came)

    def log_request(self, *_: object) -> None:
        pass


def echo(listener: socket.socket) -> None:
    with closing(listener.accept()[0]) as taken:
        while said := taken.recv(100):
            taken.sendall(said)


class Tills(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture
def outside(machine: Machine) -> Iterator[None]:
    """Who answers on the other side of the machine's network."""
    till = Tills(("::ffff:" + OUTSIDE, TILL), Till)
    threading.Thread(target=till.serve_forever, daemon=True).start()
    for port in (OTHER, EXCLUDED, 22, 53):
        captured.listen("outside", OUTSIDE, port)
    captured.listen("outside", OUTSIDE6, OTHER)
    lasting = socket.create_server((OUTSIDE, LONG))
    threading.Thread(target=echo, args=(lasting,), daemon=True).start()
    captured.listen("outside", APART, OTHER)
    yield
    till.shutdown()
    till.server_close()
    lasting.close()


def says(host: str, port: int, user: int = ROOT) -> str:
    """Who answers this thread, as this user."""
    LIBC.setfsuid(user)
    try:
        return captured.call(host, port)
    finally:
        LIBC.setfsuid(ROOT)


def addresses(name: str) -> list[str]:
    """What the sidecar says of a name."""
    said = dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", timeout=5, port=DNS_PORT)
    return [str(each) for rrset in said.answer for each in rrset]


def paid(host: str = OUTSIDE) -> str:
    """Through what the till is reached, by an address."""
    line = HTTPConnection(host, TILL, timeout=5)
    with closing(line):
        try:
            line.request("GET", "/", headers={"host": f"till.live:{TILL}"})
            return line.getresponse().read().decode()
        except (OSError, HTTPException) as error:
            return type(error).__name__


def plainly(host: str) -> str:
    """What its application answers to who is not of the mesh."""
    line = HTTPConnection(host, 8080, timeout=5)
    with closing(line):
        try:
            line.request("GET", "/")
            return str(line.getresponse().status)
        except ConnectionResetError:
            return CLOSED
        except (OSError, HTTPException) as error:
            return type(error).__name__


REFUSED, CLOSED = "ConnectionRefusedError", "closed"


async def answers(ground: Ground) -> bool:
    async with ground.mesh.sidecars["buyer"].http() as client:
        got = await client.get("/", headers={"host": f"{WEB}:8080"})
    return got.status_code == 200


@real
@pytest.mark.usefixtures("outside")
async def test_what_a_machine_says_and_hears_goes_through_its_sidecar_until_it_leaves(
    ground: Ground, machine: Machine
) -> None:
    # A connection that stands before there are rules, which the kernel has not followed.
    standing = machine.there(socket.create_connection, (OUTSIDE, LONG), 5)
    for port in (22, 9100):
        machine.there(captured.listen, "machine", "0.0.0.0", port)
    before = machine.files()
    join = (
        f"meshfed join https://{OUTSIDE}:{ground.port} --token {ground.token()}"
        f" --address {machine.address} --address {OWN6} --interception transparent"
        f" --exclude-outbound-port {EXCLUDED} --exclude-outbound-range {APART}"
        f" --exclude-user {SOMEBODY}"
    )
    assert f"{machine.host}: joined" in await asyncio.to_thread(machine.typed, join)
    machine.boot()
    await ground.mesh.start("buyer")

    async def serves() -> bool:
        return await answers(ground) and machine.there(paid) == "sidecar"

    await until("a machine that serves and calls", serves)

    async def said_of_names() -> bool:
        return naming.ELSEWHERE in machine.log.read_text()

    await until("a word on names", said_of_names)
    # What comes in: applications are reached by sidecars alone, and all else is as it was.
    assert [plainly(machine.address), plainly(OWN6)] == [CLOSED] * 2
    assert [captured.call(machine.address, port) for port in (22, 9100)] == ["machine"] * 2
    standing.sendall(b"still here")
    assert standing.recv(100) == b"still here"
    standing.close()
    # What goes out, also to who is not of the mesh.
    assert machine.there(says, OUTSIDE, OTHER) == machine.there(says, OUTSIDE6, OTHER) == "outside"

    # The mesh's names lead to addresses of its own, which lead nowhere but into the sidecar.
    (virtual,) = machine.there(addresses, "till.live.mesh")
    assert machine.there(paid, virtual) == "sidecar"

    # The sidecar is dead, and nobody there to start it: nothing goes past it but what may.
    machine.kills("meshfed.federation.agent")
    machine.kills("envoy")
    assert [plainly(machine.address), plainly(OWN6)] == [REFUSED] * 2
    assert [captured.call(machine.address, port) for port in (22, 9100)] == ["machine"] * 2
    assert machine.there(paid) == REFUSED
    calls = {
        (OUTSIDE, OTHER, ROOT): REFUSED,
        (OUTSIDE6, OTHER, ROOT): REFUSED,
        (OUTSIDE, OTHER, SOMEBODY): "outside",
        (OUTSIDE, EXCLUDED, ROOT): "outside",
        (OUTSIDE, 22, ROOT): "outside",
        (OUTSIDE, 53, ROOT): "outside",
        (APART, OTHER, ROOT): "outside",
        (machine.address, 9100, ROOT): "machine",
    }
    assert {call: machine.there(says, *call) for call in calls} == calls

    # systemd starts the agent again; and the whole machine is started again.
    machine.starts_agent()
    await until("a machine that serves and calls again", serves)
    machine.loses_power()
    assert "MESHFED" not in machine.rules() + machine.rules("ip6tables")
    machine.boot()
    for port in (22, 9100):  # of this process, which lost no power
        assert captured.call(machine.address, port) == "machine"
    await until("a machine that serves and calls after a reboot", serves)

    assert machine.rules().count("-j MESHFED") == 2
    assert "--dport 8080 -j REDIRECT" in await asyncio.to_thread(
        machine.typed, "meshfed join --dry-run"
    )
    said = await asyncio.to_thread(machine.typed, "meshfed leave")
    assert "iptables: its rules are removed" in said
    await until("the end of its agent", lambda: asyncio.to_thread(ended, machine))
    assert "MESHFED" not in machine.rules() + machine.rules("ip6tables")
    assert machine.there(paid) == "direct"
    assert plainly(machine.address) == "200"
    assert set(machine.files()) - set(before) <= {"systemd", "systemd/system"}


@real
async def test_an_agent_that_stops_leaves_no_call_without_a_listener(
    ground: Ground, machine: Machine
) -> None:
    captured.listen("outside", OUTSIDE, SHORT)
    with closing(socket.create_server((OUTSIDE, LONG))) as listener:
        threading.Thread(target=echo, args=(listener,), daemon=True).start()
        await stopping(ground, machine)


async def stopping(ground: Ground, machine: Machine) -> None:
    token = f"--token {ground.token()} --name stopping"
    join = f"meshfed join https://{OUTSIDE}:{ground.port} {token}"
    await asyncio.to_thread(machine.typed, f"{join} --interception transparent")
    machine.boot()
    await until("what goes out", lambda: asyncio.to_thread(captures, machine))
    # Its Envoy drains for as long as that lasts, and closes its listeners meanwhile.
    lasting = machine.there(socket.create_connection, (OUTSIDE, LONG), 5)
    lasting.sendall(b"before")
    assert lasting.recv(100) == b"before"
    machine.tells_agent(signal.SIGTERM)
    while OUTBOUND in machine.there(listening_there):
        assert machine.there(says, OUTSIDE, SHORT) == "outside"
        await asyncio.sleep(0.05)
    assert machine.there(says, OUTSIDE, SHORT) == "outside"
    # From here on who calls it is refused: its application would not understand them.
    assert plainly(machine.address) == REFUSED
    lasting.sendall(b"still here")
    assert lasting.recv(100) == b"still here"
    lasting.close()
    await until("the end of its agent", lambda: asyncio.to_thread(ended, machine))
    assert "MESHFED" not in machine.rules() + machine.rules("ip6tables")
    assert plainly(machine.address) == "200"


@real
async def test_a_machine_that_lost_its_files_says_so_and_leaves_all_the_same(
    ground: Ground, machine: Machine
) -> None:
    captured.listen("outside", OUTSIDE, LOST)
    token = f"--token {ground.token()} --name lost"
    join = f"meshfed join https://{OUTSIDE}:{ground.port} {token}"
    await asyncio.to_thread(machine.typed, f"{join} --interception transparent")
    machine.boot()
    folder = machine.etc / "meshfed" / "proxy"

    async def captures() -> bool:
        return "-j MESHFED_OUT" in machine.rules()

    await until("what goes out", captures)
    # What stood is put back, by what the agent has read before.
    (folder / CAPTURE).unlink()
    await asyncio.to_thread(machine.flushes)
    await until("rules that are put back", captures)
    await until("a word on it", lambda: asyncio.to_thread(logged, machine, "gone: `meshfed join"))
    assert "what was captured still is" in machine.log.read_text()
    # Whose traffic goes where is not known to the next agent, so nothing is served.
    machine.kills("meshfed.federation.agent")
    machine.kills("envoy")
    said = await asyncio.to_thread(refused, machine, "meshfed agent")
    assert said == f"/etc/meshfed/proxy/{CAPTURE}: gone: {ANEW}"
    # Nobody is there to let its own word through.
    said = await asyncio.to_thread(machine.typed, "meshfed leave")
    assert "iptables: its rules are removed" in said
    assert not folder.exists()
    assert "MESHFED" not in machine.rules() + machine.rules("ip6tables")


def logged(machine: Machine, words: str) -> bool:
    return words in machine.log.read_text()


def refused(machine: Machine, line: str) -> str:
    """Why a command of a person's is."""
    program = [sys.executable, "-m", "meshfed.federation.cli", *line.split()[1:]]
    done = subprocess.run(
        machine.inside(*program), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr.strip().removeprefix("meshfed: ")


def captures(machine: Machine) -> bool:
    """Whether it calls through its sidecar, which is there."""
    return "-j MESHFED_OUT" in machine.rules() and machine.there(says, OUTSIDE, SHORT) == "outside"


def listening_there() -> frozenset[int]:
    """Of the network that this thread is in: /proc/net is the process's."""
    return listening(Path("/proc/thread-self/net/tcp").read_text())


def ended(machine: Machine) -> bool:
    return len(machine.running) == 1
