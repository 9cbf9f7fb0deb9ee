"""What the configuration says of machines that join."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from meshfed.catalog.model import Identity
from meshfed.federation.fields import Duration, Label, Listen, Whole, duration
from meshfed.federation.findings import Strict
from meshfed.providers.probe import Probe
from meshfed.providers.registered import served

UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


Name = Annotated[str, Field(min_length=1, pattern=r"^[^/]+$")]
SCALE_SET = re.compile(
    r"/subscriptions/([^/]+)/resourcegroups/[^/]+"
    r"/providers/microsoft\.compute/virtualmachinescalesets/[^/]+"
)


def _scale_set(text: str) -> str:
    if "/" in text and not SCALE_SET.fullmatch(text.lower()):
        raise ValueError(f"{text!r} is neither a scale set's name nor its id")
    return text


ScaleSet = Annotated[str, Field(min_length=1), AfterValidator(_scale_set)]


def _identity(text: str) -> str:
    return str(Identity.parse(text))


def _served(text: str) -> str:
    served(text)
    return text


def _probe(text: str) -> str:
    return str(Probe.parse(text))


class JoinPolicy(Strict):
    """Machines that may join without a token, by what their platform attests."""

    name: Label = Field(description="its name in history")
    method: Literal["azure-attested"] = Field(description="`azure-attested`")
    subscription: str = Field(pattern=UUID, description="of Azure, whose machines may join")
    vm_ids: tuple[Annotated[str, Field(pattern=UUID)], ...] = Field(
        default=(), description="of those that may; empty: all of the subscription"
    )
    resource_groups: tuple[Name, ...] = Field(
        default=(),
        description="only machines of one of these; as what follows, by what a provider lists",
    )
    scale_sets: tuple[ScaleSet, ...] = Field(
        default=(),
        description="only members of one of these: names, in whatever group, or resource ids",
    )
    subnets: tuple[Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")], ...] = Field(
        default=(), description="<network>/<subnet>: only machines in one of these"
    )
    tags: dict[Name, str] = Field(
        default={}, description="only machines that have all of these, or whose scale set has"
    )
    identity: Annotated[str, AfterValidator(_identity)] = Field(
        description="<account>.<namespace>: as whom"
    )
    service: tuple[Annotated[str, AfterValidator(_served)], ...] = Field(
        default=(), description="<name>.<namespace>:<port>: what each of them serves"
    )
    probe: tuple[Annotated[str, AfterValidator(_probe)], ...] = Field(
        default=(), description="what their agents look at"
    )

    @model_validator(mode="after")
    def _within(self) -> Self:
        for each in self.scale_sets:
            found = SCALE_SET.fullmatch(each.lower())
            if found and found[1] != self.subscription.lower():
                why = "is of another subscription, whose machines do not join by this policy"
                raise ValueError(f"scale_sets: {each} {why}")
        return self


LISTED = ("resource_groups", "scale_sets", "subnets", "tags")  # what a provider must say


class Join(Strict):
    """The join server, for machines that come with a token."""

    listen: Listen | None = Field(
        default=None,
        description="for machines that join, such as 0.0.0.0:15129; absent: none may",
    )
    refusals: Whole = Field(
        default=20, ge=1, le=10_000, description="that one address may have in a minute"
    )
    policies: tuple[JoinPolicy, ...] = Field(default=(), description="who may join without a token")
    azure_roots: Path | None = Field(
        default=None,
        description="PEM: what Azure's attested documents must lead to; else this machine's roots",
    )
    lifetime: Duration = Field(
        default=duration("7d"),
        description="of certificates of machines that join; agents renew them at two thirds of it",
    )
    lease: Duration = Field(
        default=duration("30s"),
        description="how long an agent's word holds: without another one its machine is unhealthy",
    )
    gone: Duration = Field(
        default=duration("10m"),
        description="how long an agent is silent until what its machine serves is taken away",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.gone < self.lease:
            raise ValueError("gone: shorter than `lease`: what is not yet silent would be gone")
        return self
