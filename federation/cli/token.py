"""`meshfed token`: what machines join with."""

from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config, Output
from meshfed.federation.cli.output import Finding, Format, rendered, say, terminal_width, write

if TYPE_CHECKING:
    from meshfed.federation.settings import Settings

COLUMNS = ("token", "state", "identity", "services", "used", "uses", "ends_at", "made_by")

app = typer.Typer(no_args_is_help=True, help="Make tokens for machines that join, and end them.")


@app.command()
def create(
    identity: Annotated[
        str,
        typer.Option("--identity", metavar="I", help="As whom: <account>.<namespace>."),
    ],
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            metavar="S:PORT",
            help="What its bearer serves, as `register` takes it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            metavar="P",
            help="How its agent looks whether an application is well: http:8080/healthz, tcp:3306"
            " or grpc:9090; may be repeated. The port is the application's.",
            show_default=False,
        ),
    ] = None,
    uses: Annotated[
        int, typer.Option("--uses", metavar="N", min=1, max=10_000, help="For how many machines.")
    ] = 1,
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="T", help="How long it can be used: 90m, 24h, 7d.")
    ] = "1h",
    config: Config = None,
) -> None:
    """Make a token and print the command that joins with it. It is shown once, and kept as a hash.

    Run it where the control plane's key is.

    Example: meshfed token create --identity bookstore.shop --service bookstore.shop:8080 --ttl 1h
    """
    import asyncio

    from meshfed.federation.cli.caller import caller
    from meshfed.federation.cli.source import configured, existing, migrated, reachable
    from meshfed.federation.fields import duration
    from meshfed.federation.join.invite import Uninvitable, invite

    try:
        life = duration(ttl)
    except ValueError as why:
        raise Finding(f"--ttl: {why}") from why
    settings = configured(config)
    _served(settings)
    migrated(existing(settings.catalog))
    try:
        with reachable():
            made = asyncio.run(
                invite(settings, identity, service or [], uses, life, caller(), probe or [])
            )
    except Uninvitable as why:
        raise Finding(why) from why
    write(f"{made.command}\n")
    say(f"token {made.token}: {uses} uses, until {made.ends_at}; it is not shown again")


@app.command("list")
def list_(output: Output = Format.TABLE, catalog: CatalogUrl = None, config: Config = None) -> None:
    """List the tokens that were made: what they are for, and whether they stand.

    Example: meshfed token list
    """
    import time

    from meshfed.catalog.database import stamp
    from meshfed.catalog.joins import Joins
    from meshfed.federation.cli.register import tell

    now = stamp(time.time())
    rows = [
        (
            each.id,
            each.ended(now) or "stands",
            str(each.identity),
            ", ".join(each.services),
            each.used,
            each.uses,
            each.ends_at,
            each.made_by,
        )
        for each in tell(lambda known: Joins(known).tokens(), catalog, config)
    ]
    write(rendered(COLUMNS, rows, output, terminal_width()))


@app.command()
def revoke(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="Its first part, as `token list` has it.")
    ],
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """End a token now. Who joined with it stays: see `meshfed deregister`.

    Example: meshfed token revoke 3f9a01c4
    """
    from meshfed.catalog.joins import Joins
    from meshfed.catalog.tokens import UnknownToken
    from meshfed.federation.cli.caller import caller
    from meshfed.federation.cli.register import tell

    try:
        tell(lambda known: Joins(known).revoke(token, caller()), catalog, config)
    except UnknownToken as why:
        raise Finding(f"{why}: see `meshfed token list`") from why
    say(f"token {token}: revoked")


def _served(settings: "Settings") -> None:
    if settings.join.listen is None:
        why = "nobody listens for machines that join: set it to 0.0.0.0:15129, and restart `serve`"
        raise Finding(f"join.listen: {why}")
