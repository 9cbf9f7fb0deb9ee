"""The join server's side of TLS: its certificate, who comes with one, and for how long."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from random import random
from typing import Any

from cryptography import x509
from uvicorn.protocols.http.h11_impl import H11Protocol

from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.keypair import GLANCE, Keypair
from meshfed.federation.gate import Limits, Tally, neighbourhood
from meshfed.federation.join.methods import Caller
from meshfed.xds.peer import met, names

LONGEST = 20.0  # seconds that a stranger's connection may last; a join takes milliseconds
BRIEF = 2.0  # seconds that one may last which is answered with 503 alone
STRANGERS = 1000  # connected at once; beyond them the answer is 503,
FROM_ONE = 250  # and beyond these of one address: many machines may be behind it
# Whoever shows a certificate of this mesh comes again and again: to a replica that was started
# later, too, after half an hour to an hour.
KEPT = 3600.0  # seconds
QUIET = 60  # seconds in which it asks for nothing
ROOM = 4096  # bytes that are read at once; a word has 500
EACH = 4  # connections by one certificate; the oldest gives way: its agent may be gone
CALLER = "meshfed.caller"  # where the ASGI scope has who is at the other end

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Room:
    """Who is connected: nobody takes the files away that the control plane needs for others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._strangers = Tally()
        self._members: dict[bytes, list[Connection]] = {}  # by what they show, the oldest first
        self._count = 0

    def enter(self, connection: "Connection") -> bool:
        """Whether there is room for it."""
        self._count += 1
        if not connection.shown:
            here, of_one = self._strangers.count, self._strangers.by[connection.source]
            there = here < STRANGERS and of_one < FROM_ONE and self._count <= self._most
            if there:  # who is refused takes no room of others
                self._strangers.add(connection.source)
            return there
        same = self._members.setdefault(connection.shown, [])
        same.append(connection)
        if len(same) > EACH:
            same.pop(0).transport.abort()
        return self._count <= self._most

    def leave(self, connection: "Connection", *, was_there: bool) -> None:
        """`was_there`: as it was told when it came."""
        self._count -= 1
        if not connection.shown:
            if was_there:
                self._strangers.add(connection.source, -1)
            return
        same = self._members.get(connection.shown, [])
        if connection in same:  # else it gave way
            same.remove(connection)
            if not same:
                del self._members[connection.shown]


def limits(most: int) -> Limits:
    """Of so many connections a part for those who have not shaken hands, and of that for each."""
    arriving = min(STRANGERS, most // 2)
    return Limits(most, arriving, arriving // 4)


class Connection(H11Protocol):
    """One connection: says who is at the other end, and does not last for ever."""

    def __init__(self, room: Room, **given: Any) -> None:  # what uvicorn gives
        super().__init__(**given)
        self._room = room
        self.shown = b""
        self.source = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.shown = (tls.getpeercert(binary_form=True) if tls else None) or b""
        self.source = neighbourhood(self.client[0] if self.client else "nowhere")
        inner: App = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await inner({**scope, CALLER: self.caller}, receive, send)

        self.app = app
        # None is no limit to uvicorn, which would count strangers and others as one; 0 is 503.
        self._there = self._room.enter(self)
        self.limit_concurrency = None if self._there else 0
        if not self._there:
            self._end = self.loop.call_later(BRIEF, transport.abort)
        elif self.shown:
            slim(transport)
            self.timeout_keep_alive = QUIET
            self._end = self.loop.call_later(KEPT * (1 + random()) / 2, self.shutdown)
        else:
            self._end = self.loop.call_later(LONGEST, transport.abort)

    @cached_property
    def caller(self) -> Caller:
        address = self.client[0] if self.client else "nowhere"
        if not self.shown:
            return Caller(address)
        serial = f"{x509.load_der_x509_certificate(self.shown).serial_number:x}"
        peer = met(names(ssl.DER_cert_to_PEM_cert(self.shown).encode()), "", "", address)
        return Caller(address, peer, serial)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        self._room.leave(self, was_there=self._there)
        super().connection_lost(exc)


def slim(transport: asyncio.Transport) -> None:
    """Keep little for what comes next: asyncio has 256 kB for each connection that speaks TLS."""
    speaks: Any = getattr(transport, "_ssl_protocol", None)
    if hasattr(speaks, "max_size") and hasattr(speaks, "_ssl_buffer_view"):
        speaks.max_size = ROOM
        speaks._ssl_buffer = bytearray(ROOM)
        speaks._ssl_buffer_view = memoryview(speaks._ssl_buffer)


def context(control: ControlPlane) -> ssl.SSLContext:
    """TLS 1.3. A client's certificate must be of this mesh and valid now, if it shows one."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_OPTIONAL
    made.num_tickets = 0  # machines come with long rests, and resume nothing
    made.load_verify_locations(cadata=control.roots_pem)
    made.set_alpn_protocols(["http/1.1"])
    carry(made, control.current)
    return made


async def keep(made: ssl.SSLContext, control: ControlPlane) -> None:
    """Serve with the certificate that the control plane has by now, for ever."""
    pair, roots = control.current, control.roots_pem
    while True:
        await asyncio.sleep(GLANCE)
        if control.current is not pair:
            pair = control.current
            carry(made, pair)
        if control.roots_pem != roots:
            roots = control.roots_pem
            made.load_verify_locations(cadata=roots)


def carry(made: ssl.SSLContext, pair: Keypair) -> None:
    """Python takes certificates from files alone; this one is in memory, as the key has to be."""
    file = os.memfd_create("meshfed", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as both:
            both.write(f"{pair.chain_pem}{pair.key_pem}".encode())
        made.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
