"""An application of the bookstore's, for town.py: it knows names, and nothing else of the mesh.

`shops.py CONFIG`: `serves` has the ports that it answers on, each with its name and what it calls
for each request; `calls` is what it calls all the time, from the first line that it reads on. For
each further one it prints the calls that it made since: when each began and ended, of what, and who
answered or what went wrong.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import dns.asyncquery
import dns.exception
import dns.message

RESOLVER = "10.77.0.1"
PATIENCE = 5.0  # seconds for an answer
BETWEEN = 0.003  # seconds between two calls
SOON = 0.5  # seconds for an answer of the name server
AGAIN = 50  # calls until its name is asked for again
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class Caller:
    """One thing that is called, over a connection that is kept: `http://name:port METHOD /path`."""

    def __init__(self, what: str) -> None:
        self.what = what
        url, _, request = what.partition(" ")
        self.scheme, _, where = url.partition("://")
        self.name, _, port = where.partition(":")
        self.port, self.request = int(port), request
        self.addresses: list[str] = []
        self.made = 0
        self.open: tuple[Reader, Writer] | None = None

    async def call(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.attempt()
        except (OSError, EOFError, dns.exception.Timeout) as error:
            self.close()
            return type(error).__name__

    async def attempt(self) -> str:
        if self.made % AGAIN == 0:
            self.addresses = await resolved(self.name)
            self.close()
        self.made += 1
        if self.open is None:
            self.open = await asyncio.open_connection(self.addresses[0], self.port)
        reader, writer = self.open
        if self.scheme == "tcp":
            writer.write(b"entry\n")
            return (await reader.readuntil(b"\n")).decode().strip()
        head = (
            f"{self.request} HTTP/1.1\r\nhost: {self.name}:{self.port}\r\ncontent-length: 0\r\n\r\n"
        )
        writer.write(head.encode())
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return headers.get("x-name") or f"{first.split()[1]} {body.decode()}"

    def close(self) -> None:
        if self.open is not None:
            self.open[1].close()
        self.open = None


async def resolved(name: str) -> list[str]:
    """As a pod's resolver does it: by the network's name server."""
    query = dns.message.make_query(name, "A")
    told = await dns.asyncquery.udp(query, RESOLVER, timeout=SOON)
    found = [str(each) for rrset in told.answer for each in rrset]
    if not found:
        raise FileNotFoundError(name)
    return found


async def web(name: str, needs: Iterable[str], reader: Reader, writer: Writer) -> None:
    """Says its name, once whatever it needs for that has answered."""
    callers = [Caller(each) for each in needs]
    while head := (await reader.readuntil(b"\r\n\r\n")).decode():
        del head
        said = [(each.name.partition(".")[0], await each.call()) for each in callers]
        wrong = [f"{who}: {answer}" for who, answer in said if answer != who]
        status, words = ("502 Bad Gateway", wrong[0]) if wrong else ("200 OK", name)
        writer.write(f"HTTP/1.1 {status}\r\nx-name: {words}\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()


async def book(name: str, reader: Reader, writer: Writer) -> None:
    while await reader.readuntil(b"\n"):
        writer.write(f"{name}\n".encode())
        await writer.drain()


async def serve(port: int, name: str, protocol: str, needs: list[str]) -> None:
    async def connected(reader: Reader, writer: Writer) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await (
                web(name, needs, reader, writer)
                if protocol == "http"
                else book(name, reader, writer)
            )
        writer.close()

    await asyncio.start_server(connected, "0.0.0.0", port)


async def keep_calling(what: str, calls: list[tuple[float, float, str, str]]) -> None:
    caller = Caller(what)
    while True:
        began = time.time()
        answer = await caller.call()
        calls.append((began, time.time(), what, answer))
        await asyncio.sleep(BETWEEN)


async def main(config: str) -> None:
    said = json.loads(config)
    for port, name, protocol, needs in said.get("serves", ()):
        await serve(port, name, protocol, needs)
    calls: list[tuple[float, float, str, str]] = []
    print("serving", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    running = [asyncio.create_task(keep_calling(each, calls)) for each in said.get("calls", ())]
    while await asyncio.to_thread(sys.stdin.readline):
        told, calls[:] = list(calls), []
        print(json.dumps(told), flush=True)
    for task in running:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
