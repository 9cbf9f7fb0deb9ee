"""How many machines join in a second: `python deploy/bench/joins.py [MACHINES [postgres]]`.

Each asks as `meshfed join` does, on one connection: for the roots, to one of which what it was
shown must lead, and to be let in with its token. They come from other processes on the same cores,
some at a time, the next as soon as one has joined; their keys are made before. `cpu` is the control
plane's.
"""

import asyncio
import json
import re
import socket
import ssl
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from figures import Figure, Json, told
from ground import PROCESSES, Ground, grounded
from scale import on_postgres, on_sqlite

from meshfed.federation.certificates.keypair import key_pem, request
from meshfed.federation.join.dial import pinned
from meshfed.federation.join.secret import pin
from meshfed.federation.join.trust import control_plane, issued

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
COUNTS = ("machines", "seconds", "rate", "worst", "cpu")
READY = 6.0  # seconds for the machines' keys
AT_ONCE = 16  # of each process
WINDOW = 5  # seconds: the rate is told of the worst of these, too
# Machines that join here have no agents, whose silence would be believed of a few.
LEASE = "1h"


@dataclass(frozen=True, slots=True)
class Joins:
    """What was measured. Milliseconds are of each join."""

    machines: int
    seconds: float
    rate: float  # joins a second
    worst: float  # in five seconds
    cpu: float  # milliseconds of a core that the control plane had for each
    taken: tuple[float, ...]
    health: tuple[float, ...]

    def __str__(self) -> str:
        sustained = f"{self.rate:.0f} joins/s for {self.seconds:.0f} s"
        least = f"at least {self.worst:.0f} a second in {WINDOW} s"
        return f"{sustained}, {least}, {self.cpu:.1f} ms of a core of the control plane for each"

    def told(self) -> Json:
        found = {name: getattr(self, name) for name in COUNTS}
        return {**found, "figures": [told(each) for each in self.figures()]}

    def figures(self) -> list[Figure]:
        how = f"{PROCESSES * AT_ONCE} at a time; connection and all"
        health = "the control plane's health meanwhile"
        return [
            Figure("a machine joins", self.taken, how),
            Figure("/healthz while machines join", self.health, health),
        ]


async def joins(ground: Ground, machines: int) -> Joins:
    tokens = await ground.tokens()
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(PROCESSES) as pool:
        begin = time.time() + READY
        shares = (range(n, machines, PROCESSES) for n in range(PROCESSES))
        given = ground.port, tokens, ground.machines
        jobs = [loop.run_in_executor(pool, partial(arrive, *given, each, begin)) for each in shares]
        await asyncio.sleep(begin - time.time())
        began, spent = time.monotonic(), ground.spent()
        with ground.healthy() as health:
            found = await asyncio.gather(*jobs)
        cpu = ground.spent() - spent
    took = max(end for some in found for _, end in some) - began
    ends = sorted(end for some in found for _, end in some)
    taken = tuple(1000 * taken for some in found for taken, _ in some)
    return Joins(
        len(ends), took, len(ends) / took, worst(ends), 1000 * cpu / len(ends), taken, tuple(health)
    )


def worst(ends: list[float]) -> float:
    """Joins a second in the emptiest of whole windows."""
    windows = int((ends[-1] - ends[0]) // WINDOW)
    counts = [0] * windows
    for end in ends:
        if (n := int((end - ends[0]) // WINDOW)) < windows:
            counts[n] += 1
    return min(counts, default=0) / WINDOW


def arrive(
    port: int, tokens: list[str], folder: Path, numbers: range, begin: float
) -> list[tuple[float, float]]:
    """In a process of its own: how long each took, and when it had joined."""
    keys = {n: ec.generate_private_key(ec.SECP256R1()) for n in numbers}
    csrs = {n: request(key).public_bytes(Encoding.PEM).decode() for n, key in keys.items()}
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    with connected(port, bare) as line:
        wanted = pin(x509.load_pem_x509_certificate(asked(line, "GET", "/v1/roots").encode()))
    given: dict[int, str] = {}

    def one(n: int) -> tuple[float, float]:
        said = {
            "csr": csrs[n],
            "token": tokens[n % len(tokens)],
            "untrusted_name": named(n),
            "untrusted_addresses": [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"],
        }
        began = time.monotonic()
        with connected(port, bare) as line:
            root = pinned(asked(line, "GET", "/v1/roots"), wanted)
            shown = line.getpeercert(binary_form=True)
            if not shown or not issued(shown, root, time.time()) or not control_plane(shown, ""):
                raise RuntimeError("not the control plane")
            answer = asked(line, "POST", "/v1/join", json.dumps(said))
        ended = time.monotonic()
        given[n] = json.loads(answer)["certificate"]
        return ended - began, ended

    time.sleep(max(0.0, begin - time.time()))  # on a busy machine this began late
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, numbers))
    for n, certificate in given.items():
        (folder / named(n)).write_text(certificate + key_pem(keys[n]))
    return found


def connected(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)))


def asked(line: ssl.SSLSocket, method: str, path: str, body: str = "") -> str:
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    line.sendall(f"{head}{body}".encode())
    said = b""
    while not (found := LENGTH.search(said)) or b"\r\n\r\n" not in said:
        said += received(line)
    first, _, answer = said.partition(b"\r\n\r\n")
    while len(answer) < int(found[1]):
        answer += received(line)
    if not first.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"{path}: {answer.decode()}")
    return answer.decode()


def received(line: ssl.SSLSocket) -> bytes:
    if not (some := line.recv(65536)):
        raise RuntimeError("the connection ended")
    return some


def named(n: int) -> str:
    return f"machine-{n}"


async def alone(machines: int, catalog: str) -> Joins:
    with TemporaryDirectory(prefix="meshfed-bench-") as folder:
        async with grounded(Path(folder), catalog, LEASE) as ground:
            return await joins(ground, machines)


def main(machines: str = "5000", database: str = "sqlite") -> None:
    with (on_postgres if database == "postgres" else on_sqlite)() as urls:
        found = asyncio.run(alone(int(machines), urls()))
    print(found, *found.figures(), sep="\n  ")


if __name__ == "__main__":
    main(*sys.argv[1:])
