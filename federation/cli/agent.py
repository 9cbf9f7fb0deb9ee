"""`meshfed agent`: on a machine that joined, what systemd starts; it needs no catalog."""

import os
import sys
from typing import Annotated

import typer

from meshfed.federation.cli.join import FOLDER, Out


def agent(
    out: Out = FOLDER,
    imds: Annotated[
        str,
        typer.Option(
            "--imds",
            metavar="URL",
            help="Where Azure announces what it does with this machine; else, on Azure alone,"
            " http://169.254.169.254.",
        ),
    ] = "",
) -> None:
    """Run this machine's part in the mesh: its Envoy, its certificate, and what is said of it.

    `meshfed join` has systemd start it. On SIGTERM or Ctrl-C it takes no new calls, lets those that
    are under way end, and ends its Envoy.

    Example: meshfed agent
    """
    # A third of the memory is this command line's: typer brings pydantic, and neither is needed.
    command = [sys.executable, "-m", "meshfed.federation.agent", str(out), imds]
    os.execv(sys.executable, command)
