"""`meshfed workload`: what people say of a workload's health, over all that platforms say."""

import unicodedata
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import Finding, say
from meshfed.federation.cli.register import Name, tell

if TYPE_CHECKING:
    from meshfed.catalog.overrides import State

app = typer.Typer(no_args_is_help=True, help="Drain a workload, disable it, and enable it again.")

UNSHOWN = ("Cc", "Zl", "Zp")  # of Unicode's categories: control characters, ends of lines
LONGEST = 500  # characters of a reason
Reason = Annotated[str, typer.Option("--reason", metavar="R", help="Why, for those who ask later.")]


@app.command()
def drain(
    name: Name, reason: Reason = "", catalog: CatalogUrl = None, config: Config = None
) -> None:
    """Send it no new calls, and let those end that are under way. It holds until `enable`.

    Example: meshfed workload drain store-1 --reason "kernel update"
    """
    from meshfed.catalog.overrides import State

    _override(name, State.DRAINED, reason, catalog, config)


@app.command()
def disable(
    name: Name, reason: Reason = "", catalog: CatalogUrl = None, config: Config = None
) -> None:
    """Take it for unhealthy, whatever its platform and its probes say. It holds until `enable`.

    Example: meshfed workload disable store-1 --reason "answers nonsense"
    """
    from meshfed.catalog.overrides import State

    _override(name, State.DISABLED, reason, catalog, config)


@app.command()
def enable(name: Name, catalog: CatalogUrl = None, config: Config = None) -> None:
    """Let its platform and its probes say again how it is.

    Example: meshfed workload enable store-1
    """
    _override(name, None, "", catalog, config)


def _override(
    name: str, state: "State | None", reason: str, catalog: CatalogUrl, config: Config
) -> None:
    from meshfed.catalog.overrides import Override
    from meshfed.catalog.workloads import Unfound, override
    from meshfed.federation.cli.caller import caller

    if any(unicodedata.category(each) in UNSHOWN for each in reason):
        raise Finding("--reason: one line, without control characters")
    if len(reason) > LONGEST:
        raise Finding(f"--reason: {len(reason)} characters: {LONGEST} at most")
    who = caller()
    said = Override(state, reason, who) if state else None
    try:
        news = tell(lambda known: override(known, name, said, who), catalog, config)
    except Unfound as why:
        raise Finding(why) from why
    say(f"{name}: {state or 'enabled'}" if news else f"{name}: unchanged")
