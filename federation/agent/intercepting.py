"""What brings this machine's traffic into its sidecar: put in place, kept there, and taken away."""

import asyncio
import grp
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec
import structlog

from meshfed.catalog.model import Interception
from meshfed.federation.agent import naming
from meshfed.federation.agent.command import Unable, told
from meshfed.federation.capture import (
    AGAIN,
    CHAINS,
    EVERYTHING,
    OUT,
    OUTBOUND,
    USER,
    Capture,
    machine_in,
    machine_out,
    network,
    removed,
    replaced,
    stand,
)
from meshfed.federation.join.papers import CAPTURE, Papers, Unjoinable

SOON, LOOK = 0.2, 5.0  # seconds between two looks: until all is in place, and then
ANEW = "`meshfed join --interception transparent` writes it anew"
TOOLS = {4: "iptables", 6: "ip6tables"}
TABLES = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
ADDRESSES = Path("/proc/net/if_inet6")
LISTENS = "0A"  # TCP_LISTEN, as proc(5) has it

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Intercepted:
    """What stands beside the papers of a machine whose traffic is intercepted."""

    group: int  # the sidecar's gid, and its Envoy's uid: what they say is left alone
    capture: Capture = EVERYTHING

    @classmethod
    def read(cls, folder: Path) -> "Intercepted | None":
        """None where nothing is intercepted. Raises Unjoinable."""
        try:
            said = msgspec.json.decode((folder / CAPTURE).read_bytes(), type=cls)
            for each in (*said.capture.outbound_ranges, *said.capture.only_ranges):
                network(each)
            return said
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, ValueError) as error:
            raise Unjoinable(f"{folder / CAPTURE}: damaged: {ANEW}") from error
        except OSError as error:
            raise Unjoinable(f"{folder / CAPTURE}: {error.strerror}: {ANEW}") from error

    @classmethod
    def needed(cls, folder: Path, papers: Papers) -> "Intercepted | None":
        """As `read`; of a machine that joined as transparent it must be there.

        Raises Unjoinable.
        """
        said = cls.read(folder)
        if said is None and papers.interception == Interception.TRANSPARENT:
            raise Unjoinable(f"{folder / CAPTURE}: gone: {ANEW}")
        return said

    @classmethod
    def legible(cls, folder: Path) -> "Intercepted | None":
        """None also where what stands is damaged: it is written anew, or goes."""
        try:
            return cls.read(folder)
        except Unjoinable:
            return None

    def write(self, folder: Path) -> None:
        """Raises OSError."""
        draft = folder / f"..{CAPTURE}"
        draft.write_bytes(msgspec.json.encode(self))
        draft.replace(folder / CAPTURE)


def spare(taken: Callable[[int], bool]) -> int:
    """A uid and gid that is nobody's on this machine, for its Envoy alone."""
    return next(each for each in count(USER) if not taken(each))


def listening(table: str) -> frozenset[int]:
    """The ports on which somebody listens, of /proc/net/tcp or tcp6."""
    rows = (line.split() for line in table.splitlines()[1:])
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENS)


def rules(
    served: Iterable[int], said: Intercepted, family: int, *, outbound: bool
) -> tuple[str, ...]:
    out = machine_out(said.capture, said.group, family) if outbound else ()
    return (*machine_in(served, said.capture, family), *out)


