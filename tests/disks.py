"""Disks of a test's own, full or read-only: mounts that only one process and its children see."""

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

OWN = ("unshare", "--user", "--map-root-user", "--mount")


@cache
def refusal() -> str:
    """Why nobody may mount anything here; else nothing."""
    if shutil.which("unshare") is None:
        return "no unshare"
    tried = subprocess.run([*OWN, "true"], capture_output=True, text=True)
    return tried.stderr.strip()


def mounted(mounts: str, command: Sequence[str]) -> list[str]:
    """The command, in a world in which some shell lines have mounted something before."""
    if why := refusal():
        pytest.skip(f"nothing can be mounted here: {why}")
    return [*OWN, "sh", "-ec", f'{mounts}\nexec "$@"', "sh", *command]


def read_only(folder: Path) -> str:
    """Shell lines."""
    return f"mount --bind '{folder}' '{folder}'; mount -o remount,bind,ro '{folder}'"


def small(folder: Path, size: str) -> str:
    """Shell lines: an empty disk of its own, over a folder."""
    return f"mount -t tmpfs -o size={size} tmpfs '{folder}'"
