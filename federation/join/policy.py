"""Who may join as what, where no token says it: policies of the configuration."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshfed.catalog.model import Identity
from meshfed.catalog.records import Record
from meshfed.catalog.tokens import Token
from meshfed.federation.join.attested import Attested
from meshfed.federation.join.joining import JoinPolicy
from meshfed.federation.settings import Settings

UNLISTED = "no provider lists this machine, so nothing of it is known"


@dataclass(frozen=True, slots=True)
class Policy:
    """Machines of a subscription, all or some, and what they join as. Names are in lower case."""

    terms: Token
    subscription: str
    vm_ids: frozenset[str] = frozenset()
    resource_groups: frozenset[str] = frozenset()
    scale_sets: frozenset[str] = frozenset()  # names, which several sets may have, and ids
    subnets: frozenset[str] = frozenset()  # <network>/<subnet>
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.terms.id

    @property
    def asks(self) -> bool:
        """Whether it asks what its platform lists of a machine."""
        return bool(self.resource_groups or self.scale_sets or self.subnets or self.tags)

    def concerns(self, machine: Attested) -> bool:
        """Names of Azure are the same in any case."""
        return machine.subscription.lower() == self.subscription

    def refuses(self, machine: Attested, listed: Record | None) -> str:
        """The first of its terms that a machine of the subscription does not meet, if any."""
        if self.vm_ids and machine.vm_id.lower() not in self.vm_ids:
            return "it is none of vm_ids"
        if not self.asks:
            return ""
        return next(self._unmet(listed), "") if listed else UNLISTED

    def _unmet(self, listed: Record) -> Iterator[str]:
        for what, wanted, found in (
            ("resource group", self.resource_groups, listed.group),
            ("scale set", self.scale_sets, self._scale_set(listed)),
            ("subnet", self.subnets, listed.subnet),
        ):
            if wanted and found not in wanted:
                yield f"its {what} is {found or 'none'}, not {' or '.join(sorted(wanted))}"
        tags = dict(listed.tags)
        for name, text in self.tags:
            if name not in tags:
                yield f"it has no tag {name}"
            elif tags[name] != text:
                yield f"its tag {name} is {tags[name]!r}, not {text!r}"

    def _scale_set(self, listed: Record) -> str:
        """Its name, where that is wanted; else its id. Azure has a machine and its set in one
        group."""
        name = listed.scale_set
        if not name or name in self.scale_sets or not any("/" in each for each in self.scale_sets):
            return name
        group, _, _ = listed.resource.partition("/providers/")
        return f"{group}/providers/microsoft.compute/virtualmachinescalesets/{name}"


def policies(settings: Settings) -> tuple[Policy, ...]:
    """In the order in which they stand: the first that lets a machine in is its."""
    return tuple(map(_policy, settings.join.policies))


def _policy(said: JoinPolicy) -> Policy:
    id_ = f"policy {said.name}"
    terms = Token(id_, "", Identity.parse(said.identity), said.service, 0, "", probes=said.probe)
    return Policy(
        terms,
        said.subscription.lower(),
        _lowered(said.vm_ids),
        _lowered(said.resource_groups),
        _lowered(said.scale_sets),
        _lowered(said.subnets),
        tuple((name.lower(), text) for name, text in said.tags.items()),
    )


def _lowered(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(str.lower, names))
