"""Applications of a mesh, which know nothing of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# Applications, which know nothing of the mesh.


@asynccontextmanager
async def listening(
    handler: Handler, host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """A TCP application; its connections end with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await handler(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, port, ssl=tls)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while said := await reader.read(65536):
        writer.write(said)
        await writer.drain()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks first, as mail and database servers do."""
    writer.write(b"220 welcome\r\n")
    await echo(reader, writer)


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte every 20 ms, for as long as somebody listens."""
    del reader
    while not writer.is_closing():
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


class Web:
    """An HTTP server that names itself, and remembers who asked; websockets echo bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[Request] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.heard.append(request)
            if request.headers.get("upgrade", "").lower() == "websocket":
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\n"
                    b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
                )
                return await echo(reader, writer)
            said = f"{self.name} {request.method} {request.path} ".encode() + request.body
            caller = request.headers.get("x-forwarded-client-cert", "")
            writer.write(
                f"HTTP/1.1 200 OK\r\nx-name: {self.name}\r\nx-caller: {caller}\r\n"
                f"content-length: {len(said)}\r\n\r\n".encode()
                + said
            )
            await writer.drain()
