"""One connected proxy: what it is offered, has acknowledged, and still owes."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import structlog

from meshfed.catalog.model import Identity, Interception, Mesh, Workload
from meshfed.catalog.reports import ProxyState, Pushed, Receipt
from meshfed.catalog.store import Away, Catalog
from meshfed.catalog.view import ProxyClass
from meshfed.catalog.workloads import called
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Reason
from meshfed.federation.care import Ailment, Pulse, ailment
from meshfed.xds.feed import Refusal
from meshfed.xds.objects import objects
from meshfed.xds.peer import Peer
from meshfed.xds.resource import SHORT, Type, World
from meshfed.xds.subscription import Memory

log = structlog.get_logger()


class Inadmissible(Refusal):
    """A peer that is told nothing, and which kind of reason that has.

    `workload`: the id of one that nobody knows.
    """

    def __init__(self, reason: Reason, why: str, workload: str = "") -> None:
        super().__init__(why)
        self.reason = reason
        self.workload = workload


def admitted(mesh: Mesh, peer: Peer) -> Workload:
    """The workload that a certificate speaks for. Raises Inadmissible.

    The node id is what a proxy says of itself, and counts for nothing.
    """
    if len(peer.uris) != 1 or len(peer.dns) != 1:
        why = "a proxy's certificate names one URI and one DNS name: use proxy bootstrap"
        raise Inadmissible(Reason.CERTIFICATE, why)
    try:
        identity = Identity.from_uri(peer.uris[0], mesh.trust_domain)
    except ValueError as error:
        raise Inadmissible(Reason.CERTIFICATE, str(error)) from error
    id_ = peer.dns[0].removesuffix(f".workload.{mesh.trust_domain}")
    workload = mesh.workloads.get(id_)
    if workload is None:
        raise Inadmissible(Reason.WORKLOAD, f"no provider knows the workload {peer.dns[0]}", id_)
    if workload.identity != identity:
        why = f"{workload.name} is {workload.identity} now, not {identity}"
        raise Inadmissible(Reason.IDENTITY, why)
    return workload


async def refused(catalog: Catalog, peer: Peer, why: Inadmissible) -> None:
    """Say who it was, by the name that history has."""
    name = ""
    if why.workload:
        with suppress(Away):
            name = await called(catalog, why.workload)
    fields = {"workload": name, "node": peer.node_id, "address": peer.address}
    log.warning("proxy refused", **fields, reason=str(why))


class Owed(NamedTuple):
    """A world that it was offered, and has not acknowledged all of."""

    number: int  # of the world
    revision: int
    since: float


class Subscriber:
    """The xDS server's Feed. Of the worlds that it is offered, the last counts."""

    def __init__(
        self,
        peer: Peer,
        workload: Workload,
        kind: ProxyClass,
        world: World,
        account: Account,
        memory: Memory | None = None,
    ) -> None:
        self.peer = peer
        self.workload = workload
        self.id = workload.id
        self.kind = kind
        self.world = world
        self.memory: Memory = {} if memory is None else memory  # of its streams before this one
        self.ended = ""
        self.welcome = False  # … to begin again, once it has ended
        self.closed = False
        self.unwritten = True  # the catalog does not have this state yet
        self._recorded: ProxyState | None = None  # what the catalog has of it
        self._account = account
        self._since = time.time()
        self._owes = [Owed(world.number, world.revision, self._since)]  # ascending
        self._expiring = Pulse(None, "", peer.not_after, peer.not_before).expiring
        self._ailment: Ailment | None = None  # when it was last looked at
        self._sent: dict[str, Mapping[str, str]] = {}  # by type, when pushes are recorded,
        self._pushed: dict[tuple[str, int], Pushed] = {}  # and what the catalog lacks of it
        self._rejections = {  # type → the proxy's words
            SHORT[kind]: past.words
            for kind, past in self.memory.items()
            if any(past.refuses(name, world.of(Type(kind))) for name in past.rejected)
        }
        self._answers: dict[str, Receipt] = {}  # the last one of each type
        self._moved: Callable[[], None] = lambda: None
        account.owe(world.revision)

    def offer(self, world: World) -> None:
        self.world = world
        self.unwritten = True
        self._owes.append(Owed(world.number, world.revision, time.time()))
        self._account.owe(world.revision)
        self._moved()

    def end(self, why: str, *, welcome: bool = False) -> None:
        self.ended, self.welcome = why, welcome
        self._moved()

    def begin_again(self, why: str) -> None:
        """What it rejected is tried once more then: a taken port may be free."""
        for past in self.memory.values():
            past.rejected.clear()
        self.end(why, welcome=True)

    def written(self, kind: int) -> ProxyState | None:
        """What the catalog lacks of it; marked as written, for what moves while it is written.

        `kind`: the number of its class.
        """
        self.unwritten = False
        state = self.state(kind)
        before, self._recorded = self._recorded, state
        if before is None:
            return replace(state, whole=True)
        return None if state == before else state

    def lost(self) -> None:
        """What the catalog has of it is not known."""
        self.unwritten = True
        self.forgotten()

    def forgotten(self) -> None:
        """The catalog has nothing of it."""
        self._recorded = None

    @property
    def answers(self) -> Collection[Receipt]:
        """The last of each type."""
        return self._answers.values()

    @property
    def recorded(self) -> bool:
        return self._recorded is not None

    def state(self, kind: int = 0) -> ProxyState:
        sick = self._sick(time.time())
        return ProxyState(
            proxy=self.id,
            identity=self.kind.identity,
            workload=self.workload.name,
            connected_since=self._since,
            state=sick.state if sick else "behind" if self._owes else "synced",
            reason=sick.reason if sick else "",
            envoy_version=self.peer.envoy_version,
            behind=self._owes[0].revision if self._owes else None,
            kind=kind,
        )

    def _sick(self, now: float) -> Ailment | None:
        if not (self._owes or self._rejections) and now <= self._expiring:
            return None  # mostly, and of a thousand proxies each second
        return ailment(self._pulse(), now)

    def _pulse(self) -> Pulse:
        # A "; " of the proxy's own would begin another type to who reads the reason.
        said = {kind: why.replace("; ", ", ") for kind, why in self._rejections.items()}
        rejected = "; ".join(f"{kind}: {why}" for kind, why in said.items())
        owed = (self._owes[0].revision, self._owes[0].since) if self._owes else None
        return Pulse(owed, rejected, self.peer.not_after, self.peer.not_before)

    # What those ask who care for it

    @property
    def name(self) -> str:
        return self.workload.name

    @property
    def well(self) -> bool:
        return not (self._owes or self._ailment)

    def examine(self, now: float) -> Ailment | None:
        """What is wrong with it; news of that is for the catalog, though no answer came."""
        found = self._sick(now)
        self.unwritten = self.unwritten or found != self._ailment
        self._ailment = found
        return found

    # What the server calls

    def listen(self, moved: Callable[[], None]) -> None:
        self._moved = moved

    def receipt(
        self,
        kind: str,
        version: str,
        sent_at: float,
        answered_at: float,
        rejected: str,
        about: tuple[str, ...] = (),
    ) -> None:
        if rejected:
            self._rejections[kind] = rejected
            log.warning(
                "configuration rejected",
                workload=self.workload.name,
                type=kind,
                objects=list(objects(about, rejected)),
                reason=rejected,
            )
        self.unwritten = True
        answer = Receipt(self.id, kind, version, sent_at, answered_at, rejected)
        self._answers[kind] = answer
        self._account.answered(answer)

    def overdue(self, kind: str) -> None:
        self._account.overdue(kind)
        log.warning("no answer in time", workload=self.workload.name, type=kind)

    def pushed(self, kind: str, revision: int, versions: Mapping[str, str]) -> None:
        # A rejected resource is what it was sent before: only the catalog may know that.
        before = self._sent.get(kind, {})
        whole = {name: version or before.get(name, "") for name, version in versions.items()}
        self._sent[kind] = whole
        self._pushed[kind, revision] = Pushed(self.id, kind, revision, whole)

    def unrecorded(self) -> tuple[Pushed, ...]:
        """What it was sent, since this was asked last; the last of each revision."""
        pushed, self._pushed = self._pushed, {}
        return tuple(pushed.values())

    def settled(self, world: World, at: float) -> None:
        paid = [owed.revision for owed in self._owes if owed.number <= world.number]
        if paid:
            self._owes = self._owes[len(paid) :]
            # An accepted response alone proves nothing: it may be the last good one, sent again.
            self._rejections = self._rejections if self._owes else {}
            self.unwritten = True
            self._account.paid(paid, at)

    def close(self) -> None:
        self.closed = True
        self._account.paid([owed.revision for owed in self._owes], time.time())
        self._owes = []


def speakers(live: Iterable[Subscriber]) -> dict[str, Subscriber]:
    """The stream that speaks for each proxy, oldest first.

    An Envoy that comes back before its dead stream is noticed has two; the newest speaks. A gRPC
    process has one for each name that it dials; one speaks that is not well, if any is.
    """
    found: dict[str, Subscriber] = {}
    for each in live:
        other = found.get(each.id)
        if other and each.kind.interception is Interception.GRPC:
            news = each.unwritten or other.unwritten
            other, each = (each, other) if each.well and not other.well else (other, each)
            other.unwritten, each.unwritten = False, news
        found[each.id] = each
    return found
