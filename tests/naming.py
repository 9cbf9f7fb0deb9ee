"""A pod that asks for names, for test_names.py: `naming.py node RULES ENVOY`.

Run in a network namespace of its own, which is the node's and has the pod's resolver; the pod's is
made in it, with a real sidecar. What it prints: for each of QUESTIONS, while the sidecar runs and
when it has been killed, by what resolver it was answered, and how.
"""

import json
import socket
import subprocess
import sys
import threading
from contextlib import closing

import dns.edns
import dns.message
import dns.rcode
import dns.rrset
from captured import ENVOY, NODE, NODE6, POD, POD6, ROOT, called_as, ip, network, sidecar

MESH = "bookstore.shop.mesh"
QUESTIONS = (
    (MESH, "A"),
    ("example.com", "A"),
    (MESH, "AAAA"),
    ("example.com", "MX"),
    ("warehouse.shop.mesh", "A"),
    ("warehouse.shop.mesh", "AAAA"),
    ("nobody.shop.mesh", "A"),
    ("mesh.example.com", "TXT"),
    ("bookstore.shop.mesh.cluster.local", "A"),
    ("bookstore.shop.smesh", "A"),
    ("2.0.9.10.in-addr.arpa", "PTR"),
    ("example.com", "HTTPS"),
    ("example.com", "TYPE65280"),
    (MESH, "A"),
)


def resolved(query: bytes) -> bytes:
    """What the pod's own resolver says to everything, with what it was sent in it."""
    made = dns.message.make_response(dns.message.from_wire(query))
    asked = made.question[0].name
    made.answer.append(dns.rrset.from_text(asked, 60, "IN", "TXT", query.hex()[:200]))
    return made.to_wire()


def resolve(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.bind((host, 53))

    def answer() -> None:
        while True:
            query, who = opened.recvfrom(4096)
            opened.sendto(resolved(query), who)

    threading.Thread(target=answer, daemon=True).start()


def ask(host: str) -> list[str]:
    """All questions from one port, as resolvers that keep their socket do; with EDNS, too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as asking:
        asking.settimeout(0.3)
        asking.connect((host, 53))
        return [answered(asking, *each, edns=n % 2 - 1) for n, each in enumerate(QUESTIONS)]


def answered(asking: socket.socket, name: str, kind: str, edns: int) -> str:
    options = [dns.edns.GenericOption(10, b"8 bytes.")] if edns == 0 else None  # a cookie
    query = dns.message.make_query(name, kind, use_edns=edns, options=options).to_wire()
    asking.send(query)
    try:
        said = asking.recv(4096)
    except OSError as error:
        return type(error).__name__
    if said == resolved(query):
        return "its own"
    told = dns.message.from_wire(said)
    found = [str(each) for rrset in told.answer for each in rrset]
    return " ".join((dns.rcode.to_text(told.rcode()), *found))


def node(rules: str, envoy: str) -> None:
    ip("link", "add", "node", "type", "veth", "peer", "name", "pod")
    inside = subprocess.Popen(
        ("unshare", "--net", sys.executable, __file__, "pod", rules, envoy),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert inside.stdin
    assert inside.stdout
    assert inside.stdout.readline() == "made\n"
    ip("link", "set", "pod", "netns", str(inside.pid))
    network("node", f"{NODE}/24", f"{NODE6}/64")
    for address in (NODE, NODE6):
        resolve(address)
    inside.stdin.write("go\n")
    inside.stdin.flush()
    print(inside.stdout.readline())
    inside.stdin.close()
    inside.wait(10)


def pod(rules: str, envoy: str) -> None:
    print("made", flush=True)
    sys.stdin.readline()
    network("pod", f"{POD}/24", f"{POD6}/64")
    for _ in range(2):  # kubelet may start it again
        subprocess.run(("/bin/sh", "-ec", rules), check=True)
    running = sidecar(json.loads(envoy))
    said = {
        "IPv4": ask(NODE),
        "IPv6": ask(NODE6),
        "sidecar": json.loads(called_as(ENVOY, lambda: json.dumps(ask(NODE)))),
    }
    running.kill()
    running.wait()
    said["killed"] = json.loads(called_as(ROOT, lambda: json.dumps(ask(NODE))))
    print(json.dumps(said), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    {"node": node, "pod": pod}[sys.argv[1]](*sys.argv[2:])
