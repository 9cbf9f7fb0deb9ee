"""`meshfed agent`: on a machine that joined, what systemd starts; it needs no catalog."""

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from meshfed.federation.cli.join import FOLDER, Out


class Level(StrEnum):
    """How much an Envoy says."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
    OFF = "off"


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
    envoy_log_level: Annotated[
        Level, typer.Option("--envoy-log-level", help="How much its Envoy says.")
    ] = Level.WARNING,
) -> None:
    """Run this machine's part in the mesh: its Envoy, its certificate, and what is said of it.

    `meshfed join` has systemd start it. On SIGTERM or Ctrl-C it takes no new calls, lets those that
    are under way end, and ends its Envoy.

    Example: meshfed agent
    """
    # A third of the memory is this command line's: typer brings pydantic, and neither is needed.
    given = (str(out), imds, envoy_log_level.value)
    os.execv(sys.executable, [sys.executable, "-m", "meshfed.federation.agent", *given])
