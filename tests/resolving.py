"""A machine with systemd-resolved, for test_naming.py: `resolving.py ENVOY`.

Run in a network, mounts and pids of its own: its /run and /etc are copies. What it prints: for each
moment, how each of QUESTIONS was answered, and what stands in resolv.conf. ENVOY is the command, as
JSON, of a real sidecar that answers for names of the mesh.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rrset
from captured import ip
from waiting import until

from meshfed.federation.agent import naming

MESH = "bookstore.shop.mesh"
QUESTIONS = (
    (MESH, "A"),
    (MESH, "AAAA"),
    ("example.com", "A"),
    ("example.com", "AAAA"),
    ("example.com", "MX"),
    ("mesh.example.com", "TXT"),
    ("bookstore.shop.smesh", "A"),
    ("1.9.9.10.in-addr.arpa", "PTR"),
)
RECORDS = {
    "A": "10.1.1.1", "AAAA": "fd01::1", "MX": "10 mail.example.com.", "TXT": '"so"',
    "PTR": "host.example.com.",
}  # fmt: skip
UPSTREAM, STUB = "10.9.9.1", "127.0.0.53"
BUS = """<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow send_type="method_call"/><allow receive_sender="*"/></policy></busconfig>"""
SETTINGS = "[Resolve]\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\nCache=no\n"
USER = 990


def serve(asked: list[str]) -> None:
    """The network's own resolver, which has an answer to everything."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((UPSTREAM, 53))
    while True:
        query, who = opened.recvfrom(4096)
        made = dns.message.make_response(dns.message.from_wire(query))
        question = made.question[0]
        asked.append(str(question.name))
        kind = dns.rdatatype.to_text(question.rdtype)
        if kind in RECORDS:
            made.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, RECORDS[kind]))
        opened.sendto(made.to_wire(), who)


def answered(name: str, kind: str) -> str:
    """By this machine's resolver."""
    try:
        said = dns.query.udp(dns.message.make_query(name, kind), STUB, timeout=6)
    except dns.exception.Timeout:
        return "nothing"
    found = " ".join(sorted(str(each) for rrset in said.answer for each in rrset))
    return f"{dns.rcode.to_text(said.rcode())} {found}"


def moment() -> dict[str, object]:
    return {
        "answers": [answered(*each) for each in QUESTIONS],
        "files": [Path(each).read_text() for each in ("/etc/resolv.conf", RESOLV)],
    }


RESOLV = (
    "/run/systemd/resolve/resolv.conf"  # the resolvers of the network, for who asks them itself
)


def prepared(folder: Path) -> None:
    etc = folder / "etc"
    for each in ("passwd", "group", "hosts", "nsswitch.conf", "ld.so.cache"):
        if Path("/etc", each).exists():
            etc.mkdir(exist_ok=True)
            shutil.copy(Path("/etc", each), etc / each)
    (etc / "systemd").mkdir()
    (etc / "systemd" / "resolved.conf").write_text(SETTINGS)
    for each in ("passwd", "group"):
        with (etc / each).open("a") as file:
            more = f":{USER}::/:/usr/sbin/nologin" if each == "passwd" else ":"
            file.write(f"systemd-resolve:x:{USER}{more}\n")
    (etc / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    subprocess.run(["mount", "--bind", str(etc), "/etc"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    Path("/run/dbus").mkdir()
    Path("/run/systemd/resolve").mkdir(parents=True)
    os.chown("/run/systemd/resolve", USER, USER)
    Path("/run/bus.conf").write_text(BUS)


def main(folder: str, envoy: str) -> None:
    prepared(Path(folder))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    bus = subprocess.Popen(["dbus-daemon", "--config-file=/run/bus.conf", "--nofork"], **quiet)
    until(Path("/run/dbus/system_bus_socket").exists)
    ip("link", "set", "lo", "up")
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    ip("address", "add", f"{UPSTREAM}/24", "dev", "eth0")
    for each in ("other", "eth0"):
        ip("link", "set", each, "up")
    asked: list[str] = []
    threading.Thread(target=serve, args=(asked,), daemon=True).start()
    resolver = shutil.which("systemd-resolved", path=f"{os.environ['PATH']}:/lib/systemd")
    assert resolver
    resolving = subprocess.Popen([resolver], **quiet)
    until(naming.resolved)
    subprocess.run(["resolvectl", "dns", "eth0", UPSTREAM], check=True)
    said = {"before": moment()}
    sidecar = subprocess.Popen(json.loads(envoy), **quiet)
    # Its agent was killed when it had made half of it; and it does so whenever it starts.
    ip("link", "add", naming.LINK, "type", "veth", "peer", "name", naming.OTHER_END)
    for _ in range(2):
        naming.name()
    until(lambda: answered(MESH, "A").startswith("NOERROR 240"))
    asked.clear()
    said["during"] = moment()
    assert not [each for each in asked if each == f"{MESH}."]
    resolving.terminate()
    resolving.wait()
    resolving = subprocess.Popen([resolver], **quiet)
    until(lambda: answered("example.com", "A").startswith("NOERROR 10"))
    said["its resolver started again"] = moment()
    sidecar.kill()
    sidecar.wait()
    said["the sidecar is dead"] = moment()
    naming.unname()
    said["after"] = moment()
    print(json.dumps(said))
    for each in (resolving, bus):
        each.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])
