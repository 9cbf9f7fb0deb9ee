"""Making a token, and the one line that a person types on the machine."""

import shlex
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import ValidationError

from meshfed.catalog.database import stamp
from meshfed.catalog.joins import Joins
from meshfed.catalog.model import Identity
from meshfed.catalog.store import Catalog
from meshfed.catalog.tokens import Token
from meshfed.federation.called import machine
from meshfed.federation.certificates import issuer as issuers
from meshfed.federation.certificates.issuer import Unissuable, UnknownIssuer
from meshfed.federation.certificates.keys import Unsealable
from meshfed.federation.join.open import EVERYWHERE
from meshfed.federation.join.secret import Secret, pin
from meshfed.federation.settings import Settings
from meshfed.providers.hostlist import explain
from meshfed.providers.listing import Wrong
from meshfed.providers.probe import Probe, misplaced
from meshfed.providers.registered import Registration, known
from meshfed.xds.bootstrap import literal

SOMEBODY = {"name": "somebody", "address": "192.0.2.1"}  # who will bear it is not known yet


class Uninvitable(Exception):
    """No such token can be; a line for each mistake."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is shown, once."""

    token: str
    ends_at: str
    command: str = field(repr=False)


def where(settings: Settings) -> str:
    """The join server, as machines elsewhere can reach it."""
    listen = settings.join.listen
    assert listen is not None  # the command has looked
    # An address needs no DNS that knows this machine.
    own = sorted(machine(), key=lambda name: not literal(name))
    names = (*settings.xds.names, *own, "localhost")
    host = names[0] if listen.host in EVERYWHERE else listen.host
    return f"https://[{host}]:{listen.port}" if ":" in host else f"https://{host}:{listen.port}"


def registration(identity: str, services: Sequence[str]) -> Registration:
    """As what its bearers will be registered. Raises Uninvitable."""
    said = {**SOMEBODY, "identity": identity, "service": list(services)}
    try:
        return Registration.model_validate(said)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        lines = (f"--{each['loc'][0]}: {explain(each, Registration)}" for each in mistakes)
        raise Uninvitable("\n".join(lines)) from error


def looked_at(probes: Sequence[str], targets: Sequence[int]) -> tuple[str, ...]:
    """The probes as they are written, each of a port that is served. Raises Uninvitable."""
    try:
        parsed = [Probe.parse(each) for each in probes]
    except ValueError as error:
        raise Uninvitable(f"--probe: {error}") from error
    if why := misplaced(parsed, targets):
        raise Uninvitable(f"--probe: {why}")
    return tuple(map(str, parsed))


async def invite(
    settings: Settings,
    identity: str,
    services: Sequence[str],
    uses: int,
    life: timedelta,
    who: str,
    probes: Sequence[str] = (),
) -> Invitation:
    """Make a token. Raises Uninvitable, Away."""
    said = registration(identity, services)
    certificates = settings.certificates
    with closing(Catalog(settings.catalog)) as catalog:
        try:
            # What would be refused when it joins is refused now.
            news = known(said, await catalog.declared({each.service for each in said.service}))
            issuer = await issuers.load(certificates.issuer).open(
                trust_domain=settings.mesh.trust_domain, safe=catalog, seal=certificates.seal
            )
            root, *_ = await issuer.roots()
        except Wrong as wrong:
            raise Uninvitable(f"--{wrong.field}: {wrong.why}") from wrong
        except (Unissuable, UnknownIssuer, Unsealable) as why:
            raise Uninvitable(str(why)) from why
        secret = Secret.made(pin(root))
        ends_at = stamp(time.time() + life.total_seconds())
        serves = tuple(f"{each.service}:{each.port}" for each in said.service)
        token = Token(
            secret.id,
            secret.hash,
            Identity.parse(identity),
            serves,
            uses,
            ends_at,
            probes=looked_at(probes, [e.target for e in news.endpoints]),
        )
        await Joins(catalog).create(token, who)
    command = shlex.join(("meshfed", "join", where(settings), "--token", secret.text))
    return Invitation(secret.id, ends_at, command)
