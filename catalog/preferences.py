"""The federation's rules: whose word on an endpoint holds, and which endpoints are called first."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SAME_ZONE, SAME_REGION, SAME_CLUSTER = RELATIONS = ("same-zone", "same-region", "same-cluster")


@dataclass(frozen=True, slots=True)
class Preference:
    """What holds for one service. Names are those of providers and platforms."""

    owners: tuple[str, ...] = ()  # of two that claim one endpoint, the first named here has it
    prefer: tuple[str, ...] = ()  # names and RELATIONS: what is called first, and what after it
    weights: tuple[tuple[str, int], ...] = ()  # by name, sorted; what is not named weighs 1
    minimum_healthy: int | None = None  # percent of a priority; fewer, and calls spill over

    def claim(self, provider: str, platform: str) -> int:
        """The place among the owners, from 0; behind them all who is not named."""
        held = (n for n, name in enumerate(self.owners) if name in (provider, platform))
        return next(held, len(self.owners))

    def weighed(self, provider: str, platform: str) -> tuple[str, int]:
        """As what it is weighed, and its weight: a provider's own goes before its platform's."""
        known = dict(self.weights)
        name = provider if provider in known else platform
        return name, known.get(name, 1)


NO_PREFERENCE = Preference()


@dataclass(frozen=True, slots=True)
class Preferences:
    """What holds for all services, and what holds instead for some."""

    general: Preference = NO_PREFERENCE
    services: Mapping[str, Preference] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, service: object) -> Preference:
        return self.services.get(str(service), self.general) if self.services else self.general

    @property
    def relations(self) -> frozenset[str]:
        """What any of them asks of where a caller is."""
        asked = {term for each in (self.general, *self.services.values()) for term in each.prefer}
        return frozenset(asked.intersection(RELATIONS))


NO_PREFERENCES = Preferences()


def written(preferences: Preferences) -> str:
    """As JSON, in the keys of the configuration; the same rules are the same text."""
    said = _said(preferences.general)
    if preferences.services:
        pairs = sorted(preferences.services.items())
        said["services"] = {service: _said(each) for service, each in pairs}
    return json.dumps(said) if said else ""


def read(text: str) -> Preferences:
    said = json.loads(text) if text else {}
    services = {name: _preference(each) for name, each in said.get("services", {}).items()}
    return Preferences(_preference(said), MappingProxyType(services))


def rows(preferences: Preferences) -> list[dict[str, str | int]]:
    """What is preferred, in rows that SQL can join; service: one with rules of its own, or ''."""
    every = {"": preferences.general, **preferences.services}
    return [
        {"service": service, "position": position, "term": term}
        for service, each in every.items()
        # Without a term: this service prefers nothing, whatever holds for the others.
        for position, term in [(-1, ""), *enumerate(each.prefer)]
    ]


def _said(each: Preference) -> dict[str, object]:
    said = {
        "owners": list(each.owners),
        "prefer": list(each.prefer),
        "weights": dict(each.weights),
        "minimum_healthy": each.minimum_healthy,
    }
    return {key: value for key, value in said.items() if value}


def _preference(said: Mapping[str, object]) -> Preference:
    match said.get("owners", []), said.get("prefer", []), said.get("weights", {}):
        case list(owners), list(prefer), dict(weights):
            least = said.get("minimum_healthy")
            return Preference(
                tuple(owners),
                tuple(prefer),
                tuple(sorted(weights.items())),
                least if isinstance(least, int) else None,
            )
    raise ValueError(f"{said} is none that this meshfed knows")
