"""How an application is asked whether it is well, by who is on its machine or elsewhere."""

import asyncio
import errno
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded, StreamReset
from h2.exceptions import H2Error

from meshfed.providers.probe import Kind, Probe

PATIENCE = 2.0  # seconds for an answer
CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")  # RFC 9112, section 4
SILENT = f"no answer within {PATIENCE:g} s"
# What no machine says of itself: it is who asks that cannot reach it, or has nothing to ask with.
OWN = (
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES,
    errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM,
)  # fmt: skip
UNREACHED = frozenset({SILENT, *map(os.strerror, OWN)})

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(probe: Probe, host: str) -> str:
    """Why it is not well, or nothing. `host`: an IP literal."""
    how = {Kind.HTTP: _http, Kind.TCP: _tcp, Kind.GRPC: _grpc}[probe.kind]
    try:
        async with asyncio.timeout(PATIENCE):
            return await how(probe, host)
    except TimeoutError:
        return SILENT
    except (OSError, H2Error, ValueError) as error:  # ValueError: of a line that never ends
        number = getattr(error, "errno", None)
        return os.strerror(number) if number else str(error) or type(error).__name__


async def _tcp(probe: Probe, host: str) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as line:
        line.settimeout(0)
        await asyncio.get_running_loop().sock_connect(line, (host, probe.port))
    return ""


async def _http(probe: Probe, host: str) -> str:
    name = f"[{host}]" if ":" in host else host
    said = (
        f"GET {probe.path or '/'} HTTP/1.1\r\nhost: {name}:{probe.port}\r\n"
        "user-agent: meshfed\r\nconnection: close\r\n\r\n"
    )
    async with _line(probe, host) as (reader, writer):
        writer.write(said.encode())
        found = STATUS.match(await reader.readline())
    if not found:
        return "answered no HTTP"
    return "" if 200 <= int(found[1]) < 400 else f"answered {int(found[1])}"


async def _grpc(probe: Probe, host: str) -> str:
    """grpc.health.v1, over HTTP/2 without TLS."""
    name = probe.path.removeprefix("/").encode()
    asked = b"\x0a" + bytes([len(name)]) + name if name else b""
    async with _line(probe, host) as (reader, writer):
        speaks = H2Connection(H2Configuration(client_side=True))
        speaks.initiate_connection()
        stream = speaks.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "http", ":path": CHECK, ":authority": host}
        more = {"content-type": "application/grpc", "te": "trailers"}
        speaks.send_headers(stream, [*headers.items(), *more.items()])
        speaks.send_data(stream, b"\0" + len(asked).to_bytes(4, "big") + asked, end_stream=True)
        answer = b""
        while True:
            writer.write(speaks.data_to_send())
            if not (heard := await reader.read(65536)):
                return "the connection ended"
            for event in speaks.receive_data(heard):
                answer += _data(event)
                if isinstance(event, StreamEnded | StreamReset):
                    return "" if answer[5:] == SERVING else "not SERVING"


def _data(event: Event) -> bytes:
    return bytes(event.data) if isinstance(event, DataReceived) and event.data else b""


@asynccontextmanager
async def _line(probe: Probe, host: str) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection(host, probe.port)
    try:
        yield reader, writer
    finally:
        writer.close()
