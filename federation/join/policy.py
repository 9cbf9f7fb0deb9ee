"""Who may join as what, where no token says it: policies of the configuration."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from meshfed.catalog.model import Identity
from meshfed.catalog.tokens import Token
from meshfed.federation.join.attested import Attested
from meshfed.federation.join.joining import JoinPolicy
from meshfed.federation.join.probe import Probe
from meshfed.federation.settings import Refused, Settings
from meshfed.providers.hostlist import explain
from meshfed.providers.registered import Registration

SOMEBODY = {"name": "somebody", "address": "192.0.2.1"}  # who will join is not known yet


@dataclass(frozen=True, slots=True)
class Policy:
    """Machines of a subscription, all or some, and what they join as."""

    terms: Token
    subscription: str
    vm_ids: frozenset[str]

    def admits(self, machine: Attested) -> bool:
        """Names of Azure are the same in any case."""
        ours = machine.subscription.lower() == self.subscription
        return ours and (not self.vm_ids or machine.vm_id.lower() in self.vm_ids)


def policies(settings: Settings) -> tuple[Policy, ...]:
    """In the order in which they stand: the first that lets a machine in is its. Raises Refused."""
    written = settings.join.policies
    mistakes = [
        settings.reject(("join", "policies", n, field), why)
        for n, each in enumerate(written)
        for field, why in _mistakes(each)
    ]
    if mistakes:
        raise Refused(*mistakes)
    return tuple(map(_policy, written))


def _policy(said: JoinPolicy) -> Policy:
    id_ = f"policy {said.name}"
    terms = Token(id_, "", Identity.parse(said.identity), said.service, 0, "", probes=said.probe)
    return Policy(terms, said.subscription.lower(), frozenset(map(str.lower, said.vm_ids)))


def _mistakes(said: JoinPolicy) -> Iterator[tuple[str, str]]:
    try:
        asked = {**SOMEBODY, "identity": said.identity, "service": list(said.service)}
        Registration.model_validate(asked)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            yield str(each["loc"][0]), explain(each, Registration)
    for probe in said.probe:
        try:
            Probe.parse(probe)
        except ValueError as error:
            yield "probe", str(error)
