"""The bookstore in two pods, on a VM and on a host: nothing fails, whatever is restarted."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

TOOLS = ("iptables-restore", "ip6tables-restore", "unshare", "nsenter", "setpriv", "ip")
ABSENT = [tool for tool in TOOLS if shutil.which(tool) is None]
PROGRAM = Path(__file__).with_name("town.py")
BUY, STEAL = "GET /buy-a-book/new", "POST /restock-books"
STORES = {"bookstore-v1", "bookstore-v2"}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(ABSENT), reason=f"no {', '.join(ABSENT)}"),
]


@dataclass(frozen=True)
class Lived:
    """What the applications saw, and what happened meanwhile."""

    calls: dict[str, list[tuple[float, float, str, str]]]
    spans: list[tuple[str, float, float]]
    plaintext: list[int]

    def answers(self, who: str, what: str, began: float = 0, ended: float = 1e12) -> list[str]:
        """Of whoever was called in between."""
        return [
            answer
            for start, end, called, answer in self.calls[who]
            if called.endswith(what) and start >= began and end <= ended
        ]

    def between(self, name: str) -> Iterator[tuple[float, float]]:
        return ((began, ended) for each, began, ended in self.spans if each == name)

    def while_its_sidecar_ran(self, who: str, what: str) -> list[str]:
        away = [*self.between(who)]
        return [
            answer
            for start, end, called, answer in self.calls[who]
            if called.endswith(what) and all(end < began or start > over for began, over in away)
        ]


def lived(rounds: int, seconds: float) -> Lived:
    with TemporaryDirectory(prefix="meshfed-town-") as folder:
        ended = subprocess.run(
            ("unshare", "--net", sys.executable, PROGRAM, folder, str(rounds)),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    return Lived(**json.loads(ended.stdout))


def nothing_failed(seen: Lived, rounds: int) -> None:
    told = {*seen.while_its_sidecar_ran("bookbuyer", BUY)}
    failed = [call for call in seen.calls["bookbuyer"] if call[-1] in told - STORES]
    assert told == STORES, (failed, seen.spans)
    assert {*seen.answers("vm", STEAL)} == {"bookwarehouse"}  # may restock: it is a bookstore
    # Others went on meanwhile.
    for name, who, what in (
        ("bookbuyer", "vm", STEAL),
        ("bookstore-v1", "bookbuyer", BUY),
        ("control plane", "bookbuyer", BUY),
    ):
        went_on = [len(seen.answers(who, what, *span)) for span in seen.between(name)]
        assert len(went_on) == rounds
        assert min(went_on) > 0, (name, went_on)


def test_nothing_fails_while_sidecars_and_the_control_plane_restart_and_tokens_are_renewed() -> (
    None
):
    seen = lived(1, 100)
    nothing_failed(seen, 1)
    for weights, stores in (
        ("100/0", {"bookstore-v1"}),
        ("0/100", {"bookstore-v2"}),
        ("50/50", STORES),
    ):
        span = next(seen.between(weights))
        assert {*seen.answers("bookbuyer", BUY, *span)} == stores, weights
    stolen = {*seen.while_its_sidecar_ran("bookbuyer", STEAL)}
    assert stolen <= {"IncompleteReadError", "ConnectionResetError"}, "the buyer may not restock"
    assert seen.plaintext == [0, 0, 0], "who has no certificate gets nothing"


@pytest.mark.soak
def test_nothing_fails_however_often() -> None:
    nothing_failed(lived(10, 1200), 10)
