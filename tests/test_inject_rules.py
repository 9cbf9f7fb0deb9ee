"""The iptables rules of a pod, applied in a network of its own: what is intercepted, what not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import captured
import pytest

from meshfed.federation.inject.capture import script
from meshfed.federation.inject.wishes import Capture

TOOLS = ("iptables-restore", "ip6tables-restore", "unshare", "ip")
ABSENT = [tool for tool in TOOLS if shutil.which(tool) is None]
PROGRAM = Path(captured.__file__)
EXCLUDED = Capture(
    inbound_ports=(9100,), outbound_ports=(5432,), outbound_ranges=(f"{captured.APART}/32",)
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(ABSENT), reason=f"no {', '.join(ABSENT)}"),
]


def answered(capture: Capture) -> dict[str, list[str]]:
    ended = subprocess.run(
        ("unshare", "--net", sys.executable, PROGRAM, "node", script(capture)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said: dict[str, list[str]] = json.loads(ended.stdout)
    return said


def test_what_comes_in_and_goes_out_goes_through_the_sidecar_but_for_what_is_excluded() -> None:
    said = answered(EXCLUDED)
    assert dict(zip(captured.CALLS["in"], said["in"], strict=True)) == {
        (captured.POD, 8080): "inbound",
        (captured.POD6, 8080): "inbound",
        (captured.POD, 9100): "excluded",
        (captured.POD, 15003): "inbound",
        (captured.POD, 15010): "metrics",
        (captured.POD, 15901): "probes",
    }
    assert dict(zip(captured.CALLS["out"], said["out"], strict=True)) == {
        (captured.ROOT, captured.NODE, 80): "outbound",
        (captured.ROOT, captured.NODE6, 80): "outbound",
        (captured.ROOT, captured.NODE, 5432): "node",
        (captured.ROOT, captured.APART, 80): "node",
        (captured.ROOT, "127.0.0.1", 8080): "application",
        (captured.ROOT, "::1", 8080): "application",
        (captured.ROOT, captured.POD, 8080): "application",
        (captured.ROOT, captured.POD6, 8080): "application",
        (captured.ENVOY, captured.NODE, 80): "node",
        (captured.ENVOY, captured.NODE6, 80): "node",
        (captured.ENVOY, "127.0.0.1", 8080): "application",
    }


def test_where_only_some_ranges_are_captured_all_else_is_left_alone() -> None:
    said = answered(Capture(only_ranges=(f"{captured.APART}/32", "fd09::/64")))
    assert dict(zip(captured.CALLS["out"], said["out"], strict=True)) == {
        (captured.ROOT, captured.NODE, 80): "node",
        (captured.ROOT, captured.NODE6, 80): "outbound",
        (captured.ROOT, captured.NODE, 5432): "node",
        (captured.ROOT, captured.APART, 80): "outbound",
        (captured.ROOT, "127.0.0.1", 8080): "application",
        (captured.ROOT, "::1", 8080): "application",
        (captured.ROOT, captured.POD, 8080): "application",
        (captured.ROOT, captured.POD6, 8080): "application",
        (captured.ENVOY, captured.NODE, 80): "node",
        (captured.ENVOY, captured.NODE6, 80): "node",
        (captured.ENVOY, "127.0.0.1", 8080): "application",
    }
