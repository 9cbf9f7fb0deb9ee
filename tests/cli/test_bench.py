"""`meshfed bench`, small: what it counts is so, whatever the machine is busy with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MESHFED = Path(sys.executable).with_name("meshfed")
SMALL = ("--services", "6", "--endpoints", "24", "--identities", "2", "--clusters", "4")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MESHFED, "bench", *SMALL, *arguments], capture_output=True, text=True, check=False
    )


def test_one_endpoint_is_one_push_to_each_proxy_and_has_its_floor_beside_it():
    done = bench("--proxies", "8", "--times", "2", "--scenario", "one-endpoint", "-o", "json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["scenarios"]
    assert (found["name"], found["times"]) == ("one-endpoint", 2)
    assert found["pushes"] == found["resources_sent"] == 2 * 8
    assert found["resources_by_type"] == {"EDS": 2 * 8}
    assert found["streams_lost"] == 0
    assert found["floor_ms"] > 0
    assert 0 < found["last_ack_ms"]["p50"] <= found["last_ack_ms"]["p99"]
    assert found["cpu_us_per_push"] > 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(("--scenario", "flood"), "flood is none of cold-start", id="a scenario"),
        pytest.param(("--proxies", "9"), "2 identities have 8 endpoints", id="too many proxies"),
        pytest.param(("--dialect", "rest"), "neither delta nor sotw", id="a dialect"),
    ],
)
def test_what_it_cannot_do_it_says(arguments: tuple[str, ...], why: str):
    done = bench(*arguments)
    assert done.returncode == 2
    assert why in " ".join(done.stderr.replace("│", " ").split())
