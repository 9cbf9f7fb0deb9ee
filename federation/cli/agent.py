"""`meshfed agent`: on a machine that joined, what systemd starts; it needs no catalog."""

import os
import sys

from meshfed.federation.cli.join import FOLDER, Out


def agent(out: Out = FOLDER) -> None:
    """Run this machine's part in the mesh: its Envoy, and the renewal of its certificate.

    `meshfed join` has systemd start it. On SIGTERM or Ctrl-C it takes no new calls, lets those that
    are under way end, and ends its Envoy.

    Example: meshfed agent
    """
    # A third of the memory is this command line's: typer brings pydantic, and neither is needed.
    command = [sys.executable, "-m", "meshfed.federation.agent", str(out)]
    os.execv(sys.executable, command)
