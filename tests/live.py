"""A mesh that really runs, for tests: `meshfed serve`, real Envoys, and the files that steer them.

Every host has a loopback address of its own, apart from the demo's 127.0.1.x.
"""

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import yaml

from meshfed.federation.bootstrap import bootstrap
from meshfed.federation.demo import control, envoys
from meshfed.federation.demo.control import Control, until
from meshfed.federation.demo.envoys import INBOUND, OUTBOUND
from meshfed.federation.demo.folder import Folder, free_ports, replace
from meshfed.federation.demo.measure import Edit
from meshfed.federation.demo.processes import environment, last_words, tied_to
from meshfed.federation.settings import Settings

DOMAIN = "live.example"
PATIENCE = 10.0  # seconds for anything that should take milliseconds
GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Process:
    """A child that goes when the test run does, however that ends."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self.log = log
        with log.open("ab") as written:
            self.popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                cwd=log.parent,
                env=environment(os.environ),
                start_new_session=True,
                preexec_fn=tied_to(os.getpid()),
            )

    def running(self) -> None:
        assert self.popen.poll() is None, f"{self.log.stem} ended: {last_words(self.log)}"

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(frozen=True)
class Sidecar:
    """One host's Envoy, seen from its own machine."""

    name: str
    address: str  # of its admin page and its loopback ports
    papers: Path
    process: Process

    def http(self, **more: object) -> httpx.AsyncClient:
        """Requests in origin form: each names its service in `host`."""
        where = f"[{self.address}]" if ":" in self.address else self.address
        client = httpx.AsyncClient(
            base_url=f"http://{where}:{OUTBOUND}", trust_env=False, timeout=PATIENCE, **more
        )
        client.headers["user-agent"] = self.name
        return client

    def proxy(self, **more: object) -> httpx.AsyncClient:
        """Requests as to any HTTP proxy: absolute form, and CONNECT for https."""
        url = f"http://{self.address}:{OUTBOUND}"
        return httpx.AsyncClient(proxy=url, trust_env=False, timeout=PATIENCE, **more)

    async def stats(self) -> envoys.Counters:
        return await asyncio.to_thread(envoys.stats, self.address)

    async def ready(self) -> bool:
        self.process.running()
        return await asyncio.to_thread(envoys.ready, self.address)

    def tls(self, *alpn: str) -> ssl.SSLContext:
        """Its own certificate in a client that heeds no policy."""
        context = ssl.create_default_context(cafile=str(self.papers / "bundle.pem"))
        context.check_hostname = False  # mesh certificates name identities, not hosts
        context.load_cert_chain(self.papers / "certificate.pem", self.papers / "key.pem")
        context.set_alpn_protocols(list(alpn))
        return context


