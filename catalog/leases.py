"""Until when machines that joined are taken for alive, and what their agents say of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs
from sqlalchemy import Connection

from meshfed.catalog.believe import believe, held
from meshfed.catalog.byhand import PROVIDER, scope
from meshfed.catalog.model import Endpoint, Health, Known, Workload
from meshfed.catalog.plain import Gathered, Plain
from meshfed.catalog.register import deregister
from meshfed.catalog.schema import GONE, MISSED
from meshfed.catalog.store import Catalog
from meshfed.catalog.together import APART, Together
from meshfed.catalog.writing import Writing

THEIRS = Plain(
    "select workload, serial, former, token, silence from joined where workload $among(ids)"
)
# Asked each second. By a plain join SQLite would go through all workloads of the mesh.
EVERY = Gathered(
    "j.workload, w.name, j.lease_until, j.silence, j.not_after",
    "from joined j left join workloads w on w.workload = j.workload"
    " and w.valid_to_revision is null where j.lease_until <> ''",
)
HEARD = Gathered("workload, silence, word", "from joined where workload $among(ids)")
RENEWED = Plain(
    "update joined set lease_until = k.value ->> 0, word = k.value ->> 1, silence = ''"
    " from $each(said) as k where workload = k.value ->> 2"
)
# Unless its agent was heard since that was looked at.
FELL_SILENT = Plain(
    "update joined set silence = :silence where workload = :workload and lease_until = :until"
    " returning workload"
)


@dataclass(frozen=True, slots=True)
class Word:
    """What an agent says of its machine; nothing that is wrong: it serves."""

    draining: str = ""  # why
    lost: str = ""  # why nothing there can be called
    failing: tuple[tuple[int, str], ...] = ()  # ports of its applications, and why

    @property
    def written(self) -> str:
        """As the catalog keeps it: nothing, where all is well."""
        said = (self.draining, self.lost, *(f"{port} {why}" for port, why in self.failing))
        return "\n".join(said) if any(said) else ""

    def said_of(self, known: Known) -> Known:
        """What is known of a machine, each of its endpoints with the verdict."""
        return replace(known, endpoints=frozenset(map(self.judged, known.endpoints)))

    def judged(self, endpoint: Endpoint) -> Endpoint:
        health, why = self.verdict(endpoint.target)
        return structs.replace(endpoint, health=health, health_reason=why)

    def verdict(self, port: int) -> tuple[Health, str]:
        """The worst first."""
        if self.lost:
            return Health.UNHEALTHY, self.lost
        if self.draining:
            return Health.DRAINING, self.draining
        why = dict(self.failing).get(port, "")
        return (Health.UNHEALTHY, why) if why else (Health.HEALTHY, "")


# Of a machine that joined. Whoever called it now would come before its own sidecar listens.
UNHEARD = Word(lost="it joined, and its agent has not been heard yet")


@dataclass(frozen=True, slots=True)
class Joined:
    """What is kept of one machine that joined."""

    serials: tuple[str, ...]  # of the certificates that it may show
    token: str
    silence: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life."""

    workload: Workload
    until: str  # as `stamp` writes it
    word: Word = Word()
    known: Known | None = None  # what it serves, where that was taken away meanwhile


@dataclass(frozen=True, slots=True)
class Lease:
    """One that was begun."""

    workload: str
    name: str
    until: str = field(compare=False)
    silence: str
    not_after: str


