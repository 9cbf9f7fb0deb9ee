"""What is known, kept in a database: the only door through which the mesh reads and writes it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Self, TypeVar

from sqlalchemy import Connection

from meshfed.catalog import (
    attachments,
    believe,
    configure,
    leadership,
    prune,
    pushes,
    reading,
    register,
    replicas,
    specify,
    states,
    traffic,
)
from meshfed.catalog.attachments import Otherwise, Unattached
from meshfed.catalog.bearings import Bearings, bearings
from meshfed.catalog.believe import Held
from meshfed.catalog.database import Away, Database, stamp
from meshfed.catalog.follow import Bell, deaf, follow
from meshfed.catalog.leadership import Leader, Term
from meshfed.catalog.migrating import Unfit, migrate, pending
from meshfed.catalog.model import (
    Changed,
    Endpoint,
    Known,
    Mesh,
    Service,
    ServiceName,
    Specified,
    Workload,
)
from meshfed.catalog.orders import Attachment, Orders
from meshfed.catalog.preferences import NO_PREFERENCES, Preferences
from meshfed.catalog.ranges import NO_RANGES, Ranges
from meshfed.catalog.register import Taken, Unregistered
from meshfed.catalog.reports import CertificateState, ProxyState, Pushed, Reaches, Receipt, Recorded
from meshfed.catalog.standing import observed
from meshfed.catalog.states import UnknownScope
from meshfed.catalog.writing import Writing

__all__ = [
    "Away",
    "Catalog",
    "Otherwise",
    "Taken",
    "Unattached",
    "Unfit",
    "UnknownScope",
    "Unregistered",
    "migrate",
    "pending",
]

T = TypeVar("T")

REMEMBERED = 1000  # commits
HEARD = 5.0  # seconds between writes that only say "still there"


class Catalog:
    """One catalog. Every method raises Away while the database cannot be reached or written."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._clock = clock
        self._bell = Bell()
        self._turn = asyncio.Lock()  # writers of this process queue here, not in threads
        self._heard: dict[tuple[str, str], tuple[str, str, float]] = {}
        self._held: dict[tuple[str, str], Held] = {}  # by provider and scope
        self._committed: dict[int, float] = {}  # the last ones of this process, ascending
        self._written_at = 0.0  # when its last write was committed
        self._term: Term | None = None  # in which alone this handle may write

    def close(self) -> None:
        self._database.close()

    # What the mesh is

    async def configure(
        self,
        trust_domain: str,
        permissive: bool,
        federation: Preferences = NO_PREFERENCES,
        virtual_ranges: Ranges = NO_RANGES,
    ) -> int | None:
        """The mesh's own settings; the new revision, or None when they were so already."""

        def act(writing: Writing) -> None:
            configure.configure(writing, trust_domain, permissive, federation, virtual_ranges)

        return await self.change(act, "the configuration")

    async def read(self) -> Mesh:
        """The whole mesh at the newest revision."""
        return await self.ask(reading.read)

    async def advance(self, mesh: Mesh) -> tuple[Mesh, Changed]:
        """The newest mesh and what moved since this one; only what moved is read again."""
        return await self.ask(lambda connection: reading.advance(connection, mesh))

    def follow(self) -> AsyncGenerator[int]:
        """The revision now and whenever it moves, whoever moved it; also after it was away."""
        return follow(self._database.url, self._bell)

    async def deaf(self) -> str:
        """Why this database does not wake its followers, or nothing."""
        return await deaf(self._database.url)

    @property
    def is_sqlite(self) -> bool:
        return self._database.is_sqlite

    def committed_at(self, revision: int) -> float | None:
        """When this process committed a revision, in seconds since the epoch; None for others'."""
        return self._committed.get(revision)

    # What providers see

    async def known(self, provider: str, scope: str) -> Known | None:
        """What is believed of a scope; None when nothing ever was."""
        return (await self.all_known(provider, [scope])).get(scope)

    async def all_known(self, provider: str, scopes: Iterable[str]) -> Mapping[str, Known]:
        """What is believed of these scopes; nothing of those of which nothing ever was."""

        names = frozenset(scopes)
        there = self._of(provider, names)
        # Nobody else writes these in its term, and `believe` looks at their rows all the same.
        if self._term is None or len(there) < len(names):
            before = there
            there = await self.ask(lambda c: believe.held(c, provider, names, before))
            self._held |= {(provider, scope): each for scope, each in there.items()}
        return {scope: each.known for scope, each in there.items()}

    async def believe(self, *known: Known, kind: str, cause: str, who: str = "") -> int | None:
        """Make this what is known of scopes of one provider; None when it was so already.

        An operator's acceptance of a scope is used up by it, unless it is still in doubt.
        """
        provider = known[0].provider
        before = self._of(provider, (one.scope for one in known))
        same = {
            one.scope: before[one.scope]
            for one in known
            if one.scope in before and before[one.scope].known == one
        }

        def act(connection: Connection, news: Sequence[Known]) -> tuple[int | None, list[Held]]:
            writing = Writing(connection, self._clock(), cause, who)
            after = believe.believe(writing, news, kind, before)
            return writing.finish(), after

        def turn() -> tuple[int | None, list[Held]]:
            stand = (
                self._database.read(lambda c: believe.standing(c, provider, kind, same))
                if same
                else ()
            )
            news = [one for one in known if one.scope not in stand]
            return self._written(lambda connection: act(connection, news)) if news else (None, [])

        async with self._turn:
            revision, after = await asyncio.to_thread(turn)
        for each in after:
            at = (each.known.provider, each.known.scope)
            self._held[at] = each
            if revision is not None:
                self._heard[at] = (kind, each.fault, time.monotonic())
        return self._told(revision)

    def _of(self, provider: str, scopes: Iterable[str]) -> Mapping[str, Held]:
        """What is held of scopes, by scope."""
        held = ((scope, self._held.get((provider, scope))) for scope in scopes)
        return {scope: each for scope, each in held if each is not None}

    async def seen(self, provider: str, kind: str, *scopes: str, fault: str = "") -> None:
        """A provider answered, or failed to; written when that is news or was long ago."""
        now = time.monotonic()
        news = []
        for scope in scopes:
            before = self._heard.get((provider, scope))
            if not before or before[:2] != (kind, fault) or now - before[2] >= HEARD:
                news.append(scope)

        def act(writing: Writing) -> None:
            for scope in news:
                states.seen(writing, provider, kind, scope, fault)

        if news:
            await self.change(act)
            self._heard |= {(provider, scope): (kind, fault, now) for scope in news}

    async def observed(self) -> frozenset[str]:
        """The providers and sources of policies that have once been read in full."""
        return await self.ask(observed)

    async def specify(self, specified: Specified, first: Sequence[str] = ()) -> int | None:
        """Make this what a source of policies says; what it got wrong changes nothing in force.

        `first`: the sources that come before all others where several have one object, in order.
        """
        cause = f"{specified.source} changed"
        return await self.change(lambda w: specify.specify(w, specified, first), cause)

    async def prune(self, before: float) -> int:
        """Take away a little of what ended before a time; how many rows, 0 when all is done."""
        return await self._write(lambda connection: prune.prune(connection, stamp(before)))

    async def prune_traffic(self, before: float) -> int:
        """Take away a little of the traffic before a time; how many rows, 0 when all is done."""
        return await self._write(lambda c: traffic.prune(c, stamp(before), prune.MOST))

    # What people register

    async def register(self, name: str, known: Known, who: str) -> int | None:
        """Make this what is registered as `name`; None when it was so already. Raises Taken."""
        return await self.change(lambda w: register.register(w, name, known), "registered", who)

    async def deregister(self, name: str, who: str) -> int | None:
        """Take what was registered as `name` away. Raises Unregistered."""
        return await self.change(lambda w: register.deregister(w, name), "deregistered", who)

    async def registered(self) -> tuple[tuple[Workload, frozenset[Endpoint]], ...]:
        """All workloads that are registered and what they serve, by name."""
        return await self.ask(register.registered)

    async def declared(self, names: Iterable[ServiceName]) -> Mapping[ServiceName, Service]:
        """Those of these services that the mesh has."""
        return await self.ask(lambda connection: register.declared(connection, names))

    # What operators ask

    async def orders(self, provider: str, of: Sequence[str] = ()) -> Orders:
        return await self.ask(lambda connection: states.ordered(connection, provider, of))

    async def scopes(self, provider: str) -> frozenset[str]:
        """The scopes of a provider that were ever reported."""
        return await self.ask(lambda connection: states.scopes_of(connection, provider))

    async def attach(self, attachment: Attachment, who: str) -> int | None:
        """Let a platform's machine answer for a service; None when it did so already.

        Raises Otherwise.
        """
        return await self.change(lambda w: attachments.attach(w, attachment), "attached", who)

    async def detach(self, resource: str, service: ServiceName | None, who: str) -> int | None:
        """Take that away, for one service or all. Raises Unattached."""
        return await self.change(
            lambda w: attachments.detach(w, resource, service), "detached", who
        )

    async def pause(self, provider: str, who: str) -> None:
        """Stop believing a provider. Raises UnknownScope."""
        await self.change(lambda w: states.pause(w, provider, who, paused=True), who=who)

    async def resume(self, provider: str, who: str) -> None:
        """Believe a provider again. Raises UnknownScope."""
        await self.change(lambda w: states.pause(w, provider, who, paused=False), who=who)

    async def accept(self, scope: str, who: str) -> None:
        """Let a scope's doubted observation be believed, once. Raises UnknownScope."""
        await self.change(lambda w: states.accept(w, scope, who), who=who)

    # Which replica leads

    async def leader(self) -> Leader:
        return await self.ask(leadership.leader)

    async def take(self, replica: str, *, at_once: bool = False) -> Term | None:
        """Begin a term, unless another replica's lease is good."""
        return await self._write(lambda c: leadership.take(c, replica, at_once=at_once))

    def led(self, term: Term) -> Self:
        """This catalog as one term may write it: when that is over, it raises Deposed instead."""
        led = copy(self)
        led._term = term
        # Who led meanwhile may have written other things under the revisions that were known here.
        led._held, led._heard = {}, {}
        return led

    async def renew(self, term: Term) -> None:
        """Keep leading. Raises Deposed."""
        # Past this process's queue: behind a write of some seconds the lease would end.
        await asyncio.to_thread(self._database.write, lambda c: leadership.renew(c, term))

    async def leave(self, replica: str) -> None:
        """A replica ends; another may lead at once, if it did."""
        await self._write(lambda connection: leadership.leave(connection, replica))

    async def signs(self) -> Mapping[str, str]:
        """The last sign of life of each replica."""
        return await self.ask(replicas.signs)

    async def forget(self, gone: Iterable[str]) -> None:
        """Replicas that are gone, with the proxies that they had."""
        await self._write(lambda connection: replicas.forget(connection, gone))

    # What proxies and certificates are at

    async def bearings(self) -> Bearings:
        """Where replicas and proxies stand, and the files that policies come from."""
        return await self.ask(bearings)

    async def record(
        self,
        replica: str,
        evaluated: int,
        proxies: Iterable[ProxyState],
        gone: Iterable[str],
        receipts: Iterable[Receipt],
        classes: Iterable[Reaches] = (),
    ) -> Recorded:
        """What a replica knows of its proxies; one that records nothing for 30 s is silent."""

        def write(connection: Connection) -> Recorded:
            known = replica in replicas.signs(connection)
            writing = Writing(connection, self._clock())
            own = states.record(writing, replica, evaluated, proxies, gone, receipts, classes)
            return Recorded(known, own)

        return await self._write(write)

    async def pushed(self, pushed: Iterable[Pushed]) -> None:
        """Keep which versions proxies were sent."""
        await self.change(lambda w: pushes.push(w, pushed))

    async def count(self, replica: str, sums: traffic.Sums) -> None:
        """Make this what a replica knows of the traffic of these minutes."""
        await self._write(lambda connection: traffic.count(connection, replica, sums))

    async def certify(self, rows: Iterable[CertificateState]) -> None:
        await self.change(lambda w: states.certify(w, rows))

    async def certified(self) -> tuple[CertificateState, ...]:
        """The certificates that are not retired."""
        return await self.ask(states.certified)

    async def authority(self) -> tuple[str, bytes] | None:
        """The certificate authority that was kept here, and its sealed key."""
        return await self.ask(states.authority_of)

    async def keep_authority(self, certificate_pem: str, sealed_key: bytes) -> tuple[str, bytes]:
        """Keep an authority unless there is one; what stands."""

        def keep(connection: Connection) -> tuple[str, bytes]:
            writing = Writing(connection, self._clock())
            return states.keep_authority(writing, certificate_pem, sealed_key)

        return await self._write(keep)

    async def change(
        self, act: Callable[[Writing], None], cause: str = "", who: str = ""
    ) -> int | None:
        """For what writes beside this file, as joins.py: the new revision, if there is one."""

        def change(connection: Connection) -> int | None:
            writing = Writing(connection, self._clock(), cause, who)
            act(writing)
            return writing.finish()

        return self._told(await self._write(change))

    def _told(self, revision: int | None) -> int | None:
        """Followers hear of what was committed."""
        if revision is not None:
            self._committed[revision] = self._written_at
            if len(self._committed) > REMEMBERED:
                del self._committed[next(iter(self._committed))]
            self._bell.ring()
        return revision

    async def ask(self, act: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._database.read, act)

    async def _write(self, act: Callable[[Connection], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(self._written, act)

    def _written(self, act: Callable[[Connection], T]) -> T:
        def write(connection: Connection) -> T:
            if self._term is not None:
                leadership.fence(connection, self._term)
            return act(connection)

        done = self._database.write(write)
        self._written_at = self._clock()  # here: the loop may be busy for a while
        return done
