"""`meshfed bench`, small: what it counts is so, whatever the machine is busy with."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshfed.catalog.store import migrate

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
        pytest.param(("--proxies", "2", "--envoys", "2"), "fewer than 2", id="Envoys alone"),
    ],
)
def test_what_it_cannot_do_it_says(meshfed: Run, arguments: tuple[str, ...], why: str):
    done = meshfed("bench", *SMALL, *arguments)
    assert done.code == 2
    assert why in " ".join(done.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("mysql://root@db/mesh", "must be sqlite:///FILE or postgresql", id="another"),
        pytest.param("postgresql://me@127.0.0.1:1/mesh", "Connection refused", id="away"),
        pytest.param("sqlite:///no-such-folder/mesh.db", "no-such-folder/mesh.db", id="no folder"),
    ],
)
def test_a_database_that_it_cannot_have_is_one_line(meshfed: Run, url: str, why: str):
    done = meshfed("bench", *SMALL, "--proxies", "8", "--catalog", url)
    assert done.code == 1
    assert why in done.err.splitlines()[-1]


def test_a_database_of_ones_own_is_empty_afterwards_and_before(meshfed: Run, tmp_path: Path):
    url = f"sqlite:///{tmp_path}/mesh.db"
    asked = ("--proxies", "4", "--times", "2", "--scenario", "few-holders", "--catalog", url)
    done = subprocess.run([MESHFED, "bench", *SMALL, *asked], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "mesh.db")) as left:
        assert left.execute("select name from sqlite_master").fetchall() == []
    migrate(url)
    done = meshfed("bench", *SMALL, *asked)
    assert done.code == 1
    assert "there is a catalog in that database already" in done.err.splitlines()[-1]
