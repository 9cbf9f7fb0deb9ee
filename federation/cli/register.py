"""`meshfed register` and `deregister`: workloads that no list and no platform tells of."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import Finding, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import ValidationError

    from meshfed.catalog.store import Catalog
    from meshfed.providers.registered import Registration

T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The workload's name.")]


def register(
    name: Name,
    address: Annotated[
        list[str],
        typer.Option("--address", metavar="A", help="An IP address of it; may be repeated."),
    ],
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            metavar="S:PORT",
            help="What it serves, and the number, target or name of the port; may be repeated."
            " Without one it only calls.",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--identity",
            metavar="I",
            help="<account>.<namespace>; needed unless interception is none.",
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
    platform: Annotated[
        str, typer.Option("--platform", metavar="vm|host", help="What it is.")
    ] = "host",
    locality: Annotated[
        str | None,
        typer.Option(
            "--locality", metavar="L", help="<region> or <region>/<zone>.", show_default=False
        ),
    ] = None,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Make a workload known to the mesh, or what is registered by its name different.

    It stays until `meshfed deregister`. Every control plane on the catalog hears of it at once.

    Example: meshfed register db-1 --address 10.0.0.9 --service ledger.shop:3306 --identity db.shop
    """
    from meshfed.catalog.store import Taken
    from meshfed.federation.cli.caller import caller
    from meshfed.federation.register import register as registered
    from meshfed.providers.listing import Wrong

    said = _read(
        {
            "name": name,
            "address": address,
            "service": service or [],
            "identity": identity,
            "interception": interception,
            "platform": platform,
            "locality": locality,
        }
    )
    try:
        revision = tell(lambda known: registered(known, said, caller()), catalog, config)
    except Wrong as wrong:
        raise Finding(f"{_option(wrong.field)}: {wrong.why}") from wrong
    except Taken as taken:
        raise Finding(taken) from taken
    say(f"{name}: unchanged" if revision is None else f"{name}: registered, revision {revision}")


def deregister(name: Name, catalog: CatalogUrl = None, config: Config = None) -> None:
    """Take a registered workload out of the mesh: nobody calls it, and its proxy's stream ends.

    Example: meshfed deregister db-1
    """
    from meshfed.catalog.store import Unregistered
    from meshfed.federation.cli.caller import caller
    from meshfed.federation.findings import nearest

    async def gone(known: "Catalog") -> int | None:
        try:
            return await known.deregister(name, caller())
        except Unregistered as why:
            near = nearest(name, {workload.name for workload, _ in await known.registered()})
            raise Finding(f"{why}; did you mean {near}?" if near else why) from why

    say(f"{name}: deregistered, revision {tell(gone, catalog, config)}")


def _read(said: Mapping[str, object]) -> "Registration":
    """What is asked for, or a Finding with a line for each mistake in it."""
    from pydantic import ValidationError

    from meshfed.providers.registered import Registration

    given = {key: value for key, value in said.items() if value is not None}
    try:
        return Registration.model_validate(given)
    except ValidationError as error:
        raise Finding(*_mistakes(error)) from error


def _mistakes(error: "ValidationError") -> Iterator[str]:
    from meshfed.providers.hostlist import explain
    from meshfed.providers.registered import Registration

    for each in error.errors(include_url=False):
        yield f"{_option(str(each['loc'][0]))}: {explain(each, Registration)}"


def _option(field: str) -> str:
    return "NAME" if field == "name" else f"--{field}"


def tell(act: "Callable[[Catalog], Awaitable[T]]", catalog: CatalogUrl, config: Config) -> T:
    """What comes of it in the catalog, which must have the tables of this version."""
    import asyncio

    from meshfed.federation.cli.source import catalog_url, existing, migrated, opened

    async def told() -> T:
        async with opened(url) as known:
            return await act(known)

    url = catalog_url(catalog, config)
    migrated(existing(url))
    return asyncio.run(told())
