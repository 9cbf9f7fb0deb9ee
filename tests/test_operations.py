"""docs/operations.md says what there is: every metric, and log lines that are really written."""

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from meshfed.federation.admin.metrics import Metrics

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text()
ROOMS = ("federation", "providers", "xds")
LOGGED = re.compile(r"log\.(\w+)\(\s*\"([^\"]+)\"")


def measured() -> set[str]:
    """As they are named at /metrics."""
    registry = CollectorRegistry()
    Metrics(registry)
    suffixes = {"counter": "_total", "info": "_info"}
    families = (each for each in registry.collect() if each.name.startswith("meshfed_"))
    return {each.name + suffixes.get(each.type, "") for each in families}


def written() -> set[tuple[str, str]]:
    """(level, event) of every line that the running mesh may log."""
    sources = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {found for path in sources for found in LOGGED.findall(path.read_text())}


def test_every_metric_has_a_row_and_every_row_a_metric() -> None:
    rows = re.findall(r"^\| `(meshfed_\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(measured())


def test_the_log_lines_are_such_as_are_written() -> None:
    lines = [json.loads(line) for line in PAGE.splitlines() if line.startswith('{"at"')]
    assert lines
    assert {(line["level"], line["event"]) for line in lines} <= written()
