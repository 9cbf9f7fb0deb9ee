"""Who may join as what, where no token says it: policies of the configuration."""

from dataclasses import dataclass

from meshfed.catalog.model import Identity
from meshfed.catalog.tokens import Token
from meshfed.federation.join.attested import Attested
from meshfed.federation.join.joining import JoinPolicy
from meshfed.federation.settings import Settings


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
    """In the order in which they stand: the first that lets a machine in is its."""
    return tuple(map(_policy, settings.join.policies))


def _policy(said: JoinPolicy) -> Policy:
    id_ = f"policy {said.name}"
    terms = Token(id_, "", Identity.parse(said.identity), said.service, 0, "", probes=said.probe)
    return Policy(terms, said.subscription.lower(), frozenset(map(str.lower, said.vm_ids)))
