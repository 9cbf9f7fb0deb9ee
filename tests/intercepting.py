"""What an agent makes of a kernel's rules, run by a test of them: `intercepting.py FOLDER`.

Run in a network namespace of its own, with a folder of papers. What it prints: which of the rules
that are wanted stand, after each thing that happens.
"""

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from captured import ip

from meshfed.federation.agent.intercepting import Intercepted, Intercepting, release, standing
from meshfed.federation.capture import IN, OUT, OUTBOUND, Capture

FLUSH = "*nat\nCOMMIT\n"  # as whoever restores other rules without --noflush


def stands() -> list[str]:
    saved = standing(4)
    return [chain for chain in (IN, OUT) if f"-j {chain}" in saved]


def main(folder: Path) -> None:
    ip("link", "set", "lo", "up")
    agent, said = Intercepting(folder), {}

    def look(moment: str) -> None:
        agent.look()
        said[moment] = stands()

    look("nobody listens")
    with socket.create_server(("127.0.0.1", OUTBOUND)):
        look("its sidecar listens")
    look("its sidecar is dead")
    subprocess.run(["iptables-restore"], input=FLUSH, text=True, check=True)
    said["somebody flushes"] = stands()
    with socket.create_server(("127.0.0.1", OUTBOUND)):
        look("it looks again")
        now = Intercepted.read(folder)
        assert now
        replace(now, capture=Capture(outbound_ports=(5432,))).write(folder)
        look("another exclusion")
    said["excluded"] = ["5432"] if "--dport 5432" in standing(4) else []
    Intercepting(folder).look()
    said["another agent"] = stands()
    release()
    said["released"] = stands()
    (folder / "join.json").unlink()
    look("left")
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
