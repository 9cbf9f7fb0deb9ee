"""`meshfed validate`: is it right, before it is used."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from meshfed.federation.cli.options import Config
from meshfed.federation.cli.output import Finding, say

STDIN = Path("-")


def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILES… | -]",
            help="Configurations, host lists, SMI manifests, or folders of them; - is stdin.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Check configurations, host lists and SMI manifests, for CI too: one line for each mistake.

    Without files: the configuration that `serve` would read, and the files that it names.

    Example: meshfed validate meshfed.yaml hosts.yaml policy/
    """
    from meshfed.federation.check import check
    from meshfed.federation.cli.source import configured

    if files is None:
        checked = check_configured(configured(config))
    rejected = check(tuple(files), sys.stdin)
    if rejected:
        raise Finding(*rejected)
    say("all is well")
