"""A demo under test: started, heard, and looked for when it should be gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MARK = "MARK_OF_A_DEMO_UNDER_TEST"


def marked(mark: str) -> list[int]:
    """The processes that a demo left behind, found by the environment that they inherited."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                inherited = (process / "environ").read_bytes()
            except OSError:  # it has just ended, or is not ours
                continue
            if f"{MARK}={mark}".encode() in inherited.split(b"\0"):
                found.append(int(process.name))
    return found


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@contextmanager
def demo(mark: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        (sys.executable, "-m", "meshfed.federation.cli.main", "demo", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {MARK: mark, "TMPDIR": str(folder)},
        text=True,
        preexec_fn=heed_ctrl_c,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heed_ctrl_c() -> None:
    """What nohup, or a script's `&`, starts is deaf to it, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def heard(process: subprocess.Popen[str], text: str) -> None:
    """Wait until the demo has said this on standard error."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"it never said {text!r}: {''.join(lines)}")
