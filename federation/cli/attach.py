"""`meshfed attach` and `detach`: machines of a platform that answer for a service."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import Finding, say
from meshfed.federation.cli.register import tell

if TYPE_CHECKING:
    from meshfed.catalog.model import Interception

T = TypeVar("T")


class Kind(StrEnum):
    """What can be attached."""

    VM = "azure-vm"
    VMSS = "azure-vmss"


COMPUTE = r"/subscriptions/[-0-9a-f]{36}/resourcegroups/[^/]+/providers/microsoft\.compute"
MACHINE = rf"{COMPUTE}/(virtualmachines|virtualmachinescalesets/[^/]+/virtualmachines)/[^/]+"
IDS = {Kind.VM: MACHINE, Kind.VMSS: rf"{COMPUTE}/virtualmachinescalesets/[^/]+"}
SHOWN = {Kind.VM: "az vm show", Kind.VMSS: "az vmss show"}

What = Annotated[
    Kind, typer.Argument(metavar="azure-vm|azure-vmss", help="A machine, or a whole scale set.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Its resource id: /subscriptions/….")]


def attach(
    kind: What,
    resource: Id,
    service: Annotated[
        str, typer.Option("--service", metavar="S", help="<name>.<namespace>: what it serves.")
    ],
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=1, max=65535, help="The service's port.")
    ],
    target: Annotated[
        int | None,
        typer.Option(
            "--target",
            metavar="N",
            min=1,
            max=65535,
            help="The application's port, if it is another.",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--identity",
            metavar="I",
            help="<account>.<namespace>; else what its tags say.",
            show_default=False,
        ),
    ] = None,
    interception: Annotated[
        str,
        typer.Option(
            "--interception",
            metavar="HOW",
            help="How traffic gets into its sidecar: explicit or transparent; none: it has none;"
            " grpc: its gRPC library needs none.",
        ),
    ] = "explicit",
    weight: Annotated[
        int, typer.Option("--weight", metavar="N", min=1, max=65535, help="Its share of calls.")
    ] = 1,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Let a machine of Azure, or each machine of a scale set, answer for a service.

    A provider of its subscription finds where it is. It stays so until `meshfed detach`.

    Example: meshfed attach azure-vmss /subscriptions/…/virtualMachineScaleSets/store
    --service bookstore.shop --port 8080 --identity bookstore.shop
    """
    from meshfed.catalog.model import Identity, ServiceName
    from meshfed.catalog.orders import Attachment
    from meshfed.catalog.store import Otherwise
    from meshfed.federation.cli.caller import caller

    said = Attachment(
        _id(kind, resource),
        _read("--service", ServiceName.parse, service),
        port,
        target or port,
        _read("--identity", Identity.parse, identity) if identity else None,
        _read("--interception", _interception, interception),
        weight,
    )
    try:
        revision = tell(lambda known: known.attach(said, caller()), catalog, config)
    except Otherwise as otherwise:
        raise Finding(otherwise) from otherwise
    say(f"{said}: unchanged" if revision is None else f"{said}: attached, revision {revision}")


def detach(
    kind: What,
    resource: Id,
    service: Annotated[
        str | None,
        typer.Option(
            "--service",
            metavar="S",
            help="Only from this service, <name>.<namespace>.",
            show_default=False,
        ),
    ] = None,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Take what was attached away; what tags say of the machine stays.

    Example: meshfed detach azure-vmss /subscriptions/…/virtualMachineScaleSets/store
    """
    from meshfed.catalog.model import ServiceName
    from meshfed.catalog.store import Unattached
    from meshfed.federation.cli.caller import caller

    where = _id(kind, resource)
    of = _read("--service", ServiceName.parse, service) if service else None
    try:
        revision = tell(lambda known: known.detach(where, of, caller()), catalog, config)
    except Unattached as unattached:
        raise Finding(unattached) from unattached
    say(f"{where}: detached, revision {revision}")


def _id(kind: Kind, text: str) -> str:
    """As it can be compared: Azure writes the same id in several casings."""
    found = text.strip().lower().rstrip("/")
    if not re.fullmatch(IDS[kind], found):
        what = "a virtual machine" if kind is Kind.VM else "a scale set"
        raise Finding(f"ID: {text!r} is not that of {what}: `{SHOWN[kind]} --query id` says it")
    return found


def _interception(text: str) -> "Interception":
    from meshfed.providers.azure.tags import interception

    return interception(text)


def _read(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise Finding(f"{option}: {error}") from error
