"""The ways in which a machine proves who it is, each a small class."""

import hmac
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from cryptography import x509
from cryptography.x509.verification import Store
from msgspec import structs
from pydantic import ValidationError

from meshfed.catalog.database import stamp
from meshfed.catalog.inventory import Inventory
from meshfed.catalog.joins import Given, Joins
from meshfed.catalog.model import Interception, Known, Mesh, Service, ServiceName, Workload
from meshfed.catalog.records import Record
from meshfed.catalog.tokens import Token
from meshfed.federation.join.attested import Attested, Unattested, attested
from meshfed.federation.join.nonce import Nonces
from meshfed.federation.join.policy import Policy
from meshfed.federation.join.request import MALFORMED, Asked, Refused
from meshfed.federation.join.secret import Secret
from meshfed.federation.register import Register
from meshfed.federation.subscriber import Inadmissible, admitted
from meshfed.providers.hostlist import explain
from meshfed.providers.listing import Wrong
from meshfed.providers.registered import Registration, known
from meshfed.xds.peer import Peer

NOBODYS = "0" * 64  # a hash that no secret has
SIDECARS = (Interception.EXPLICIT, Interception.TRANSPARENT)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a connection: its address, and its certificate's names."""

    address: str
    peer: Peer | None = None  # none was shown; what was shown is verified, and valid now
    serial: str = ""  # of what was shown

    def said(self, asked: Asked) -> tuple[str, Sequence[str], str]:
        """Its own word: its name, where it is called, and how its traffic is intercepted."""
        at = asked.untrusted_addresses or [self.address]
        return asked.untrusted_name, at, asked.untrusted_interception

    @property
    def who(self) -> str:
        """As `mesh_changes` has it."""
        return f"join server, from {self.address}"


@dataclass(frozen=True, slots=True)
class Grant:
    """Whom a certificate may be made for, and what makes it so in the catalog."""

    workload: Workload
    # With the certificate. Raises Unadmitted or Taken: the catalog decides last.
    admit: Callable[[Given], Awaitable[None]]
    probes: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()  # of its applications, where it is new


class Method(Protocol):
    """One way in."""

    def presented(self, asked: Asked, caller: Caller) -> bool:
        """Whether this is how the machine wants to prove itself."""
        ...

    async def examine(self, asked: Asked, caller: Caller) -> Grant:
        """Raises Refused."""
        ...


class ByCertificate:
    """The last certificate that it was given, still valid, of a workload that still stands."""

    def __init__(self, joins: Joins, trust_domain: str) -> None:
        self._joins = joins
        self._trust_domain = trust_domain

    def presented(self, asked: Asked, caller: Caller) -> bool:
        return caller.peer is not None

    async def examine(self, asked: Asked, caller: Caller) -> Grant:
        workload = await self.holder(caller)
        if workload.interception not in SIDECARS:
            why = f"its interception is {workload.interception}: use `meshfed proxy bootstrap`"
            raise Refused(403, why, workload.name)
        renew = partial(self._joins.renew, workload, caller.serial, who=caller.who)
        return Grant(workload, renew, await self._joins.probes(workload.id))

    async def holder(self, caller: Caller) -> Workload:
        """The registered workload that a certificate speaks for. Raises Refused, Away."""
        if caller.peer is None:
            raise Refused(401, "certificate: none was shown")
        suffix = f".workload.{self._trust_domain}"
        ids = [name.removesuffix(suffix) for name in caller.peer.dns]
        found = [each for id_ in ids if (each := await self._joins.standing(id_))]
        mesh = Mesh(self._trust_domain, workloads={each.id: each for each in found})
        try:
            return admitted(mesh, caller.peer)
        except Inadmissible as why:
            there = "".join(each.name for each in found)
            name = there or (why.workload and await self._joins.called(why.workload))
            raise Refused(403, f"certificate: {why}", name) from why


class ByToken:
    """A token that an operator made: it says as whom and as what, and the machine does not."""

    def __init__(self, joins: Joins, clock: Callable[[], float] = time.time) -> None:
        self._joins = joins
        self._clock = clock

    def presented(self, asked: Asked, caller: Caller) -> bool:
        return bool(asked.token)

    async def examine(self, asked: Asked, caller: Caller) -> Grant:
        token, services = await self._standing(asked)
        said = registration(token, *caller.said(asked))
        try:
            news = apart(known(said, services))
        except Wrong as wrong:
            raise Refused(409, f"{wrong.field}: {wrong.why}", said.name) from wrong
        (workload,) = news.workloads
        admit = partial(self._joins.join, news, token.id, who=caller.who)
        return Grant(workload, admit, token.probes, targets(news))

    async def _standing(self, asked: Asked) -> tuple[Token, Mapping[ServiceName, Service]]:
        """And those of its services that the mesh has. Raises Refused."""
        try:
            shown = Secret.parse(asked.token)
        except ValueError as error:
            raise Refused(401, f"token: {error}", asked.untrusted_name) from error
        offer = await self._joins.offered(shown.id)
        token = offer.token
        # Whoever lacks the secret learns nothing, not even whether there is such a token.
        if not hmac.compare_digest(shown.hash, token.hash if token else NOBODYS) or not token:
            raise Refused(401, "token: unknown", asked.untrusted_name)
        if ended := token.ended(stamp(self._clock())):
            why = f"token: {token.id} {ended}: ask for a new one"
            raise Refused(401, why, asked.untrusted_name)
        return token, offer.services