class Mesh:
    """A control plane in a folder of its own, and the sidecars that were started."""

    def __init__(self, folder: Path, hosts: str, policy: Mapping[str, str]) -> None:
        xds, admin = free_ports(2)
        self.folder = folder
        self.control = Control(Folder(folder, DOMAIN, f"127.0.0.1:{admin}"))
        entries = yaml.safe_load(hosts)["hosts"]
        self.binds = {entry["name"]: entry.get("bind", "0.0.0.0") for entry in entries}
        self.sidecars: dict[str, Sidecar] = {}
        self.written: dict[str, object] = {
            "mesh": {"trust_domain": DOMAIN, "permissive": False},
            "catalog": "sqlite:///meshfed.db",
            "providers": [{"name": "rack", "type": "hosts", "path": "hosts.yaml"}],
            "specification": [{"type": "files", "path": "policy/"}],
            "xds": {"listen": f"127.0.0.1:{xds}"},
            "admin": {"listen": f"127.0.0.1:{admin}"},
        }
        (folder / "policy").mkdir()
        replace(self.config, yaml.safe_dump(self.written))
        replace(self.hosts, hosts)
        for name, text in policy.items():
            replace(folder / "policy" / name, text)
        self.process: Process

    @property
    def config(self) -> Path:
        return self.folder / "meshfed.yaml"

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts.yaml"

    async def serve(self) -> None:
        command = control.command(Folder(self.folder, DOMAIN, ""))
        self.process = Process(command, self.folder / "serve.log")
        await until("the control plane's start", self.serving)

    async def serving(self) -> bool:
        self.process.running()
        return await self.control.ready()

    async def start(self, *names: str) -> None:
        """The sidecars of these hosts, until each has all of its configuration."""
        settings = Settings.read(self.config, environment(os.environ))
        binary = envoys.binary()
        for name in names:
            papers = self.folder / name
            await bootstrap(settings, name, papers)
            process = Process(
                envoys.command(binary, papers / "envoy.yaml"), self.folder / f"{name}.log"
            )
            self.sidecars[name] = Sidecar(name, self.loopback(name), papers, process)
        await until("the sidecars' start", self.ready)

    def loopback(self, name: str) -> str:
        own = self.binds[name]
        return own if own.startswith("127.") or own == "::1" else "127.0.0.1"

    async def ready(self) -> bool:
        everyone = await asyncio.gather(*(each.ready() for each in self.sidecars.values()))
        return all(everyone) and await self.in_sync()

    async def in_sync(self) -> bool:
        return await self.control.in_sync() >= len(self.sidecars)

    def stop(self, name: str) -> None:
        self.sidecars.pop(name).process.end()

    async def change(self, act: Callable[[], float]) -> Edit:
        """An edit that becomes one revision, once every proxy has acknowledged that."""
        return await self.control.after(act)

    def permit(self, *, everything: bool) -> float:
        """Turn permissive mode on or off; the moment of the edit."""
        mesh = {"trust_domain": DOMAIN, "permissive": everything}
        return replace(self.config, yaml.safe_dump({**self.written, "mesh": mesh}))

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of the control plane's; 0 while it has none."""
        _, text = await self.control.get("/metrics")
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
        found = re.search(rf"^{re.escape(f'{name}{{{inside}}}')} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def proxies(self) -> list[dict[str, object]]:
        _, text = await self.control.get("/v1/proxies")
        return json.loads(text)

    def end(self) -> None:
        for name in list(self.sidecars):
            self.stop(name)
        self.process.end()


@asynccontextmanager
async def mesh(
    folder: Path, hosts: str, policy: Mapping[str, str], *names: str
) -> AsyncIterator[Mesh]:
    """Served, and with the sidecars of these hosts."""
    made = Mesh(folder, hosts, policy)
    try:
        await made.serve()
        await made.start(*names)
        yield made
    finally:
        made.end()


# Conversations at the level of bytes.


@asynccontextmanager
async def dial(
    host: str, port: int, tls: ssl.SSLContext | None = None, name: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def answer(
    said: bytes, host: str, port: int, tls: ssl.SSLContext | None = None, name: str | None = None
) -> bytes:
    """The first bytes that come back; none when it is refused, in whatever way."""
    with suppress(ConnectionError, ssl.SSLError):
        async with dial(host, port, tls, name) as (reader, writer), asyncio.timeout(PATIENCE):
            writer.write(said)
            return await reader.read(65536)
    return b""


async def refuses(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    try:
        async with dial(host, port):
            return False
    except ConnectionRefusedError:
        return True


def server_name(service: str, port: int) -> str:
    return f"{port}.{service}.mesh.{DOMAIN}"


async def knock(
    who: Sidecar, at: str, service: str, port: int, said: bytes, alpn: str = "meshfed"
) -> bytes:
    """Straight at somebody's mesh port with one's own certificate, past one's own sidecar."""
    return await answer(said, at, INBOUND, who.tls(alpn), server_name(service, port))


async def last_byte(reader: asyncio.StreamReader) -> float:
    """When the last one came, once the stream has ended."""
    came = time.time()
    with suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(2 * PATIENCE):
            while await reader.read(65536):
                came = time.time()
    return came


async def opened(host: str, port: int) -> None:
    """Envoy acknowledges a listener a moment before it listens."""

    async def listens() -> bool:
        return not await refuses(host, port)

    await until(f"{host}:{port}", listens)


async def until_refused(host: str, port: int) -> None:
    async def refused() -> bool:
        return await refuses(host, port)

    await until(f"the end of {host}:{port}", refused)


class Traffic:
    """Requests one after another: when each was made, and who answered it, or what it got."""

    def __init__(self, client: httpx.AsyncClient, authority: str, path: str) -> None:
        self.client = client
        self.headers = {"host": authority}
        self.path = path
        self.made: list[tuple[float, str]] = []
        self.moved = asyncio.Event()

    async def run(self) -> None:
        while True:
            at = time.time()
            try:
                got = await self.client.get(self.path, headers=self.headers)
                name = got.headers.get("x-name", str(got.status_code))
            except httpx.TransportError as error:
                name = repr(error)
            self.made.append((at, name))
            self.moved.set()

    async def more(self, count: int) -> None:
        """Once so many more have been answered."""
        await self.after(time.time(), count)

    async def after(self, moment: float, count: int) -> None:
        """Once so many that were made after a moment have been answered, one after another."""
        async with asyncio.timeout(PATIENCE + count / 10):
            while sum(at > moment for at, _ in self.made[-count:]) < count:
                self.moved.clear()
                await self.moved.wait()

    async def settled(self, names: Iterable[str], count: int = 40) -> None:
        """Once so many in a row were answered by these alone, each of them."""
        wanted = set(names)

        async def seen() -> bool:
            await self.more(5)
            return {name for _, name in self.made[-count:]} == wanted

        await until(f"answers of {wanted}", seen)


@asynccontextmanager
async def traffic(sidecar: Sidecar, authority: str, path: str) -> AsyncIterator[Traffic]:
    async with sidecar.http() as client:
        made = Traffic(client, authority, path)
        running = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def removed(path: Path) -> float:
    """Remove a file; the moment before."""
    moment = time.time()
    path.unlink()
    return moment


# This machine.


@cache
def ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@cache
def outside() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])
