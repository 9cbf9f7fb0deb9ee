"""How many machines join in a second, and how many agents' signs of life are taken in.

`python deploy/bench/leases.py [SECONDS]`, each by closed loops over new connections with mutual
TLS, from processes on the same machine, against a real `serve` on SQLite.
"""

import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from meshfed.federation.certificates.keypair import key_pem, request
from meshfed.federation.demo import control
from meshfed.federation.demo.folder import Folder, free_ports
from meshfed.federation.demo.processes import environment
from meshfed.federation.join.invite import invite
from meshfed.federation.settings import Settings

MACHINES = 200  # that each process has, whose signs of life come again and again
AT_ONCE = 8  # connections of each process
PROCESSES = 2

Times = list[float]


def main(seconds: float) -> None:
    with TemporaryDirectory() as scratch:
        asyncio.run(measured(Path(scratch), seconds))


async def measured(folder: Path, seconds: float) -> None:
    xds, admin, join = free_ports(3)
    written = {
        "mesh": {"trust_domain": "bench.example", "permissive": True},
        "catalog": "sqlite:///meshfed.db",
        "xds": {"listen": f"127.0.0.1:{xds}"},
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "join": {"listen": f"127.0.0.1:{join}"},
    }
    (folder / "meshfed.yaml").write_text(yaml.safe_dump(written))
    serve = await asyncio.create_subprocess_exec(
        *map(str, control.command(Folder(folder, "bench.example", ""))),
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(os.environ),
    )
    try:
        process = control.Control(Folder(folder, "bench.example", f"127.0.0.1:{admin}"))
        await control.until("serve", process.ready)
        settings = Settings.read(folder / "meshfed.yaml", environment(os.environ))
        life = timedelta(hours=1)
        made = await invite(settings, "web.bench", ["web.bench:80"], 10_000, life, "bench")
        token = made.command.rpartition(" ")[2]
        with ProcessPoolExecutor(PROCESSES) as pool:
            for what, act in (("joins", joins), ("signs of life", beats)):
                began = spent(serve.pid)
                loop = asyncio.get_running_loop()
                jobs = (
                    loop.run_in_executor(pool, act, n, join, token, folder, seconds)
                    for n in range(PROCESSES)
                )
                found = await asyncio.gather(*jobs)
                say(what, found, spent(serve.pid) - began)
    finally:
        serve.terminate()
        await serve.wait()


def say(what: str, found: list[tuple[Times, float]], spent: float) -> None:
    times = [each for times, _ in found for each in times]
    rate = sum(len(times) / took for times, took in found)
    cuts = quantiles(times, n=100)
    waited = f"p50 {cuts[49] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms"
    print(f"{what}: {rate:.0f}/s; {waited}; {spent / len(times) * 1e3:.2f} ms of a core each")


def spent(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def joins(number: int, port: int, token: str, folder: Path, _: float) -> tuple[Times, float]:
    """Each machine once, whose papers then stand in the folder."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(MACHINES)]
    csrs = [request(key).public_bytes(Encoding.PEM).decode() for key in keys]
    bare = context()

    async def join(n: int) -> None:
        asked = {"csr": csrs[n], "token": token, "untrusted_name": f"m-{number}-{n}"}
        address = f"10.{number}.{n >> 8}.{n & 255}"
        said = await post(port, bare, "/v1/join", {**asked, "untrusted_addresses": [address]})
        (folder / f"{number}-{n}.pem").write_text(said["certificate"] + key_pem(keys[n]))

    return asyncio.run(closed(join, MACHINES, float("inf")))


def beats(number: int, port: int, _: str, folder: Path, seconds: float) -> tuple[Times, float]:
    """Of those machines, again and again; the first of each is news."""
    papers = [context(folder / f"{number}-{n}.pem") for n in range(MACHINES)]

    async def beat(n: int) -> None:
        await post(port, papers[n % MACHINES], "/v1/lease", {})

    return asyncio.run(closed(beat, 1 << 30, seconds))


async def closed(
    act: Callable[[int], Awaitable[None]], count: int, seconds: float
) -> tuple[Times, float]:
    times: Times = []
    numbers = iter(range(count))
    began = time.perf_counter()

    async def loop() -> None:
        for n in numbers:
            if time.perf_counter() - began > seconds:
                return
            at = time.perf_counter()
            await act(n)
            times.append(time.perf_counter() - at)

    await asyncio.gather(*(loop() for _ in range(AT_ONCE)))
    return times, time.perf_counter() - began


def context(papers: Path | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if papers:
        made.load_cert_chain(papers)
    return made


async def post(
    port: int, tls: ssl.SSLContext, path: str, body: dict[str, object]
) -> dict[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        answer = await reader.read()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    first, _, said = answer.partition(b"\r\n\r\n")
    if b" 200 " not in first.split(b"\r\n")[0]:
        raise RuntimeError(f"{path}: {answer[-200:]!r}")
    return json.loads(said)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
