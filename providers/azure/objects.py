"""What is kept of Azure's resources: only the fields that endpoints are made of.

Everything else is skipped while it is read. What is null is as good as absent, as Azure has it.
Of 24,000 machines these values are the most that is held, so what many have alike is one object.
"""

from functools import lru_cache

import msgspec
from msgspec.structs import force_setattr


class Kept(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A value without cycles: the garbage collector need not look at it."""


@lru_cache(maxsize=4096)
def shared(value: Kept | None) -> Kept | None:
    """The object that was the first to be equal."""
    return value


class Named(Kept, frozen=True):
    """What has an id, in lower case: Azure writes the same one in upper, lower and mixed case."""

    id: str

    def __post_init__(self) -> None:
        force_setattr(self, "id", self.id.lower())


class Reference(Kept, frozen=True):
    id: str | None = None  # in lower case

    def __post_init__(self) -> None:
        force_setattr(self, "id", self.id and self.id.lower())


# Machines: virtual machines, and the instances of Uniform scale sets


class NicChoice(Kept, frozen=True):
    primary: bool | None = None


class NicReference(Named, frozen=True):
    properties: NicChoice | None = None


class NetworkProfile(Kept, frozen=True):
    network_interfaces: tuple[NicReference, ...] | None = None


class Status(Kept, frozen=True):
    code: str | None = None


class ApplicationHealth(Kept, frozen=True):
    status: Status | None = None


class InstanceView(Kept, frozen=True):
    statuses: tuple[Status, ...] | None = None
    vm_health: ApplicationHealth | None = None
    platform_fault_domain: int | None = None


class MachineProperties(Kept, frozen=True):
    provisioning_state: str | None = None
    network_profile: NetworkProfile | None = None
    virtual_machine_scale_set: Reference | None = None
    platform_fault_domain: int | None = None
    instance_view: InstanceView | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "instance_view", shared(self.instance_view))


class OwnProperties(MachineProperties, frozen=True):
    vm_id: str | None = None  # by which Azure attests it


class Machine(Named, frozen=True):
    name: str | None = None
    location: str | None = None
    zones: tuple[str, ...] | None = None
    tags: dict[str, str] | None = None
    properties: OwnProperties | None = None


class State(Named, frozen=True):
    """A virtual machine, as the list of states has it."""

    properties: MachineProperties | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        force_setattr(self, "properties", shared(self.properties))


class ScaleSetProperties(Kept, frozen=True):
    orchestration_mode: str | None = None


class ScaleSet(Kept, frozen=True):
    id: str  # as Azure writes it: what is below it is asked for by it
    tags: dict[str, str] | None = None
    properties: ScaleSetProperties | None = None


# Network interfaces and public addresses


class IpProperties(Kept, frozen=True):
    primary: bool | None = None
    subnet: Reference | None = None
    address: str | None = msgspec.field(default=None, name="privateIPAddress")
    public: Reference | None = msgspec.field(default=None, name="publicIPAddress")

    def __post_init__(self) -> None:
        force_setattr(self, "subnet", shared(self.subnet))


class IpConfiguration(Kept, frozen=True):
    properties: IpProperties | None = None


class NicProperties(Kept, frozen=True):
    primary: bool | None = None
    virtual_machine: Reference | None = None
    ip_configurations: tuple[IpConfiguration, ...] | None = None


class Nic(Named, frozen=True):
    tags: dict[str, str] | None = None
    properties: NicProperties | None = None


class PublicProperties(Kept, frozen=True):
    ip_address: str | None = None


class PublicAddress(Named, frozen=True):
    properties: PublicProperties | None = None


# What stands around them in an answer


class Page(msgspec.Struct, rename="camel"):
    value: list[msgspec.Raw] | None = None
    next_link: str | None = None


class ErrorDetail(msgspec.Struct):
    target: str | None = None


class Error(msgspec.Struct):
    code: str = ""
    message: str = ""
    details: list[ErrorDetail] | None = None


class ErrorBody(msgspec.Struct):
    error: Error | None = None
