"""The systemd unit that starts the agent whenever the machine does."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "meshfed-agent.service"
FOLDER = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # is there where systemd is what was booted (sd_booted(3))
STOPPING = 45  # seconds; the agent waits 30 for requests that are under way
PLAIN = re.compile(r"[\w@/.:=,+-]+", re.ASCII)

UNIT = """\
[Unit]
Description=meshfed agent: the sidecar of this machine
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={command}
Restart=always
RestartSec=1
# Were the agent killed, its Envoy would serve on, and the next agent takes it over.
KillMode=process
TimeoutStopSec={stopping}
# A sidecar holds two sockets for each call that is under way.
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


def command(folder: Path, *options: str) -> tuple[str, ...]:
    """What starts the agent, whoever does, and from anywhere."""
    program = (sys.executable, "-m", "meshfed.federation.cli", "agent")
    return (*program, "--out", str(folder.absolute()), *options)


def text(command: Sequence[str]) -> str:
    return UNIT.format(command=" ".join(map(quoted, command)), stopping=STOPPING)


def quoted(word: str) -> str:
    """One word of a command line, as systemd.service(5) reads it."""
    word = word.replace("%", "%%").replace("$", "$$")
    if PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def ours(folder: Path, usual: Path) -> bool:
    """Whether a unit is for that: a machine has one, and root alone may write it."""
    return folder == usual and os.geteuid() == 0


# What is done with it


def write(command: Sequence[str], folder: Path = FOLDER) -> Path:
    """Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    draft = path.with_suffix(".draft")
    draft.write_text(text(command))
    draft.replace(path)
    return path


def start() -> str:
    """Have systemd start it now and at every boot; why that did not work, or nothing."""
    if not BOOTED.is_dir():
        return "systemd is not what runs this machine"
    return _told("daemon-reload") or _told("enable", NAME) or _told("restart", NAME)


def remove(folder: Path = FOLDER) -> bool:
    """Stop it, and have it started no more; whether there was one. Raises OSError."""
    path = folder / NAME
    if not path.is_file():
        return False
    if BOOTED.is_dir():
        _told("disable", "--now", NAME)
    path.unlink()
    if BOOTED.is_dir():
        _told("daemon-reload")
    return True


def _told(*words: str) -> str:
    """What systemctl had to complain of."""
    try:
        done = subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, check=False, timeout=90
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"systemctl {words[0]}: {error}"
    return "" if done.returncode == 0 else f"systemctl {words[0]}: {done.stderr.strip()}"
