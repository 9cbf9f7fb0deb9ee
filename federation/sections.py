"""The sections of the configuration: what each key means, and what it is if nobody says."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, SecretStr
from pydantic.json_schema import SkipJsonSchema

from meshfed.catalog.ranges import Ranges
from meshfed.federation.fields import (
    Address,
    Duration,
    HostName,
    Label,
    Listen,
    LoopbackListen,
    Namespaces,
    Switch,
    TrustDomain,
    VirtualRanges,
    duration,
)
from meshfed.federation.findings import Strict

if TYPE_CHECKING:
    from meshfed.federation.certificates.keys import Seal
    from meshfed.providers.kubernetes.options import Monitored, Where


class Mesh(Strict):
    """What holds for everyone in the mesh."""

    trust_domain: TrustDomain = Field(default="mesh.local", description="the SPIFFE trust domain")
    permissive: Switch = Field(
        default=False, description="true: everyone may call everyone, still over mutual TLS"
    )
    virtual_ranges: VirtualRanges = Field(
        default=("240.240.0.0/16",),
        description="for virtual IPs of services that no platform gives one: one IPv4 range, one"
        " IPv6 range, or both; empty: there are none",
    )

    @property
    def ranges(self) -> Ranges:
        return Ranges.parse(", ".join(self.virtual_ranges))


class ProviderEntry(Strict):
    """A platform to observe; the keys that are not known here are its type's own."""

    model_config = ConfigDict(extra="allow")

    name: Label = Field(description="its name in the catalog")
    type: str = Field(description="`hosts`, or what an installed package brings")

    @property
    def options(self) -> Mapping[str, object]:
        return self.model_extra or {}


class FilesEntry(Strict):
    """SMI objects in files."""

    type: Literal["files"] = Field(description="`files`: YAML or JSON")
    path: Path = Field(description="a file, or a folder with all in it")

    @property
    def source(self) -> str:
        """Its name in the catalog; no provider's has a colon."""
        return f"{self.type}:{self.path}"


class KubernetesEntry(Strict):
    """SMI objects in a cluster; the keys are those of the provider `kubernetes`."""

    type: Literal["kubernetes"] = Field(description="`kubernetes`: CRDs of a cluster")
    context: str = Field(default="", description="the context of a kubeconfig")
    kubeconfig: str = Field(default="", description="a file; else KUBECONFIG, ~/.kube/config")
    in_cluster: Switch = Field(default=False, description="true: the cluster that meshfed runs in")
    secret: str = Field(default="", description="<namespace>/<name> of the kubeconfig to use")
    namespaces: Namespaces = Field(default=None, description='names, or {label: "key=value"}')

    @property
    def source(self) -> str:
        """Its name in the catalog: how the cluster is reached."""
        inside = "in-cluster" if self.in_cluster else ""
        parts = (self.type, self.kubeconfig, self.context, inside, self.secret)
        return ":".join(part for part in parts if part)

    def reached(self, base: Path) -> "tuple[Where, Monitored]":
        """How, and which of its namespaces count. Raises ValueError: `key: why`."""
        from meshfed.providers.kubernetes.options import monitored, where

        said = self.model_dump(exclude_unset=True)
        return where(said, base), monitored(said.get("namespaces"))


SpecificationEntry = Annotated[FilesEntry | KubernetesEntry, Field(discriminator="type")]


class Certificates(Strict):
    """Who issues certificates, and for how long."""

    issuer: str = Field(default="local", description="`local`, or what an installed package brings")
    workload_lifetime: Duration = Field(
        default=duration("24h"), description="of certificates that are sent over SDS"
    )
    proxy_lifetime: Duration = Field(
        default=duration("8760h"),
        description="of certificates that `proxy bootstrap` writes",
    )
    key_file: Path = Field(
        default=Path("meshfed.key"),
        description="what seals the root key, made on first run; MESHFED_KEY goes before it",
    )
    key: SkipJsonSchema[SecretStr] = Field(default=SecretStr(""), exclude=True)

    @property
    def seal(self) -> "Seal":
        from meshfed.federation.certificates.keys import Seal

        return Seal(self.key_file, self.key.get_secret_value())


class History(Strict):
    """What is kept of what was."""

    retain: Duration = Field(
        default=duration("30d"), description="how long it is kept that something ended"
    )
    retain_traffic: Duration = Field(
        default=duration("7d"), description="how long it is kept how many calls went where"
    )
    record_pushes: Switch = Field(
        default=False, description="true: keep which versions each proxy was sent"
    )


class Xds(Strict):
    """The xDS server."""

    listen: Listen = Field(
        default=Address("0.0.0.0:15128"), description="for proxies; port 0: any free"
    )
    tokens: Listen | None = Field(
        default=None,
        description="for pods, which show a token, such as 0.0.0.0:15130; absent: none may",
    )
    names: tuple[HostName, ...] = Field(
        default=(),
        description="by which gRPC clients find it, beside the machine's own: DNS or addresses",
    )


class Admin(Strict):
    """Health, metrics and the admin API."""

    listen: LoopbackListen = Field(
        default=Address("127.0.0.1:15080"), description="a loopback address; port 0: any free"
    )


class Health(Strict):
    """Health and metrics for who is not on this machine."""

    listen: Listen | None = Field(
        default=None,
        description="for kubelets and Prometheus, such as 0.0.0.0:15090; absent: `admin` alone",
    )
