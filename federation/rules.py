"""The federation's rules as the configuration writes them, and what is meant by them."""

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator

from meshfed.catalog.byhand import PROVIDER as REGISTERED
from meshfed.catalog.model import Platform, ServiceName
from meshfed.catalog.preferences import RELATIONS, Preference, Preferences
from meshfed.federation.fields import spelt
from meshfed.federation.findings import Finding, Strict, unknown

SHARE = re.compile(r"([0-9]{1,3})%")


def share(text: object) -> int:
    found = SHARE.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise ValueError(f"{spelt(text)} is not a share: write 70%")
    percent = int(found[1])
    if not 1 <= percent <= 100:
        raise ValueError(f"{text!r} must be 1% to 100%")
    return percent


def service(text: str) -> str:
    return str(ServiceName.parse(text))


Share = Annotated[
    int,
    PlainValidator(
        share, json_schema_input_type=Annotated[str, Field(pattern=f"^{SHARE.pattern}$")]
    ),
]
Weight = Annotated[int, Field(strict=True, ge=1, le=65535)]
ServiceKey = Annotated[str, AfterValidator(service)]


class Rule(Strict):
    """What holds for a service; what is absent is as for all of them."""

    owners: tuple[str, ...] | None = Field(
        default=None, description="of providers that claim one endpoint, the first here has it"
    )
    prefer: tuple[str, ...] | None = Field(
        default=None, description="what is called first, and what when that fails"
    )
    weights: dict[str, Weight] | None = Field(
        default=None, description="shares of the calls, by platform or provider"
    )
    minimum_healthy: Share | None = Field(
        default=None, description="share of a priority below which calls spill over to the next"
    )

    def over(self, below: Preference) -> Preference:
        weights = below.weights if self.weights is None else tuple(sorted(self.weights.items()))
        return Preference(
            below.owners if self.owners is None else self.owners,
            below.prefer if self.prefer is None else self.prefer,
            weights,
            self.minimum_healthy or below.minimum_healthy,
        )


class Federation(Rule):
    """Whose word holds, and which endpoints are called first."""

    services: dict[ServiceKey, Rule] = Field(
        default={}, description="what holds instead for one service"
    )

    @property
    def preferences(self) -> Preferences:
        general = self.over(Preference())
        services = {name: rule.over(general) for name, rule in self.services.items()}
        return Preferences(general, MappingProxyType(services))


def clashes(federation: Federation, providers: Collection[str]) -> Iterator[Finding]:
    """Names of nobody, and those that stand in a list twice."""
    names = (*Platform, *providers, REGISTERED)
    yield from _clashes(("federation",), federation, names)
    for name, rule in federation.services.items():
        yield from _clashes(("federation", "services", name), rule, names)


def _clashes(at: tuple[str, ...], rule: Rule, names: Collection[str]) -> Iterator[Finding]:
    lists: Mapping[str, tuple[tuple[str, ...] | None, Collection[str]]] = {
        "owners": (rule.owners, names),
        "prefer": (rule.prefer, (*RELATIONS, *names)),
    }
    for key, (written, known) in lists.items():
        for n, name in enumerate(written or ()):
            if name not in known:
                yield (*at, key, n), f"{name!r} is {_unknown(name, known)}"
            elif name in (written or ())[:n]:
                yield (*at, key, n), f"{name!r} stands here twice"
    for name in rule.weights or ():
        if name not in names:
            yield (*at, "weights", name), _unknown(name, names)


def _unknown(name: str, known: Collection[str]) -> str:
    return unknown(name, list(dict.fromkeys(map(str, known))))