class Leases:
    """What leases ask of one catalog. Every method raises Away."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._looks = Together(self._joined, apart=APART)

    async def joined(self, workload: str) -> Joined | None:
        """None where it did not join by itself, or has left."""
        return await self._looks.done(workload)

    async def _joined(self, ids: Sequence[str]) -> Sequence[Joined | None]:
        found = await self._catalog.ask(lambda connection: THEIRS.rows(connection, ids=[*ids]))
        there = {id_: Joined((now, former), *rest) for id_, now, former, *rest in found}
        return [there.get(id_) for id_ in ids]

    async def every(self) -> tuple[Lease, ...]:
        found = await self._catalog.ask(EVERY.rows)
        return tuple(Lease(*row) for row in found if row[1])

    async def renew(self, beats: Sequence[Beat]) -> frozenset[str]:
        """Those that it was too late for: what they serve was taken away, and is not said here."""
        late: frozenset[str] = frozenset()

        def act(writing: Writing) -> None:
            nonlocal late
            late = _renew(writing, beats)

        await self._catalog.change(act, "what its agent says")
        return late

    async def miss(self, leases: Sequence[Lease], why: str) -> None:
        """Their endpoints are not called, until their agents are heard again."""
        await self._catalog.change(lambda w: _miss(w, leases, why), "a missed lease")

    async def bury(self, leases: Sequence[Lease]) -> None:
        """Their endpoints are taken away. The machines may come back as long as they can prove
        themselves."""
        await self._catalog.change(lambda w: _bury(w, leases), "a missed lease")

    async def forget(self, leases: Sequence[Lease]) -> None:
        """Those whose certificates have ended are registered no more."""
        await self._catalog.change(lambda w: _forget(w, leases), "a missed lease")


def _renew(writing: Writing, beats: Sequence[Beat]) -> frozenset[str]:
    """What is news is known here alone: the one before may have come to another replica."""
    ids = [beat.workload.id for beat in beats]
    there = {id_: said for id_, *said in HEARD.rows(writing.connection, ids=ids)}
    heard = [beat for beat in beats if beat.workload.id in there]
    late = {
        beat.workload.id
        for beat in heard
        if there[beat.workload.id][0] == GONE and beat.known is None
    }
    heard = [beat for beat in heard if beat.workload.id not in late]
    said = [(beat.until, beat.word.written, beat.workload.id) for beat in heard]
    RENEWED.run(writing.connection, said=json.dumps(said))
    _judge(writing, [b for b in heard if there[b.workload.id] != ["", b.word.written]])
    return frozenset(late)


def _judge(writing: Writing, beats: Sequence[Beat]) -> None:
    news = {beat.workload.scope: beat for beat in beats}
    known = _known(writing.connection, news)
    moved = []
    for where, beat in news.items():
        if (before := known.get(where)) is None:
            continue  # it has left meanwhile
        now = beat.word.said_of(beat.known or before)
        if now != before:
            moved.append(now)
        if beat.known:
            writing.tell("join", beat.workload.name, "back: its agent is heard again")
    if moved:
        believe(writing, moved, PROVIDER, {})


def _miss(writing: Writing, leases: Sequence[Lease], why: str) -> None:
    silent = _silent(writing.connection, leases, MISSED)
    word = Word(lost=why)
    known = _known(writing.connection, [scope(lease.name) for lease in silent]).values()
    moved = [word.said_of(each) for each in known]
    for lease in silent:
        writing.tell("join", lease.name, f"silent: {why}")
    if moved:
        believe(writing, moved, PROVIDER, {})


def _bury(writing: Writing, leases: Sequence[Lease]) -> None:
    silent = _silent(writing.connection, leases, GONE)
    known = _known(writing.connection, [scope(lease.name) for lease in silent]).values()
    for lease in silent:
        writing.tell("join", lease.name, "gone: its endpoints are taken away until it is back")
    if moved := [replace(each, endpoints=frozenset()) for each in known]:
        believe(writing, moved, PROVIDER, {})


def _forget(writing: Writing, leases: Sequence[Lease]) -> None:
    for lease in _silent(writing.connection, leases, GONE):
        deregister(writing, lease.name)
        ended = f"its certificate ended at {lease.not_after}"
        writing.tell("join", lease.name, f"forgotten: {ended}, and its agent is silent")


def _silent(connection: Connection, leases: Sequence[Lease], silence: str) -> list[Lease]:
    """Those that are so still, and are noted as that."""
    return [
        lease
        for lease in leases
        if FELL_SILENT.rows(connection, silence=silence, workload=lease.workload, until=lease.until)
    ]


def _known(connection: Connection, scopes: Iterable[str]) -> Mapping[str, Known]:
    there = held(connection, PROVIDER, scopes, {})
    return {where: each.known for where, each in there.items()}
