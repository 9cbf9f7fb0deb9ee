"""Machines that join, renew and leave, and those that were refused, each with its line in history.

What was refused moves nothing: it is told under the revision that stands.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from meshfed.catalog import rows, tokens
from meshfed.catalog.believe import held
from meshfed.catalog.byhand import PROVIDER
from meshfed.catalog.model import Known, Workload
from meshfed.catalog.plain import Plain
from meshfed.catalog.register import deregister, register
from meshfed.catalog.schema import NEW, joined
from meshfed.catalog.store import Catalog
from meshfed.catalog.tokens import Token
from meshfed.catalog.versions import WORKLOADS
from meshfed.catalog.writing import Writing

PROBES = Plain(
    "select t.probes from joined j join tokens t on t.token = j.token where j.workload = :workload"
)
OF_MACHINE = Plain(
    "select j.workload, w.name, j.silence from joined j join workloads w on w.workload = j.workload"
    " and w.valid_to_revision is null where j.machine = :machine"
)
HERE = WORKLOADS.current(f"workload = :workload and provider = '{PROVIDER}'")


@dataclass(frozen=True, slots=True)
class Given:
    """The certificate that a machine is given."""

    serial: str
    not_after: str  # as `stamp` writes it


class Unadmitted(ValueError):
    """The catalog knows why this machine may not join; one line."""


class Joins:
    """What joining asks of one catalog. Every method raises Away."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def create(self, token: Token, who: str) -> None:
        await self._catalog.change(lambda w: tokens.create(w, token, who), "token created", who)

    async def revoke(self, token: str, who: str) -> None:
        """Raises UnknownToken."""
        await self._catalog.change(lambda w: tokens.revoke(w, token), "token revoked", who)

    async def token(self, id_: str) -> Token | None:
        return await self._catalog.ask(lambda connection: tokens.find(connection, id_))

    async def tokens(self) -> tuple[Token, ...]:
        """All of them, the newest first."""
        return await self._catalog.ask(tokens.every)

    async def standing(self, workload: str) -> Workload | None:
        """The registered workload of an id."""
        return await self._catalog.ask(lambda connection: _standing(connection, workload))

    async def probes(self, workload: str) -> tuple[str, ...]:
        """What the agent of a machine that joined looks at."""
        return await self._catalog.ask(lambda connection: _probes(connection, workload))

    async def join(self, known: Known, token: str, given: Given, who: str) -> None:
        """Use a token up once and register its bearer, who is given this certificate: all or
        nothing. Raises Unadmitted, Taken.

        A name that is registered already stays whose it is.
        """
        await self._catalog.change(lambda w: _join(w, known, token, given), "joined", who)

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


def _join(writing: Writing, known: Known, token: str, given: Given) -> None:
    (workload,) = known.workloads
    if why := tokens.spend(writing, token):
        raise Unadmitted(f"token {token} {why}")
    if held(writing.connection, PROVIDER, [known.scope], {}):
        first = f"`meshfed leave` there, or `meshfed deregister {workload.name}`, comes first"
        raise Unadmitted(f"{workload.name} is registered already: {first}")
    register(writing, workload.name, known)
    row = {
        "workload": workload.id,
        "token": token,
        "joined_at": writing.at,
        "serial": given.serial,
        "not_after": given.not_after,
        "lease_until": writing.at,
        "silence": NEW,
    }
    writing.connection.execute(insert(joined).values(row))
    writing.tell("join", workload.name, f"admitted by token {token}, as {workload.identity}")


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
    register(writing, workload.name, known)
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
    if _standing(writing.connection, workload.id) != workload:
        raise Unadmitted(f"{workload.name} was changed at the same moment: try again")
    its = select(joined.c.serial, joined.c.former).where(joined.c.workload == workload.id)
    if shown not in (writing.connection.execute(its).first() or ()):
        raise Unadmitted(f"not the last certificate that {workload.name} was given by joining")


def _probes(connection: Connection, workload: str) -> tuple[str, ...]:
    row = PROBES.row(connection, workload=workload)
    return tuple(row[0].split()) if row else ()


def _standing(connection: Connection, workload: str) -> Workload | None:
    row = HERE.row(connection, workload=workload)
    return rows.workload(row) if row else None
