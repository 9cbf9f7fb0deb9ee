"""Whose the tokens are that pods show, by what their platform says and the catalog has."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

import structlog

from meshfed.catalog.model import Mesh
from meshfed.federation.admin.metrics import Metrics, Reason
from meshfed.federation.subscriber import Inadmissible
from meshfed.providers.provider import Attested, Attestor, Unanswered, Untaken
from meshfed.xds.door import Unproven
from meshfed.xds.feed import Unready
from meshfed.xds.peer import Names

FRESH = 60.0  # seconds for which an answer of the platform counts without asking again
QUIET = 60.0  # seconds for which the same refusal of the same address is not said again
MOST = 1000  # of those kept in mind
LONGEST = 300  # characters of a reason: strangers choose some of them

log = structlog.get_logger()


class Known(Protocol):
    """What is known of the mesh here: the publisher."""

    @property
    def mesh(self) -> Mesh: ...

    @property
    def complete(self) -> bool:
        """Whether every source has been observed."""
        ...


@dataclass(slots=True)
class Entry:
    """One token, while it is asked about or known. Not the token itself: its hash is the key."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    attested: Attested | None = None
    at: float = 0.0  # when the platform said so


class Bearers:
    """The xDS server's Bearers. `attestors` by the names of their providers."""

    def __init__(
        self,
        attestors: Mapping[str, Attestor],
        known: Known,
        audience: str,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._attestors = attestors
        self._known = known
        self._audience = audience
        self._metrics = metrics
        self._clock = clock
        self._entries: dict[bytes, Entry] = {}
        self._tidied = 0.0
        self._away: dict[str, str] = {}  # provider → why it cannot be asked
        self._said: dict[tuple[str, str], float] = {}  # address and reason → when

    @property
    def troubles(self) -> list[str]:
        return [f"{name}: tokens cannot be reviewed: {why}" for name, why in self._away.items()]

    async def aclose(self) -> None:
        for each in self._attestors.values():
            await each.close()

    async def names(self, token: str, address: str) -> Names:
        """Raises Unproven, Inadmissible and Unready."""
        try:
            name = self._claimed(token)
            found = await self._attested(name, token)
        except Untaken as untaken:
            unproven = Unproven(shown(f"token: {untaken}"))
            self._refused(Reason.TOKEN, unproven, address, token)
            raise unproven from untaken
        except Inadmissible as inadmissible:
            self._refused(inadmissible.reason, inadmissible, address, token)
            raise
        except Unready:
            self._metrics.refused(Reason.UNREADY)
            raise
        except Unanswered as unanswered:
            self._metrics.refused(Reason.UNREVIEWED)
            raise Unready(f"the token cannot be reviewed now: {unanswered}") from unanswered
        domain = self._known.mesh.trust_domain
        # It ends with its pod, whose row is looked at whenever that moves, and not with the token:
        # its owner has a newer one by then, and shows that on its next stream.
        return Names((found.identity.uri(domain),), (f"{found.workload}.workload.{domain}",))

    def strange(self, unproven: Unproven, address: str) -> None:
        self._refused(Reason.TOKEN, unproven, address)

    def _claimed(self, token: str) -> str:
        """The provider of the pod that it is said to be of. Raises Untaken and Inadmissible."""
        untaken, known = Untaken("of no platform"), self._known.mesh.workloads
        spoken = False
        for name, each in self._attestors.items():
            try:
                if each.claimed(token).workload in known:
                    return name
                spoken = True
            except Untaken as error:
                untaken = error
        if not spoken:
            raise untaken
        if not self._known.complete:
            raise Unready("not every source of the mesh has been observed yet")
        raise Inadmissible(Reason.WORKLOAD, "no provider knows the pod that this token is of")

    async def _attested(self, name: str, token: str) -> Attested:
        """The first that comes with a token asks; the others have its answer. Raises as that."""
        key = sha256(token.encode()).digest()
        entry = self._entries.setdefault(key, Entry())
        entry.users += 1
        try:
            async with entry.turn:
                return await self._reviewed(name, token, entry)
        finally:
            entry.users -= 1
            if not entry.users and entry.attested is None:
                self._entries.pop(key, None)

    async def _reviewed(self, name: str, token: str, entry: Entry) -> Attested:
        """Raises Untaken and Unanswered."""
        now, before = self._clock(), entry.attested
        if before and 0 <= now - entry.at < FRESH and now < before.until:
            return before
        try:
            found = await self._attestors[name].attest(token, self._audience)
        except Untaken:
            entry.attested = None
            raise
        except Unanswered as why:
            self._lost(name, why)
            if before and now < before.until:
                return before  # what it said stands, until somebody says otherwise
            raise
        self._found(name)
        self._tidy(now)
        entry.attested, entry.at = found, now
        return found

    def _tidy(self, now: float) -> None:
        if now - self._tidied < FRESH:
            return
        self._tidied = now
        ended = [
            key
            for key, each in self._entries.items()
            if each.attested and each.attested.until <= now and not each.users
        ]
        for key in ended:
            del self._entries[key]

    def _lost(self, name: str, why: Unanswered) -> None:
        if name not in self._away:
            log.warning("tokens not reviewed", provider=name, reason=str(why))
        self._away[name] = str(why)

    def _found(self, name: str) -> None:
        if self._away.pop(name, None) is not None:
            log.info("tokens reviewed again", provider=name)

    def _whose(self, token: str) -> str:
        """The name of whom it is said to be of, which nobody has verified; of none, nothing."""
        for each in self._attestors.values():
            with suppress(Untaken):
                return shown(each.claimed(token).name)
        return ""

    def _refused(self, reason: Reason, why: Exception, address: str, token: str = "") -> None:
        self._metrics.refused(reason)
        said, now = (host(address), str(why)), self._clock()
        if now - self._said.get(said, -QUIET) < QUIET:
            return
        if len(self._said) >= MOST:
            self._said.clear()
        self._said[said] = now
        log.warning("proxy refused", workload=self._whose(token), address=address, reason=str(why))


def host(address: str) -> str:
    """Of grpc's `ipv4:192.0.2.1:50000`, without the port, which is another for each connection."""
    return address.rpartition(":")[0]


def shown(why: str) -> str:
    """On one line, and not a long one."""
    return "".join(each if each.isprintable() else "?" for each in why[:LONGEST])
