"""Who runs a command, as `mesh_changes` has it."""

import os
import socket
from getpass import getuser


def caller() -> str:
    """`user@host`; the number of a user who has no name, as in many containers."""
    try:
        user = getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
