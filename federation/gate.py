"""Who is let in at a port: counted from accept on, before hands are shaken or a word is said.

asyncio tells of a connection when its handshake is over. Whoever begins none, or does not end it,
is nobody's until then, and would have a descriptor of the whole control plane for a minute.
"""

import asyncio
import errno
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import count

import structlog

BURST = 64  # accepted in a row, before others have their turn
PAUSE = 0.1  # seconds, when this machine has nothing left for one more
EVERY = 60.0  # seconds between two lines about those who are refused, or have to wait
CLOSED = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)  # nobody comes there ever again

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much room there is."""

    most: int  # connections
    arriving: int = 1000  # of them without a handshake yet
    each: int = 250  # of those of one address: many machines may be behind it
    patience: float = 5.0  # seconds for a handshake


def neighbourhood(address: str) -> str:
    """What one machine can have as many of as it likes counts as one: an IPv6 /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and not parsed.ipv4_mapped:
        return str(ip_network((parsed, 64), strict=False))
    return address


@dataclass(slots=True)
class Tally:
    """How many there are, and how many of each neighbourhood."""

    count: int = 0
    by: Counter[str] = field(default_factory=Counter)

    def add(self, who: str, n: int = 1) -> None:
        self.count += n
        self.by[who] += n
        if not self.by[who]:
            del self.by[who]


def full(arriving: Tally, connected: int, who: str, limits: Limits) -> str:
    """Why there is no room for one more, or nothing."""
    if connected + arriving.count >= limits.most:
        return f"{limits.most} are connected"
    if arriving.count >= limits.arriving:
        return f"{limits.arriving} have not shaken hands yet"
    if arriving.by[who] >= limits.each:
        return f"{limits.each} of its address have not shaken hands yet"
    return ""


class Gate:
    """Lets in at one port."""

    def __init__(
        self,
        door: str,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        *,
        limits: Limits,
        connected: Callable[[], int],
        refused: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`door`: the setting that names it. `connected`: how many have arrived and not left.

        `refused`: told of the door for each who is.
        """
        if tls is None:  # whoever is accepted has arrived
            limits = replace(limits, arriving=limits.most, each=limits.most)
        self._door = door
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._limits = limits
        self._connected = connected
        self._count = refused
        self._clock = clock
        self._arriving = Tally()  # their handshakes are not over
        self._refused = 0  # since they were told of,
        self._last = ("", "")  # the last of them, and why
        self._told = float("-inf")
        self._lacked = float("-inf")  # when it was told that somebody has to wait

    async def run(self) -> None:
        """Until cancelled. Raises OSError where its listener is none any more."""
        loop = asyncio.get_running_loop()
        self._listener.settimeout(0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._minutes())
            for n in count(1):
                try:
                    line, address = await loop.sock_accept(self._listener)
                except OSError as error:
                    if error.errno in CLOSED:
                        raise
                    self._wait(error.strerror or str(error))
                    await asyncio.sleep(PAUSE)
                    continue
                who = neighbourhood(address[0])
                if why := full(self._arriving, self._connected(), who, self._limits):
                    line.close()
                    self._refuse(address[0], why)
                else:
                    self._arriving.add(who)
                    tasks.create_task(self._arrive(line, who))
                if n % BURST == 0:
                    await asyncio.sleep(0)

    async def _arrive(self, line: socket.socket, who: str) -> None:
        patience = self._limits.patience if self._tls else None
        try:
            with suppress(OSError):  # its certificate is none, it took too long, or it went
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._protocol, line, ssl=self._tls, ssl_handshake_timeout=patience
                )
        finally:
            self._arriving.add(who, -1)

    def _wait(self, why: str) -> None:
        """No descriptor is left, say: who comes is kept by the kernel, and refused by nobody."""
        if self._clock() - self._lacked >= EVERY:
            self._lacked = self._clock()
            log.warning("connections wait", door=self._door, reason=why)

    def _refuse(self, who: str, why: str) -> None:
        self._count(self._door)
        self._refused += 1
        self._last = (who, why)
        if self._clock() - self._told >= EVERY:
            self._tell()

    async def _minutes(self) -> None:
        """Those who were refused since the last line, though nobody comes any more."""
        while True:
            rest = self._told + EVERY - self._clock()
            if rest <= 0 and self._refused:
                self._tell()
            await asyncio.sleep(rest if rest > 0 else EVERY)

    def _tell(self) -> None:
        who, why = self._last
        fields = {"door": self._door, "refused": self._refused, "last": who, "reason": why}
        log.warning("connections refused", **fields)
        self._refused, self._told = 0, self._clock()
