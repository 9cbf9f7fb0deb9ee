"""A pod's network and its node's, for test_inject_rules.py: `captured.py node RULES [ENVOY]`.

Run in a network namespace of its own, which is the node's; the pod's is made in it. Every listener
answers with its name. What it prints: for each call, who answered. ENVOY is the command, as JSON,
of a real one that takes in what goes out, in place of the listener `outbound`.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection

POD, NODE, APART = "10.9.0.2", "10.9.0.1", "10.9.9.1"
POD6, NODE6 = "fd09::2", "fd09::1"
ENVOY, ROOT = 1500, 0
CALLS = {
    # What comes in, from the node.
    "in": [
        (POD, 8080), (POD6, 8080), (POD, 9100), (POD, 15003), (POD, 15010), (POD, 15901),
    ],
    # What goes out, from the pod, by whom.
    "out": [
        (ROOT, NODE, 80), (ROOT, NODE6, 80), (ROOT, f"::ffff:{NODE}", 80), (ROOT, NODE, 5432),
        (ROOT, APART, 80),
        (ROOT, "127.0.0.1", 8080), (ROOT, "::1", 8080), (ROOT, POD, 8080), (ROOT, POD6, 8080),
        (ENVOY, NODE, 80), (ENVOY, NODE6, 80), (ENVOY, "127.0.0.1", 8080),
    ],
}  # fmt: skip


def ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True)


def listen(name: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen()

    def answer() -> None:
        while True:
            with closing(listener.accept()[0]) as taken:
                taken.sendall(name.encode())

    threading.Thread(target=answer, daemon=True).start()


def call(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=2) as made:
            return made.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def called_by(user: int, host: str, port: int) -> str:
    "a".encode("idna")  # what getaddrinfo loads, from where that user may not read
    return called_as(user, lambda: call(host, port))


def called_as(user: int, act: Callable[[], str]) -> str:
    """In a process of that user's."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.setuid(user)
        os.write(writing, act().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def network(device: str, *addresses: str) -> None:
    ip("link", "set", "lo", "up")
    ip("link", "set", device, "up")
    for address in addresses:
        ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))


def sidecar(command: list[str]) -> subprocess.Popen[bytes]:
    """Once it is ready, as the user whose calls are not brought back to it."""
    started = subprocess.Popen(command, user=ENVOY, group=ENVOY, stdout=subprocess.DEVNULL)
    for _ in range(200):
        with suppress(OSError), closing(HTTPConnection("127.0.0.1", 15000, timeout=2)) as asked:
            asked.request("GET", "/ready")
            if asked.getresponse().status == 200:
                return started
        time.sleep(0.05)  # Envoy tells nobody when it is ready: it is asked
    started.kill()
    raise TimeoutError("the sidecar is not ready")


def node(rules: str, *envoy: str) -> None:
    ip("link", "add", "node", "type", "veth", "peer", "name", "pod")
    inside = subprocess.Popen(
        ("unshare", "--net", sys.executable, __file__, "pod", rules, *envoy),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert inside.stdin
    assert inside.stdout
    assert inside.stdout.readline() == "made\n"
    ip("link", "set", "pod", "netns", str(inside.pid))
    network("node", f"{NODE}/24", f"{APART}/32", f"{NODE6}/64")
    for address in (NODE, APART, NODE6):
        for port in (80, 5432):
            listen("node", address, port)
    inside.stdin.write("go\n")
    inside.stdin.flush()
    out = json.loads(inside.stdout.readline())
    came = [call(*each) for each in CALLS["in"]]
    inside.stdin.close()
    inside.wait(10)
    print(json.dumps({"in": came, "out": out}))


def pod(rules: str, *envoy: str) -> None:
    print("made", flush=True)
    sys.stdin.readline()
    network("pod", f"{POD}/24", f"{POD6}/64")
    ip("route", "add", "default", "via", NODE)
    subprocess.run(("/bin/sh", "-ec", rules), check=True)
    subprocess.run(("/bin/sh", "-ec", rules), check=True)  # kubelet may start it again
    for name, port in (
        ("application", 8080), ("excluded", 9100), ("inbound", 15003), ("metrics", 15010),
        ("probes", 15901),
    ):  # fmt: skip
        listen(name, "0.0.0.0", port)
        listen(name, "::", port)
    started = [sidecar(json.loads(each)) for each in envoy]
    for host in ("127.0.0.1", "::1") if not envoy else ():
        listen("outbound", host, 15001)
    print(json.dumps([called_by(*each) for each in CALLS["out"]]), flush=True)
    sys.stdin.readline()
    for each in started:
        each.kill()
        each.wait()


if __name__ == "__main__":
    {"node": node, "pod": pod}[sys.argv[1]](*sys.argv[2:])
