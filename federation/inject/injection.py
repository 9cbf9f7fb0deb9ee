"""What the configuration says of sidecars in pods: where they connect, and what they may use."""

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from meshfed.federation.capture import AZURE, network
from meshfed.federation.fields import DottedName, Listen, host_name, whole
from meshfed.federation.findings import Strict
from meshfed.xds.bootstrap import Address

Name = TypeVar("Name", bound=str)
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
QUANTITY = re.compile(
    r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?"
)
FACTORS = {
    **{suffix: Decimal(1000) ** n for n, suffix in enumerate(("n", "u", "m", "", *"kMGTPE"), -3)},
    **{f"{suffix}i": Decimal(1024) ** n for n, suffix in enumerate("KMGTPE", 1)},
}

SERVICE = re.compile(r"[-a-z0-9]+\.(?P<namespace>[-a-z0-9]+)\.svc(?=\.|$)")


class Sidecar(StrEnum):
    """Native: an init container that stays. Classic: the first container, which others wait for.

    Auto is native but where the cluster says otherwise, and only the webhook asks it.
    """

    AUTO = "auto"
    NATIVE = "native"
    CLASSIC = "classic"


def quantity(text: str) -> str:
    amount(text)
    return text


def amount(text: str) -> Decimal:
    """What a quantity comes to. Raises ValueError."""
    found = QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a quantity such as 100m or 64Mi")
    factor = FACTORS.get(found["suffix"] or "")
    return Decimal(text) if factor is None else Decimal(found["number"]) * factor


def exceeded(requests: Mapping[Name, str], limits: Mapping[Name, str]) -> dict[Name, str]:
    """Why an API server would refuse them, by resource: more is asked for than may be used."""
    return {
        name: f"requests.{name} {asked} is more than limits.{name} {limits[name]}"
        for name, asked in requests.items()
        if name in limits and amount(asked) > amount(limits[name])
    }


def dialled(text: str) -> str:
    try:
        where = Address.parse(text)
        host_name(where.host)
    except ValueError as error:
        why = "is not host:port, such as meshfed.meshfed.svc:15130"
        raise ValueError(f"{text!r} {why}") from error
    if not where.port:
        raise ValueError(f"{text!r}: nobody listens on port 0")
    return text


def image(text: str) -> str:
    if not text or any(each.isspace() for each in text):
        raise ValueError(f"{text!r} is not the name of an image")
    return text


Quantity = Annotated[str, AfterValidator(quantity)]
Image = Annotated[str, AfterValidator(image)]
Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(whole)]
Resource = Literal["cpu", "memory", "ephemeral-storage"]


class Excluded(Strict):
    """What goes past every sidecar."""

    inbound_ports: tuple[Port, ...] = Field(default=(), description="of pods")
    outbound_ports: tuple[Port, ...] = Field(default=(), description="that pods call")
    outbound_ranges: tuple[Annotated[str, AfterValidator(network)], ...] = Field(
        default=AZURE, description="of addresses that pods call; by default two of Azure's own"
    )


class Resources(Strict):
    """What a sidecar asks for, and what it may use."""

    requests: dict[Resource, Quantity] = Field(
        default={"cpu": "50m", "memory": "64Mi"}, description="cpu, memory, ephemeral-storage"
    )
    limits: dict[Resource, Quantity] = Field(default={}, description="the same; empty: none")

    @model_validator(mode="after")
    def _asks_for_what_it_may_use(self) -> Self:
        if why := "; ".join(exceeded(self.requests, self.limits).values()):
            raise ValueError(why)
        return self


class Injection(Strict):
    """Sidecars in pods."""

    listen: Listen | None = Field(
        default=None,
        description="for API servers that ask the webhook, such as 0.0.0.0:9443; absent: none may",
    )
    webhook: DottedName = Field(
        default="meshfed", min_length=1, description="the MutatingWebhookConfiguration's name"
    )
    control_plane: Annotated[str, AfterValidator(dialled)] = Field(
        default="meshfed.meshfed.svc:15130", description="host:port where pods find it"
    )
    audience: str = Field(default="meshfed", min_length=1, description="of the tokens of pods")
    image: Image = Field(
        default="envoyproxy/envoy:v1.40.0", description="Envoy's; with bash for classic sidecars"
    )
    init_image: Image = Field(
        default="meshfed-init:1", description="made of deploy/inject/Dockerfile: sh and iptables"
    )
    sidecar: Sidecar = Field(
        default=Sidecar.AUTO,
        description="`native` from Kubernetes 1.29 on, `classic`, or `auto`: by the cluster",
    )
    interception: Literal["transparent", "explicit"] = Field(
        default="transparent", description="`explicit`: without iptables"
    )
    exclude: Excluded = Field(default_factory=Excluded)
    resources: Resources = Field(default_factory=Resources)

    @property
    def hosts(self) -> tuple[str, ...]:
        """By which pods and API servers know the control plane: its certificate has them.

        An API server looks for <service>.<namespace>.svc, however much longer pods say it.
        """
        host = Address.parse(self.control_plane).host
        service = SERVICE.match(host)
        return tuple(dict.fromkeys((host, service.group() if service else host)))

    @property
    def namespace(self) -> str:
        """The control plane's own; empty where it is in no cluster that it injects for."""
        service = SERVICE.match(Address.parse(self.control_plane).host)
        return service["namespace"] if service else ""
