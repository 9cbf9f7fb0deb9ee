"""Machines that join, renew and leave, and those that were refused, each with its line in history.

What was refused moves nothing: it is told under the revision that stands.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from meshfed.catalog import rows, tokens
from meshfed.catalog.believe import believe, held
from meshfed.catalog.byhand import PROVIDER
from meshfed.catalog.leases import UNHEARD
from meshfed.catalog.model import Known, Service, ServiceName, Workload
from meshfed.catalog.plain import Into, Plain
from meshfed.catalog.register import Taken, declared, deregister, register, taken
from meshfed.catalog.schema import NEW, joined
from meshfed.catalog.store import Catalog
from meshfed.catalog.together import APART, Together
from meshfed.catalog.tokens import Token
from meshfed.catalog.versions import WORKLOADS
from meshfed.catalog.workloads import called
from meshfed.catalog.writing import Writing

PROBES = Plain(
    "select t.probes from joined j join tokens t on t.token = j.token where j.workload = :workload"
)
OF_MACHINE = Plain(
    "select j.workload, w.name, j.silence from joined j join workloads w on w.workload = j.workload"
    " and w.valid_to_revision is null where j.machine = :machine"
)
BEGUN = Into(
    "joined",
    ("workload", "token", "serial", "not_after"),
    ("joined_at", "lease_until", "silence"),
)
SERVER = "join server"  # of what several machines have changed together
HERE = WORKLOADS.current("workload $among(ids)")


@dataclass(frozen=True, slots=True)
class Given:
    """The certificate that a machine is given."""

    serial: str
    not_after: str  # as `stamp` writes it


class Unadmitted(ValueError):
    """The catalog knows why this machine may not join; one line."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A machine that comes with a token."""

    known: Known
    token: str
    given: Given
    who: str

    @property
    def workload(self) -> Workload:
        (workload,) = self.known.workloads
        return workload


@dataclass(frozen=True, slots=True)
class Offer:
    """A token, and those of its services that the mesh has."""

    token: Token | None
    services: Mapping[ServiceName, Service]


Refusal = Unadmitted | Taken


class Joins:
    """What joining asks of one catalog. Every method raises Away."""

    def __init__(self, catalog: Catalog, apart: float = APART) -> None:
        """`apart`: seconds between two transactions in which machines join."""
        self._catalog = catalog
        self._arrivals = Together(self._join, apart=apart)
        self._looks = Together(self._offered)
        self._stand = Together(self._standing, apart=apart)

    async def create(self, token: Token, who: str) -> None:
        await self._catalog.change(lambda w: tokens.create(w, token, who), "token created", who)

    async def revoke(self, token: str, who: str) -> None:
        """Raises UnknownToken."""
        await self._catalog.change(lambda w: tokens.revoke(w, token), "token revoked", who)

    async def token(self, id_: str) -> Token | None:
        return await self._catalog.ask(lambda connection: tokens.find(connection, id_))

    async def offered(self, id_: str) -> Offer:
        """What there is for the bearer of a token."""
        return await self._looks.done(id_)

    async def _offered(self, ids: Sequence[str]) -> Sequence[Offer]:
        return await self._catalog.ask(lambda connection: _offers(connection, ids))

    async def tokens(self) -> tuple[Token, ...]:
        """All of them, the newest first."""
        return await self._catalog.ask(tokens.every)

    async def standing(self, workload: str) -> Workload | None:
        """The registered workload of an id."""
        return await self._stand.done(workload)

    async def _standing(self, ids: Sequence[str]) -> Sequence[Workload | None]:
        found = await self._catalog.ask(lambda connection: _standing(connection, ids))
        return [found.get(id_) for id_ in ids]

    async def called(self, workload: str) -> str:
        """What a workload of this id is called, or was; nothing of one that nobody knows."""
        return await called(self._catalog, workload)

    async def probes(self, workload: str) -> tuple[str, ...]:
        """What the agent of a machine that joined looks at."""
        return await self._catalog.ask(lambda connection: _probes(connection, workload))

    async def join(self, known: Known, token: str, given: Given, who: str) -> None:
        """Use a token up once and register its bearer, who is given this certificate: all or
        nothing. Raises Unadmitted, Taken.

        A name that is registered already stays whose it is.
        """
        if why := await self._arrivals.done(Arrival(known, token, given, who)):
            raise why

    async def _join(self, arrivals: Sequence[Arrival]) -> Sequence[Refusal | None]:
        """Why each is refused, if it is."""
        whose = {each.who for each in arrivals}
        who = whose.pop() if len(whose) == 1 else SERVER
        outcome: list[Refusal | None] = []
        await self._catalog.change(lambda w: outcome.extend(_join(w, arrivals)), "joined", who)
        return outcome

    async def attest(
        self, known: Known, policy: Token, machine: str, given: Given, who: str
    ) -> None:
        """Register a machine that its platform attests to be this one, as a policy says. Raises
        Unadmitted, Taken.

        A machine that stands is let in again, under its name alone.
        """
        await self._catalog.change(
            lambda w: _attest(w, known, policy, machine, given), "joined", who
        )

    async def renew(self, workload: Workload, shown: str, given: Given, who: str) -> None:
        """It is given another certificate for the one that it showed. Raises Unadmitted."""

        def act(writing: Writing) -> None:
            _same(writing, workload, shown)
            its = joined.c.workload == workload.id
            now = {"serial": given.serial, "former": shown, "not_after": given.not_after}
            writing.connection.execute(update(joined).where(its).values(now))
            writing.tell("join", workload.name, f"renewed, as {workload.identity}")

        await self._catalog.change(act, "renewed", who)

    async def leave(self, workload: Workload, shown: str, who: str) -> None:
        """Deregister it. Raises Unadmitted."""

        def act(writing: Writing) -> None:
            _same(writing, workload, shown)
            deregister(writing, workload.name)
            writing.tell("join", workload.name, "left")

        await self._catalog.change(act, "left", who)

    async def refused(self, name: str, why: str, who: str) -> None:
        """Tell that somebody was not let in."""
        tell = f"refused: {why}"
        await self._catalog.change(lambda w: w.tell("join", name, tell), "refused", who)


