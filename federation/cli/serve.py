"""The commands that run something: `serve`, `demo`, `version`."""

import gc
from typing import Annotated

import typer

from meshfed.federation.cli.options import Config
from meshfed.federation.cli.output import Finding, Format, write


def serve(config: Config = None) -> None:
    """Run the mesh: watch the providers, keep the catalog, tell the proxies.

    It makes and migrates the catalog itself, and stops on SIGTERM or Ctrl-C once streams are
    drained.

    Example: meshfed serve --config /etc/meshfed/meshfed.yaml
    """
    from meshfed.federation.admin.logs import configure
    from meshfed.federation.cli.source import configured

    settings = configured(config)
    configure()
    gc.disable()  # what is loaded is no garbage: to look for it took a fifth of the start
    from meshfed.federation.run import CannotStart
    from meshfed.federation.run import serve as run

    gc.freeze()  # and stays: it is not searched while proxies wait
    gc.enable()
    try:
        run(settings)
    except CannotStart as why:
        raise Finding(why) from why


def version() -> None:
    """Say which version this is.

    Example: meshfed version
    """
    from importlib.metadata import version as installed

    write(f"meshfed {installed('meshfed')}\n")


def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="N",
            min=1,
            help="Walk through the phases in about so long, then end.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            "--platforms",
            metavar="NAMES",
            help="With kubernetes or azure beside hosts: one service on all of them, and each "
            "loses its power once. Stand-ins tell of their machines; all run here.",
        ),
    ] = "hosts",
    grpc: Annotated[
        bool,
        typer.Option(
            "--grpc",
            help="Without sidecars: one gRPC client balances over the machines of two providers.",
        ),
    ] = False,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="A live table, or one JSON object at the end.")
    ] = Format.TABLE,
) -> None:
    """Run a bookstore on this machine: eight sidecars, mutual TLS, a policy and a moving split.

    Example: meshfed demo --platforms kubernetes,azure,hosts --seconds 60 -o json
    """
    from meshfed.federation.demo.platforms import HOSTS, platforms
    from meshfed.federation.demo.run import run

    try:
        asked = platforms(on)
    except ValueError as why:
        raise typer.BadParameter(str(why), param_hint="--platforms") from why
    if grpc and asked != (HOSTS,):
        alone = "its providers are its own: leave --platforms out"
        raise typer.BadParameter(alone, param_hint="--grpc")
    raise typer.Exit(run(seconds, output.value, asked, grpc=grpc))
