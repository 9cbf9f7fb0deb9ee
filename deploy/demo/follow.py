"""How a stand-in for a platform follows the file that says what there is."""

import signal
from collections.abc import Callable
from pathlib import Path

LOOK_AGAIN = 0.05  # seconds


def follow(path: Path, take: Callable[[str], None]) -> None:
    """Have the text taken whenever the file is another, until SIGTERM or Ctrl-C."""
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    seen = path.stat().st_ino
    while True:
        if (now := path.stat().st_ino) != seen:  # whoever edits it puts a new one in its place
            seen = now
            take(path.read_text())
        if signal.sigtimedwait(stops, LOOK_AGAIN):
            return
