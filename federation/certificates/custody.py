"""The workloads' keys and certificates, one pair per identity, in this replica's memory only."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import structlog

from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.reports import CertificateState
from meshfed.federation.certificates.issuer import Issuer, Names, Unissuable
from meshfed.federation.certificates.keypair import Failure, Keypair, glance, issue, pem

AT_ONCE = 16  # signatures asked for at the same time

log = structlog.get_logger()

Rows = Mapping[tuple[Identity, ServiceName], CertificateState]


def rows(
    wanted: Mapping[Identity, frozenset[ServiceName]],
    held: Mapping[Identity, Keypair],
    claimed: Set[Identity],
    issuer: str,
) -> Rows:
    """What the catalog should say: a row for each service of each identity that has a pair."""
    return {
        (identity, service): CertificateState(
            identity=identity,
            service=service,
            issuer=issuer,
            state="claimed" if identity in claimed else "unclaimed",
            serial=pair.serial,
            not_before=pair.not_before,
            not_after=pair.not_after,
        )
        for identity, pair in held.items()
        for service in wanted[identity]
    }


def unrecorded(recorded: Rows, current: Rows) -> tuple[CertificateState, ...]:
    """What the catalog does not say yet; what it still says of others is retired."""
    retired = (replace(row, state="retired") for at, row in recorded.items() if at not in current)
    moved = (row for at, row in current.items() if recorded.get(at) != row)
    return (*retired, *moved)


class Custody:
    """Keeps a valid pair for every identity of the mesh, before anyone asks for it."""

    def __init__(
        self,
        issuer: Issuer,
        trust_domain: str,
        lifetime: timedelta,
        *,
        kind: str = "local",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._trust_domain = trust_domain
        self._lifetime = lifetime
        self._kind = kind
        self._clock = clock
        self._wanted: Mapping[Identity, frozenset[ServiceName]] = MappingProxyType({})
        self._held: dict[Identity, Keypair] = {}
        self._claimed: set[Identity] = set()
        self._failures: dict[Identity, Failure] = {}
        self._recorded: dict[tuple[Identity, ServiceName], CertificateState] = {}
        self._same = False  # what is recorded is all that there is
        self._moved: set[Identity] = set()
        self._news = asyncio.Event()
        self._asked = asyncio.Event()
        self.roots_pem = ""  # what the others' certificates are verified with; "" until first known

    def keep(self, identities: Mapping[Identity, frozenset[ServiceName]]) -> None:
        """From now on keep pairs for exactly these, each with the services that it answers for."""
        if identities is self._wanted or identities == self._wanted:
            return
        gone = self._held.keys() - identities.keys()
        self._wanted, self._same = identities, False
        self._claimed &= identities.keys()
        self._failures = {who: why for who, why in self._failures.items() if who in identities}
        for identity in gone:
            del self._held[identity]
        self._tell(gone)
        if identities.keys() - self._held.keys():
            self._asked.set()

    def held(self, identity: Identity) -> Keypair | None:
        """The newest pair; None for a stranger, and while the issuer has not signed yet."""
        return self._held.get(identity)

    def keypairs(self) -> tuple[Keypair, ...]:
        return tuple(self._held.values())

    def claim(self, identity: Identity) -> None:
        """A proxy was given this identity's certificate."""
        if identity not in self._claimed:
            self._claimed.add(identity)
            self._same = False

    def faults(self) -> Mapping[Identity, str]:
        """Why the issuer does not sign, for each identity that it failed last time."""
        return {identity: failure.why for identity, failure in self._failures.items()}

    async def changed(self) -> frozenset[Identity]:
        """Wait for changes, and say whose pair moved since the last call; for one listener.

        When the roots moved, it is everyone's.
        """
        await self._news.wait()
        self._news.clear()
        moved, self._moved = frozenset(self._moved), set()
        return moved

    def unrecorded(self) -> tuple[CertificateState, ...]:
        """What the catalog should be told; said again until it is `recorded`."""
        if self._same:  # asked five times a second, of a thousand identities
            return ()
        news = unrecorded(self._recorded, self._rows())
        self._same = not news
        return news

    def recorded(self, told: Iterable[CertificateState]) -> None:
        """The catalog says this now; at start, call it with what the catalog says already."""
        for row in told:
            if row.state == "retired":
                self._recorded.pop((row.identity, row.service), None)
            else:
                self._recorded[row.identity, row.service] = row

    async def run(self) -> None:
        """Ask for what is missing or due, for ever."""
        while True:
            self._asked.clear()
            await self.check()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._asked.wait()

    async def check(self) -> None:
        """Ask for everything that is missing or due now."""
        await self._trust()
        now = self._clock()
        due = [who for who in self._wanted if self._is_due(who, now)]
        for start in range(0, len(due), AT_ONCE):
            batch = due[start : start + AT_ONCE]
            whys = list(filter(None, await asyncio.gather(*map(self._renew, batch))))
            if whys:
                log.warning("certificates not issued", identities=len(whys), reason=whys[0])
            if len(whys) == len(batch):
                return  # an issuer that is away would cost its timeout once for each identity

    def _is_due(self, identity: Identity, now: float) -> bool:
        failure, pair = self._failures.get(identity), self._held.get(identity)
        if failure and failure.rests(now):
            return False
        return pair is None or pair.due(now)

    async def _renew(self, identity: Identity) -> str:
        """Replace one pair, or say why not: the last good one stays until then."""
        try:
            names = Names(identity.uri(self._trust_domain))
            pair = await issue(self._issuer, names, self._lifetime, self._clock)
        except Unissuable as error:
            before = self._failures.get(identity)
            count = before.count + 1 if before else 1
            self._failures[identity] = Failure(count, self._clock(), str(error))
            return str(error)
        if identity in self._wanted:  # it may have left while the issuer was busy
            self._held[identity] = pair
            self._same = False
            self._failures.pop(identity, None)
            self._tell({identity})
        return ""

    async def _trust(self) -> None:
        try:
            roots_pem = pem(await self._issuer.roots())
        except Unissuable as error:
            log.warning("roots not read", reason=str(error))
            return
        if roots_pem != self.roots_pem:
            self.roots_pem = roots_pem
            self._tell(self._held.keys())

    def _tell(self, moved: Iterable[Identity]) -> None:
        self._moved.update(moved)
        if self._moved:
            self._news.set()

    def _pause(self) -> float:
        now = self._clock()
        rests = (f.at + f.pause - now for f in self._failures.values() if f.rests(now))
        return min((glance(self._lifetime), *rests))

    def _rows(self) -> Rows:
        return rows(self._wanted, self._held, self._claimed, self._kind)
