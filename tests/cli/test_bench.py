"""`meshfed bench`, small: what it counts is so, whatever the machine is busy with."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MESHFED = Path(sys.executable).with_name("meshfed")
Run = Callable[..., Any]  # how it ended: code, out, err, lines
SMALL = ("--services", "6", "--endpoints", "24", "--identities", "2", "--clusters", "4")


def test_one_endpoint_is_one_push_to_each_proxy_and_has_its_floor_beside_it():
    asked = ("--proxies", "8", "--times", "2", "--scenario", "one-endpoint", "-o", "json")
    command = [MESHFED, "bench", *SMALL, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["scenarios"]
    assert (found["name"], found["times"]) == ("one-endpoint", 2)
    assert found["pushes"] == found["resources_sent"] == 2 * 8
    assert found["resources_by_type"] == {"EDS": 2 * 8}
    assert found["streams_lost"] == 0
    assert found["floor_ms"] > 0
    assert 0 < found["last_ack_ms"]["p50"] <= found["last_ack_ms"]["p99"]
    assert found["cpu_us_per_push"] > 0
    assert 0 < found["loop_lag_ms"]["p50"] <= found["loop_lag_ms"]["p99"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(("--scenario", "flood"), "flood is none of cold-start", id="a scenario"),
        pytest.param(("--proxies", "9"), "2 identities have 8 endpoints", id="too many proxies"),
        pytest.param(("--dialect", "rest"), "neither delta nor sotw", id="a dialect"),
    ],
)
def test_what_it_cannot_do_it_says(meshfed: Run, arguments: tuple[str, ...], why: str):
    done = meshfed("bench", *SMALL, *arguments)
    assert done.code == 2
    assert why in " ".join(done.err.replace("│", " ").split())
