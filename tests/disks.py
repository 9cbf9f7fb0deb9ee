"""Disks of a test's own, full or read-only: mounts that only one process and its children see."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = os.geteuid() == 0
OWN = ("unshare", *(() if ROOT else ("--user", "--map-root-user")), "--mount")
INTO = ("nsenter", *(() if ROOT else ("--user", "--preserve-credentials")), "--mount", "--target")
ASKING = """\
import json, sqlite3, sys
print(json.dumps(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()))
"""


@cache
def refusal(mounts: str) -> str:
    """Why nobody may mount this here; else nothing."""
    if shutil.which("unshare") is None:
        return "no unshare"
    tried = subprocess.run([*OWN, "sh", "-ec", mounts], capture_output=True, text=True)
    return tried.stderr.strip()


def mounted(mounts: str, command: Sequence[str]) -> list[str]:
    """The command, in a world in which some shell lines have mounted something before."""
    if why := refusal(mounts):
        pytest.skip(f"this cannot be mounted here: {why}")
    return [*OWN, "sh", "-ec", f'{mounts}\nexec "$@"', "sh", *command]


def beside(pid: int, *command: str | Path) -> str:
    """What a command says in the world of a process."""
    ended = subprocess.run([*INTO, str(pid), *command], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def asked(pid: int, file: Path, sql: str) -> list[list[object]]:
    """What a SQLite database in the world of a process answers."""
    answer: list[list[object]] = json.loads(beside(pid, sys.executable, "-c", ASKING, file, sql))
    return answer


def read_only(folder: Path) -> str:
    """Shell lines."""
    return f"mount --bind '{folder}' '{folder}'; mount -o remount,bind,ro '{folder}'"


def small(folder: Path, size: str) -> str:
    """Shell lines: an empty disk of its own, over a folder."""
    return f"mount -t tmpfs -o size={size} tmpfs '{folder}'"


def breakable(folder: Path, image: Path) -> str:
    """Shell lines: a disk that can become read-only under open files, as after an error of it.

    No other can: who asks for that in good order is told that it is busy.
    """
    made = f"test -e '{image}' || {{ truncate -s 32M '{image}'; mkfs.ext4 -q -F '{image}'; }}"
    return f"PATH=$PATH:/usr/sbin:/sbin; {made}; mount -t ext4 -o loop '{image}' '{folder}'"
