"""`meshfed provider`: what an operator tells the guardrail."""

from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.caller import caller
from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import Finding, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshfed.catalog.store import Catalog

app = typer.Typer(no_args_is_help=True, help="Pause a provider, or believe what it says.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The provider's name.")]


@app.command()
def accept(
    scope: Annotated[
        str, typer.Argument(metavar="SCOPE", help="As `get providers` shows it: rack/hosts.yaml.")
    ],
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Believe what a doubted scope says now, however much it removes.

    Example: meshfed provider accept rack/hosts.yaml
    """
    _tell(lambda known: known.accept(scope, caller()), catalog, config)
    say(f"{scope}: the next observation is believed as it stands")


@app.command()
def pause(name: Name, catalog: CatalogUrl = None, config: Config = None) -> None:
    """Keep what a provider last said, and ignore what it says from now on.

    Example: meshfed provider pause rack
    """
    _tell(lambda known: known.pause(name, caller()), catalog, config)
    say(f"{name}: paused; `meshfed provider resume {name}` ends it")


@app.command()
def resume(name: Name, catalog: CatalogUrl = None, config: Config = None) -> None:
    """Listen to a paused provider again.

    Example: meshfed provider resume rack
    """
    _tell(lambda known: known.resume(name, caller()), catalog, config)
    say(f"{name}: resumed")


def _tell(
    order: "Callable[[Catalog], Awaitable[None]]", catalog: CatalogUrl, config: Config
) -> None:
    import asyncio

    from meshfed.catalog.store import UnknownScope
    from meshfed.federation.cli.source import catalog_url, opened

    async def told() -> None:
        async with opened(catalog_url(catalog, config)) as known:
            await order(known)

    try:
        asyncio.run(told())
    except UnknownScope as unknown:
        raise Finding(unknown) from unknown