class ByAttestation:
    """A document in which Azure attests what machine it is; a policy says as whom and as what."""

    def __init__(
        self,
        joins: Joins,
        services: Register,
        inventory: Inventory,
        policies: Sequence[Policy],
        roots: Store,
        nonces: Nonces,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._joins = joins
        self._services = services
        self._inventory = inventory
        self._policies = policies
        self._roots = roots
        self._nonces = nonces
        self._clock = clock

    def presented(self, asked: Asked, caller: Caller) -> bool:
        return bool(asked.document)

    async def examine(self, asked: Asked, caller: Caller) -> Grant:
        machine = self._attested(asked)
        listed = await self._listed(machine)
        policy = self._policy(machine, listed, asked)
        name, at, interception = caller.said(asked)
        # Where its platform says where it is called, its own word on that is none.
        at = [listed.address] if listed and listed.address else at
        said = registration(policy.terms, name, at, interception)
        try:
            services = await self._services.declared({each.service for each in said.service})
            news = apart(known(said, services))
        except Wrong as wrong:
            raise Refused(409, f"{wrong.field}: {wrong.why}", said.name) from wrong
        (workload,) = news.workloads
        vm = f"azure {machine.vm_id}"
        admit = partial(self._joins.attest, news, policy.terms, vm, who=caller.who)
        return Grant(workload, admit, policy.terms.probes, targets(news))

    async def _listed(self, machine: Attested) -> Record | None:
        """What its platform says of it, where a policy asks that. Raises Away."""
        if not any(each.asks for each in self._policies):
            return None
        parent = f"/subscriptions/{machine.subscription.lower()}/"
        return await self._inventory.find(machine.vm_id.lower(), parent)

    def _policy(self, machine: Attested, listed: Record | None, asked: Asked) -> Policy:
        """The first that lets it in. Raises Refused, with why each does not."""
        concerned = [each for each in self._policies if each.concerns(machine)]
        refused = [(each, each.refuses(machine, listed)) for each in concerned]
        for policy, why in refused:
            if not why:
                return policy
        whys = "; ".join(f"{policy.name}: {why}" for policy, why in refused)
        which = f"no policy lets in machine {machine.vm_id} of {machine.subscription}"
        why_not = f"document: {which}{whys and f': {whys}'}"
        raise Refused(403, why_not, asked.untrusted_name)

    def _attested(self, asked: Asked) -> Attested:
        """Raises Refused."""
        now = self._clock()
        try:
            document = b64decode(asked.document, validate=True)
            chain = asked.untrusted_chain.encode()
            between = x509.load_pem_x509_certificates(chain) if chain else []
            found = attested(document, between, self._roots, datetime.fromtimestamp(now, UTC))
        except Unattested as why:
            raise Refused(403, f"document: {why}", asked.untrusted_name) from why
        except MALFORMED as error:
            malformed = "document: not base64, or its chain is not PEM"
            raise Refused(400, malformed, asked.untrusted_name) from error
        if not self._nonces.good(found.nonce, now):
            old = "document: its nonce is not of this server, or older than five minutes"
            raise Refused(403, old, asked.untrusted_name)
        return found


def registration(
    token: Token, name: str, addresses: Sequence[str], interception: str
) -> Registration:
    """As what a machine is registered. Raises Refused."""
    said = {
        "name": name,
        "address": list(addresses),
        "service": list(token.services),
        "identity": str(token.identity),
        "interception": interception,
    }
    try:
        return Registration.model_validate(said)
    except ValidationError as error:
        places = {"name": "untrusted_name", "address": "untrusted_addresses"}
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        why = f"{places.get(field, field)}: {explain(first, Registration)}"
        raise Refused(422, why) from error


def targets(news: Known) -> tuple[int, ...]:
    """The ports of its applications."""
    return tuple(sorted({endpoint.target for endpoint in news.endpoints}))


def apart(news: Known) -> Known:
    """On a loopback address its sidecar listens on that alone, as its neighbours do on theirs."""
    (workload,) = news.workloads
    at = workload.addresses[0]
    if len(workload.addresses) > 1 or not ip_address(at).is_loopback:
        return news
    return replace(news, workloads=frozenset({structs.replace(workload, bind=at)}))