class Intercepting:
    """What comes in for applications is captured at once, and what goes out once it can be taken.

    A machine that boots while the control plane is away would have no network otherwise. From then
    on it stays captured, whatever becomes of the sidecar: nothing goes past it unseen.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[int, tuple[str, ...]] = {}  # what was put in place, by family
        self._said: Intercepted | None = None  # as it could be read last
        self._why = ""
        self._named = False
        self._wanted = True
        self._turn = asyncio.Lock()  # a look that has begun ends, whatever becomes of who awaits it

    async def run(self) -> None:
        """Until `released`."""
        while self._wanted:
            async with self._turn:
                whole = not self._wanted or await asyncio.to_thread(self.look)
            await self._rest(LOOK if whole else SOON)

    async def released(self, chains: Sequence[str] = CHAINS) -> None:
        """What these bring into the sidecar finds its way without one again, from now on."""
        self._wanted = False
        async with self._turn:
            try:
                if await asyncio.to_thread(release, chains):
                    log.info("intercepting no more", chains=chains)
            except (Unable, OSError) as why:
                log.warning("still intercepting", reason=str(why))

    async def _rest(self, step: float) -> None:
        """Until the next look: for a while, or until its sidecar listens, if that is missing."""
        until = time.monotonic() + LOOK
        while time.monotonic() < until:
            await asyncio.sleep(step)
            if step < LOOK and OUTBOUND in listening(TABLES[4].read_text()):
                return

    def look(self) -> bool:
        """Whether all is in place, as far as can be now."""
        try:
            if (papers := Papers.read(self._folder)) is None:  # it has just left
                return True
            said, trouble = self._heard(papers)
            if said is None:
                self._tell(trouble)
                return True
            there = {each: self._family(each, said, papers.ports) for each in families()}
            if there[4]:
                self._name()
        except (Unable, Unjoinable, OSError) as why:
            self._tell(str(why))
            return True
        self._tell(trouble)
        # Its sidecar may listen to IPv4 alone.
        return there[4]

    def _heard(self, papers: Papers) -> tuple[Intercepted | None, str]:
        """What shall be captured: as it stands, else as it stood, and why it cannot be read."""
        try:
            self._said = Intercepted.needed(self._folder, papers)
        except Unjoinable as why:
            kept = "; what was captured still is" if self._said else ""
            return self._said, f"{why}{kept}"
        return self._said, ""

    def _tell(self, trouble: str) -> None:
        """Once."""
        if trouble and trouble != self._why:
            log.warning("interception in trouble", reason=trouble)
        self._why = trouble

    def _family(self, family: int, said: Intercepted, served: Sequence[int]) -> bool:
        """Whether what goes out is captured. Raises Unable, OSError."""
        saved, before = standing(family), self._made.get(family, ())
        outbound = f"-j {OUT}" in saved or OUTBOUND in listening(TABLES[family].read_text())
        wanted = rules(served, said, family, outbound=outbound)
        stands = stand(wanted, saved)
        if wanted != before or not stands:
            put(family, replaced(wanted, saved))
            self._made[family] = wanted
            fields = {"family": family, "inbound": served, "outbound": outbound}
            if wanted == before:
                log.warning("rules put back", reason="somebody took them away", **fields)
            else:
                log.info("intercepting", **fields)
        return outbound

    def _name(self) -> None:
        """Where names lead to is captured by now. Raises Unable."""
        if self._named and (naming.stands() or not naming.resolved()):
            return
        if naming.resolved():
            naming.name()
            log.info("naming", domain=naming.DOMAIN, server=naming.SERVER)
        else:
            log.warning("not naming", reason=naming.ELSEWHERE)
        self._named = True


# What is asked of the kernel. All of it blocks


def taken(number: int) -> bool:
    """Whether somebody here has this uid or gid."""
    for asked in (pwd.getpwuid, grp.getgrgid):
        try:
            asked(number)
        except KeyError:
            continue
        return True
    return False


def families() -> Iterator[int]:
    """Those that this machine speaks."""
    yield 4
    if ADDRESSES.is_file() and ADDRESSES.read_text():
        yield 6


def standing(family: int) -> str:
    """Raises Unable."""
    return told((f"{TOOLS[family]}-save", "-t", "nat"))


def put(family: int, text: str, *options: str) -> None:
    """All of it or nothing. Raises Unable."""
    told((f"{TOOLS[family]}-restore", *AGAIN, "--noflush", *options), text)


def may_stand() -> bool:
    """Whether there may be rules of ours: root alone writes them, with these tools."""
    return os.geteuid() == 0 and shutil.which(f"{TOOLS[4]}-save") is not None


def release(chains: Sequence[str] = CHAINS) -> bool:
    """Take away what is there of these, and who leads to it; whether anything was.

    Raises Unable, OSError.
    """
    there = False
    for family in families():
        if text := removed(standing(family), chains):
            put(family, text)
            there = True
    return naming.unname() or there


def aside(said: Intercepted | None) -> None:
    """What this process says from now on goes past the sidecar, as the sidecar's own does."""
    if said is not None:
        os.setgid(said.group)
