"""A machine that joined, its agent, and what is known of it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import live
from applications import Web, listening, read_request
from joining import WEB, Ground

from meshfed.catalog.reader import query
from meshfed.federation.agent import unit
from meshfed.federation.agent.envoy import binary, programs
from meshfed.federation.agent.process import running
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.join.papers import remove


def envoy_of(papers: Path) -> int | None:
    return running(papers / "envoy.yaml", programs(binary()))


@dataclass
class Machine:
    """One that joined, and its agent."""

    papers: Path
    address: str
    port: int
    log: Path
    agent: live.Process

    def restart(self) -> None:
        self.agent = live.Process(unit.command(self.papers), self.log)

    @property
    def envoy(self) -> int:
        found = envoy_of(self.papers)
        assert found is not None
        return found

    def said(self, words: str) -> int:
        return self.log.read_text().count(words)


class Slow(Web):
    """Takes its time for `/slow`."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            if request.path == "/slow":
                self.heard.append(request)
                await asyncio.sleep(1.0)
            writer.write(b"HTTP/1.1 200 OK\r\nx-name: store\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()


@asynccontextmanager
async def serving(ground: Ground, *options: str) -> AsyncIterator[tuple[Machine, Slow]]:
    """A machine that joined answers a sidecar of the mesh."""
    (port,) = free_ports(1)
    papers = ground.folder / "store"
    joined = await asyncio.to_thread(ground.joined, "store", ground.token(service=f"{WEB}:{port}"))
    (address,) = joined.addresses
    log = ground.folder / "agent.log"
    agent = live.Process(unit.command(papers, *options), log)
    machine = Machine(papers, address, port, log, agent)
    slow = Slow("store")
    try:
        if "buyer" not in ground.mesh.sidecars:
            await ground.mesh.start("buyer")
        async with listening(slow, "127.0.0.1", port):
            await until("an answer of the machine that joined", lambda: answers(ground, machine))
            yield machine, slow
    finally:
        machine.agent.end()
        if (left := envoy_of(papers)) is not None:
            os.kill(left, signal.SIGKILL)
        await asyncio.to_thread(ground.deregister, "store")
        await asyncio.to_thread(remove, papers)


def verdict(ground: Ground, name: str = "store") -> tuple[object, ...]:
    """On the endpoint of the machine."""
    asked = f"select health, health_reason from mesh_endpoints where workload = '{name}'"
    return query(ground.url, asked).rows[0]


async def becomes(ground: Ground, wanted: tuple[str, str], name: str = "store") -> bool:
    return await asyncio.to_thread(verdict, ground, name) == wanted


Look = Callable[[], Awaitable[bool]]


async def answers(ground: Ground, machine: Machine, path: str = "/") -> bool:
    async with ground.mesh.sidecars["buyer"].http() as client:
        got = await client.get(path, headers={"host": f"{WEB}:{machine.port}"})
    return got.headers.get("x-name") == "store"
