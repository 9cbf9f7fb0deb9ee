"""A machine whose traffic is intercepted: real iptables, a real Envoy, the real agent."""

import asyncio
import json
import os
import shutil
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
import intercepting
import pytest
from attesting import LEAF
from cryptography.hazmat.primitives.serialization import Encoding
from joining import WEB, Ground, grounded
from machines import LIBC, PATH, Machine, ip

from meshfed.federation.agent import naming
from meshfed.federation.agent.intercepting import ANEW, Intercepted, listening, spare
from meshfed.federation.capture import (
    OUTBOUND,
    Capture,
    machine_in,
    machine_out,
    removed,
    replaced,
    stand,
    table,
)
from meshfed.federation.cli.main import main
from meshfed.federation.demo.control import until
from meshfed.federation.join.papers import CAPTURE, Unjoinable
from meshfed.xds.dns import DNS_PORT

TOOLS = ("iptables-restore", "ip6tables-restore", "unshare", "ip")
ABSENT = [tool for tool in TOOLS if shutil.which(tool) is None]
real = pytest.mark.skipif(
    os.geteuid() != 0 or bool(ABSENT),
    reason=f"no {', '.join(ABSENT)}" if ABSENT else "network namespaces need root",
)

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


@real
def test_who_leaves_without_a_folder_has_the_rules_taken_away_that_are_ours(
    tmp_path: Path,
) -> None:
    leaves = f"{sys.executable} -m meshfed.federation.cli leave --out {tmp_path}/gone 2>&1"
    stood, said, left, again = kernel(
        f"{OTHERS}\n{restored(table(RULES))}\n{SAVE}", leaves, SAVE, f"{leaves} || true"
    )
    assert stand(RULES, stood)
    assert "iptables: its rules are removed" in said
    assert f"{tmp_path}/gone: gone: `meshfed deregister NAME` on the control plane" in said
    assert "MESHFED" not in left
    assert "-d 10.0.0.1/32 -j RETURN" in left
    assert "this machine did not join: nothing of it is there" in again


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


