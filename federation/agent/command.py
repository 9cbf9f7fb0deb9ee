"""One command of this machine's, and what it said."""

import subprocess
from collections.abc import Sequence

PATIENCE = 60.0  # seconds; some wait for others' locks by themselves


class Unable(Exception):
    """It cannot be done; one line."""


def told(command: Sequence[str], given: str = "") -> str:
    """Its answer; `given`: what it reads. Blocks. Raises Unable."""
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except FileNotFoundError as error:
        raise Unable(f"no {command[0]} in PATH") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unable(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise Unable(f"{command[0]}: {'; '.join(lines) or f'exit code {done.returncode}'}")
    return done.stdout
