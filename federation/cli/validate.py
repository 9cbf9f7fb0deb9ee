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
    from meshfed.federation.check import checked, gathered

    given = gathered(files or _configuration(), sys.stdin, os.environ)
    for text in given.long:
        say(f"{text.file}: {len(text.text) / 1e6:.0f} MB to check: this takes a while")
    found = checked(given)
    for policy in found.unresolved:
        say(f"{policy} (it has no effect)")
    if found.rejected:
        raise Finding(*found.rejected)
    if not found.read:
        raise Finding("nothing to check: no configuration, host list or SMI manifest was found")
    write("".join(f"{file}: a {kind}, and right\n" for file, kind in found.read))


def _configuration() -> list[Path]:
    from meshfed.federation.settings import FOUND

    found = [path for path in FOUND if path.is_file()]
    if not found:
        raise typer.BadParameter(
            f"there is neither {' nor '.join(map(str, FOUND))}", param_hint="FILES"
        )
    return found[:1]