def _offers(connection: Connection, ids: Sequence[str]) -> list[Offer]:
    found = {token.id: token for token in tokens.these(connection, ids)}
    names = {name for token in found.values() for name in token.served}
    there = declared(connection, names)
    return [Offer(found.get(id_), there) for id_ in ids]


def _join(writing: Writing, arrivals: Sequence[Arrival]) -> list[Refusal | None]:
    """Admit these, each as if it had come alone; of who is refused nothing is written."""
    connection, scopes = writing.connection, [each.known.scope for each in arrivals]
    there = set(held(connection, PROVIDER, scopes, {}))
    elsewhere = taken(connection, [each.workload.name for each in arrivals])
    outcome: list[Refusal | None] = []
    admitted: list[Arrival] = []
    for each in arrivals:
        why = _refusal(writing, each, there, elsewhere)
        outcome.append(why)
        if why is None:
            admitted.append(each)
            there.add(each.known.scope)
    if not admitted:
        return outcome
    believe(writing, [UNHEARD.said_of(each.known) for each in admitted], PROVIDER, {})
    begun = [
        (each.workload.id, each.token, each.given.serial, each.given.not_after) for each in admitted
    ]
    BEGUN.on(connection, begun, (writing.at, writing.at, NEW))
    for each in admitted:
        how = f"admitted by token {each.token}, as {each.workload.identity}"
        writing.tell("join", each.workload.name, how, who=each.who)
    return outcome


def _refusal(
    writing: Writing, arrival: Arrival, there: Set[str], elsewhere: Mapping[str, Taken]
) -> Refusal | None:
    """Nothing, once a use of its token is counted."""
    name = arrival.workload.name
    why: Refusal | None = elsewhere.get(name)
    if arrival.known.scope in there:
        first = f"`meshfed leave` there, or `meshfed deregister {name}`, comes first"
        why = Unadmitted(f"{name} is registered already: {first}")
    token = arrival.token
    ended = tokens.ended(writing, token) if why else tokens.spend(writing, token)
    return Unadmitted(f"token {token} {ended}") if ended else why


def _attest(writing: Writing, known: Known, policy: Token, machine: str, given: Given) -> None:
    (workload,) = known.workloads
    stands = OF_MACHINE.row(writing.connection, machine=machine)
    if stands and stands[0] != workload.id:
        raise Unadmitted(
            f"this machine joined already, as {stands[1]}: `meshfed leave` there first"
        )
    if stands and not stands[2]:
        # Whatever runs on a machine can have it attested; who runs its agent has its key as well.
        heard = f"{workload.name} is in the mesh, and its agent is heard"
        raise Unadmitted(f"{heard}: `meshfed leave` first, or wait until it is not")
    if not stands and held(writing.connection, PROVIDER, [known.scope], {}):
        first = f"`meshfed deregister {workload.name}` comes first"
        raise Unadmitted(f"{workload.name} is registered already: {first}")
    tokens.stand(writing, policy)
    register(writing, workload.name, UNHEARD.said_of(known))
    row = {
        "workload": workload.id,
        "token": policy.id,
        "machine": machine,
        "joined_at": writing.present()[1],
        "serial": given.serial,
        "not_after": given.not_after,
        "lease_until": writing.present()[1],
        "silence": NEW,
    }
    writing.connection.execute(delete(joined).where(joined.c.workload == workload.id))
    writing.connection.execute(insert(joined).values(row))
    writing.tell("join", workload.name, f"admitted by {policy.id}, as {workload.identity}")


def _same(writing: Writing, workload: Workload, shown: str) -> None:
    """It may have left, or become another, since it was looked up.

    It has the last certificate that it was given, or, where that answer was lost, the one before.
    Whoever copied an older one finds it of no use.
    """
    if _standing(writing.connection, [workload.id]).get(workload.id) != workload:
        raise Unadmitted(f"{workload.name} was changed at the same moment: try again")
    its = select(joined.c.serial, joined.c.former).where(joined.c.workload == workload.id)
    if shown not in (writing.connection.execute(its).first() or ()):
        raise Unadmitted(f"not the last certificate that {workload.name} was given by joining")


def _probes(connection: Connection, workload: str) -> tuple[str, ...]:
    row = PROBES.row(connection, workload=workload)
    return tuple(row[0].split()) if row else ()


def _standing(connection: Connection, ids: Sequence[str]) -> Mapping[str, Workload]:
    """Of those ids the registered workloads, by id."""
    found = map(rows.workload, HERE.rows(connection, ids=[*ids]))
    return {each.id: each for each in found if each.provider == PROVIDER}