def kernel(*commands: str) -> list[str]:
    """What the commands of a shell say, in a network of its own, each for itself."""
    lines = "\necho ---\n".join(commands)
    done = subprocess.run(
        ("unshare", "--net", "sh", "-ec", lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("---\n")


def restored(text: str) -> str:
    return f"iptables-restore --noflush <<'END'\n{text}END"


SAVE = "iptables-save -t nat"
OTHERS = "iptables-restore --noflush <<'END'\n*nat\n-A OUTPUT -d 10.0.0.1 -j RETURN\nCOMMIT\nEND"
RULES = (*machine_in((8080,), Capture(), 4), *machine_out(Capture(), 1500, 4))


@real
def test_rules_are_put_in_place_once_are_missed_and_are_taken_away_alone() -> None:
    fresh, others = kernel(SAVE, f"{OTHERS}\n{SAVE}")
    first = kernel(f"{OTHERS}\n{restored(replaced(RULES, others))}\n{SAVE}")[0]
    assert not stand(RULES, fresh)
    assert stand(RULES, first)
    # Again, and others instead: no rule is there twice.
    fewer = machine_in((8080,), Capture(), 4)
    again, other = kernel(
        f"{restored(table(RULES))}\n{restored(replaced(RULES, first))}\n{SAVE}",
        f"{restored(replaced(fewer, first))}\n{SAVE}",
    )
    assert stand(RULES, again)
    assert stand(fewer, other)
    assert not stand(RULES, other)
    (gone,) = kernel(
        f"{OTHERS}\n{restored(replaced(RULES, others))}\n{restored(removed(first))}\n{SAVE}"
    )
    assert lines(gone) == lines(others)
    assert removed(gone) == ""


def lines(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if not line.startswith("#")]


@real
def test_an_agent_puts_rules_in_place_and_back_and_takes_them_away(tmp_path: Path) -> None:
    said = {"url": "https://10.0.0.1:1", "trust_domain": "x", "name": "y", "ports": [8080]}
    (tmp_path / "join.json").write_text(json.dumps(said))
    for each in ("certificate.pem", "bundle.pem"):
        (tmp_path / each).write_bytes(LEAF.public_bytes(Encoding.PEM))
    Intercepted(1500).write(tmp_path)
    ended = subprocess.run(
        ("unshare", "--net", sys.executable, intercepting.__file__, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    both = ["MESHFED_IN", "MESHFED_OUT"]
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "nobody listens": ["MESHFED_IN"],
        "its sidecar listens": both,
        "its sidecar is dead": both,
        "somebody flushes": [],
        "it looks again": both,
        "another exclusion": both,
        "excluded": ["5432"],
        "another agent": both,
        "released": [],
        "left": [],
    }


def test_ssh_is_never_captured_however_it_is_asked_for() -> None:
    for family in (4, 6):
        came = machine_in((22, 8080), Capture(), family)
        assert [line for line in came if "REDIRECT" in line and "--dport 22 " in line] == []
        assert machine_in((22,), Capture(), family) == ()
        went = machine_out(Capture(only_ranges=("10.0.0.0/8", "fd00::/8")), 1500, family)
        to_ssh = next(n for n, line in enumerate(went) if "--dport 22 -j RETURN" in line)
        assert to_ssh < next(n for n, line in enumerate(went) if "REDIRECT" in line)


def test_a_user_is_spared_whom_somebody_has() -> None:
    assert spare(lambda number: number < 1502) == 1502


def test_who_listens_is_read_off_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in listening(Path("/proc/net/tcp").read_text())
    assert port not in listening(Path("/proc/net/tcp").read_text())


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    with pytest.raises(SystemExit):
        main(("join", *words))
    said = capsys.readouterr()
    return said.out, said.err.strip()


def test_a_dry_run_prints_rules_that_iptables_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--interception", "transparent", "--dry-run", "--out", str(tmp_path))
    out, _ = typed(capsys, *words, "--exclude-user", "root", "--exclude-outbound-port", "25")
    four, *_ = out.split("# ip6tables-restore --noflush\n")
    first = machine_out(Capture(outbound_ports=(25,), users=(0,)), spare(lambda _: False), 4)
    assert table(first) in four
    assert "--dport P -j REDIRECT --to-ports 15003" in four
    assert list(tmp_path.iterdir()) == []
    if not ABSENT and os.geteuid() == 0:
        assert stand(first, kernel(f"{restored(four)}\n{SAVE}")[0])


@pytest.mark.parametrize(
    "damaged", ['{"group":1500,"capt', '{"group":1500,"capture":{"outbound_ranges":["banana"]}}']
)
def test_what_is_damaged_is_said_and_written_anew_where_it_is_asked_for(
    tmp_path: Path, damaged: str
) -> None:
    (tmp_path / CAPTURE).write_text(damaged)
    with pytest.raises(Unjoinable, match="damaged: `meshfed join --interception transparent`"):
        Intercepted.read(tmp_path)
    assert Intercepted.legible(tmp_path) is None
    Intercepted(1500).write(tmp_path)
    assert Intercepted.read(tmp_path) == Intercepted(1500)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--interception", "iptables"), "--interception: 'iptables' is none of explicit,"),
        (("--exclude-user", "root"), "--exclude-…, --include-…: they go with --interception"),
        (("--exclude-user", "nobody-here"), "--exclude-user: this machine knows no user"),
        (("--exclude-outbound-range", "10/8"), "--exclude-outbound-range: '10/8' is not a range"),
        (("--dry-run",), "--dry-run: nothing is written where interception is explicit"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    if words[0] not in ("--interception", "--dry-run") and "root" not in words:
        words = ("--interception", "transparent", *words)
    _, err = typed(capsys, "--out", str(tmp_path), *words)
    assert why in err
