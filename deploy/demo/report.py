"""How an application tells the demo what it did: lines of JSON on standard output."""

import json
import signal
import sys
import threading
import time

FLUSHED_EVERY = 0.1  # seconds

Call = tuple[float, float, str, str]  # started, ended (seconds since the epoch), path, outcome


class Report:
    """Collects calls from any thread; `until_stopped` writes them out from the main one."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    def call(self, started: float, path: str, outcome: str) -> None:
        with self.lock:
            self.calls.append((started, time.time(), path, outcome))

    def until_stopped(self) -> None:
        """Say `ready`, then write what was collected until SIGTERM or Ctrl-C."""
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: self.stopping.set())
        write({"ready": True})
        while not self.stopping.wait(FLUSHED_EVERY):
            self.flush()

    def flush(self) -> None:
        with self.lock:
            calls, self.calls = self.calls, []
        if calls:
            write({"calls": calls})


def write(line: object) -> None:
    try:
        print(json.dumps(line), flush=True)
    except BrokenPipeError:
        sys.exit("nobody reads this application's report any more")
