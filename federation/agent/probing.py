"""How an application on this machine is asked whether it is well."""

import asyncio
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException

import structlog
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded, StreamReset
from h2.exceptions import H2Error

from meshfed.federation.agent.hysteresis import Verdict
from meshfed.federation.join.probe import Kind, Probe

HERE = "127.0.0.1"  # where its sidecar reaches it
PERIOD = 5.0  # seconds between two looks
PATIENCE = 2.0  # seconds for an answer
CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}

log = structlog.get_logger()


class Probing:
    """Looks at applications again and again, and holds a verdict on each."""

    def __init__(self, probes: Sequence[str]) -> None:
        """Of those that are no probes nothing is held."""
        self._verdicts = {each: Verdict() for each in map(parsed, probes) if each}

    @property
    def failing(self) -> dict[int, str]:
        """Ports that are not well, and why."""
        return {probe.port: held.why for probe, held in self._verdicts.items() if held.why}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Ask all of them once."""
        probes = list(self._verdicts)
        answers = await asyncio.gather(*(asyncio.to_thread(ask, probe) for probe in probes))
        for probe, why in zip(probes, answers, strict=True):
            self._verdicts[probe] = self._verdicts[probe].after(why and f"{probe}: {why}")


def parsed(text: str) -> Probe | None:
    try:
        return Probe.parse(text)
    except ValueError as error:
        log.warning("not probed", reason=str(error))
        return None


def ask(probe: Probe) -> str:
    """Why it is not well, or nothing."""
    how = {Kind.HTTP: _http, Kind.TCP: _tcp, Kind.GRPC: _grpc}[probe.kind]
    try:
        return how(probe)
    except TimeoutError:
        return f"no answer within {PATIENCE:g} s"
    except (OSError, HTTPException, H2Error) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _tcp(probe: Probe) -> str:
    socket.create_connection((HERE, probe.port), PATIENCE).close()
    return ""


def _http(probe: Probe) -> str:
    line = HTTPConnection(HERE, probe.port, timeout=PATIENCE)
    with closing(line):
        line.request("GET", probe.path or "/", headers={"user-agent": "meshfed-agent"})
        status = line.getresponse().status
    return "" if 200 <= status < 400 else f"answered {status}"


def _grpc(probe: Probe) -> str:
    """grpc.health.v1, over HTTP/2 without TLS."""
    name = probe.path.removeprefix("/").encode()
    asked = b"\x0a" + bytes([len(name)]) + name if name else b""
    until = time.monotonic() + PATIENCE
    with socket.create_connection((HERE, probe.port), PATIENCE) as line:
        speaks = H2Connection(H2Configuration(client_side=True))
        speaks.initiate_connection()
        stream = speaks.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "http", ":path": CHECK, ":authority": HERE}
        more = {"content-type": "application/grpc", "te": "trailers"}
        speaks.send_headers(stream, [*headers.items(), *more.items()])
        speaks.send_data(stream, b"\0" + len(asked).to_bytes(4, "big") + asked, end_stream=True)
        answer = b""
        while True:
            line.sendall(speaks.data_to_send())
            line.settimeout(max(0.001, until - time.monotonic()))
            if not (heard := line.recv(65536)):
                return "the connection ended"
            for event in speaks.receive_data(heard):
                answer += _data(event)
                if isinstance(event, StreamEnded | StreamReset):
                    return "" if answer[5:] == SERVING else "not SERVING"


def _data(event: Event) -> bytes:
    return bytes(event.data) if isinstance(event, DataReceived) and event.data else b""
