"""Between sidecars nothing can be read: what goes over the wire is looked at, packet by packet."""

import asyncio
import secrets
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass, field
from ipaddress import IPv4Network

import live
import pytest
from applications import Web, echo, listening
from live import INBOUND, OUTBOUND

CALLER, SERVER = "127.0.6.1", "127.0.6.2"
WEB, LEDGER, LOCAL = 14001, 14002, 13306
PORTS = (OUTBOUND, INBOUND, WEB, LEDGER, LOCAL)
NETWORK = IPv4Network("127.0.6.0/24")

HOSTS = """\
services:
  web.live:    {ports: {http: {number: 8080, target: 14001}}}
  ledger.live: {ports: {db: {number: 3306, target: 14002, local: 13306}}, protocol: tcp}
hosts:
  - {name: caller, identity: caller.live,
     address: 127.0.6.1, bind: 127.0.6.1, application: 127.0.6.1}
  - {name: server, identity: server.live, service: [web.live, ledger.live],
     address: 127.0.6.2, bind: 127.0.6.2, application: 127.0.6.2}
"""

POLICY = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all, namespace: live}
spec: {matches: [{name: all, pathRegex: ".*", methods: ["*"]}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: ledger, namespace: live}
spec: {matches: {name: ledger, ports: [3306]}}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: web, namespace: live}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: live}
  sources: [{kind: ServiceAccount, name: caller, namespace: live}]
  rules: [{kind: HTTPRouteGroup, name: all}]
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: ledger, namespace: live}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: live}
  sources: [{kind: ServiceAccount, name: caller, namespace: live}]
  rules: [{kind: TCPRoute, name: ledger}]
"""

TLS_HANDSHAKE, TLS_RECORD = b"\x16\x03", b"\x17\x03"

# Linux's, which the socket module does not name.
ETH_P_IP, SOL_PACKET, PACKET_STATISTICS, SO_ATTACH_FILTER = 0x0800, 263, 6, 26
LOAD, AND, EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06  # of the classic packet filter


def only(network: IPv4Network) -> bytes:
    """A packet filter: from or to a network. The machine has other things to say to itself."""
    where, mask = int(network.network_address), int(network.netmask)
    program = [
        *((LOAD, 0, 0, 12), (AND, 0, 0, mask), (EQUAL, 3, 0, where)),  # its source
        *((LOAD, 0, 0, 16), (AND, 0, 0, mask), (EQUAL, 0, 1, where)),  # its destination
        *((RETURN, 0, 0, 0xFFFFFFFF), (RETURN, 0, 0, 0)),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


@dataclass
class Capture:
    """What was said on the wire, by connection and direction."""

    said: defaultdict[bytes, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    lost: int = 0

    def take(self, packet: bytes) -> None:
        """Loopback keeps the order, so the payloads of a direction make its stream."""
        header = 4 * (packet[0] & 0xF)
        length = int.from_bytes(packet[2:4])
        if packet[9] == socket.IPPROTO_TCP:
            payload = packet[header + 4 * (packet[header + 12] >> 4) : length]
            self.said[packet[12:20] + packet[header : header + 4]] += payload

    def streams(self, port: int) -> list[bytearray]:
        """Both directions of every connection to a port."""
        return [
            said
            for way, said in self.said.items()
            if said and port in struct.unpack_from("!HH", way, 8)
        ]

    def ports(self, word: bytes) -> set[int]:
        """Where a word can be read by anybody."""
        return {port for port in PORTS if any(word in said for said in self.streams(port))}


@pytest.fixture
def wire() -> Iterator[socket.socket]:
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except PermissionError:
        pytest.skip("listening in on loopback needs root (CAP_NET_RAW)")
    with opened:
        opened.settimeout(0)
        yield opened


@asynccontextmanager
async def capturing(wire: socket.socket) -> AsyncIterator[Capture]:
    capture = Capture()
    program = create_string_buffer(only(NETWORK))
    described = struct.pack("HP", len(program) // 8, addressof(program))
    wire.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    wire.bind(("lo", ETH_P_IP))

    def drain() -> None:
        with suppress(BlockingIOError):
            while True:
                packet, (_, _, kind, *_) = wire.recvfrom(1 << 17)
                if kind == socket.PACKET_HOST:  # each is seen when it is sent as well
                    capture.take(packet)

    asyncio.get_running_loop().add_reader(wire, drain)
    try:
        yield capture
    finally:
        asyncio.get_running_loop().remove_reader(wire)
        drain()
        statistics = wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        capture.lost = struct.unpack("II", statistics)[1]


async def test_what_is_said_is_read_beside_the_applications_and_never_between_sidecars(
    wire, tmp_path
):
    words = {name: secrets.token_hex(16) for name in ("path", "header", "body", "answer", "tcp")}
    async with (
        listening(Web(words["answer"]), SERVER, WEB),
        listening(echo, SERVER, LEDGER),
        live.mesh(tmp_path, HOSTS, {"all.yaml": POLICY}, "caller", "server") as mesh,
        capturing(wire) as capture,
    ):
        await talk(mesh.sidecars["caller"], words)
    assert capture.lost == 0
    http, tcp = {OUTBOUND, WEB}, {LOCAL, LEDGER}
    read = {name: capture.ports(word.encode()) for name, word in words.items()}
    assert read == {"path": http, "header": http, "body": http, "answer": http, "tcp": tcp}
    between = capture.streams(INBOUND)
    assert sum(map(len, between)) > 20 * sum(map(len, words.values()))
    assert {bytes(said[:2]) for said in between} <= {TLS_HANDSHAKE, TLS_RECORD}


async def talk(caller: live.Sidecar, words: dict[str, str]) -> None:
    said = words["tcp"].encode()
    async with caller.http() as client:
        for _ in range(20):
            got = await client.post(
                f"/{words['path']}",
                headers={"host": "web.live:8080", "x-word": words["header"]},
                content=words["body"],
            )
            assert got.headers["x-name"] == words["answer"]
            assert await live.answer(said, CALLER, LOCAL) == said
