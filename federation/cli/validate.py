"""`meshfed validate`: is it right, before it is used."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from meshfed.federation.cli.output import Finding, say, write


def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILES… | -]",
            help="Configurations, host lists, SMI manifests, or folders of them; - is stdin.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check configurations, host lists and SMI manifests, for CI too: one line for each mistake.

    A configuration is checked with the files that it names. Without files: the configuration that
    `serve` would read.

    Example: meshfed validate meshfed.yaml hosts.yaml policy/
    """
    from meshfed.federation.check import check

    checked = check(files or _configuration(), sys.stdin, os.environ)
    for policy in checked.unresolved:
        say(f"{policy} (it has no effect)")
    if checked.rejected:
        raise Finding(*checked.rejected)
    if not checked.read:
        raise Finding("nothing to check: no configuration, host list or SMI manifest was found")
    write("".join(f"{file}: a {kind}, and right\n" for file, kind in checked.read))


def _configuration() -> list[Path]:
    from meshfed.federation.settings import FOUND

    found = [path for path in FOUND if path.is_file()]
    if not found:
        raise typer.BadParameter(
            f"there is neither {' nor '.join(map(str, FOUND))}", param_hint="FILES"
        )
    return found[:1]
