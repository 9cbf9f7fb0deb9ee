"""The iptables rules of a pod, applied in a network of its own: what is intercepted, what not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import captured
import pytest
from google.protobuf.json_format import MessageToDict

from meshfed.catalog.model import Identity, Interception
from meshfed.catalog.view import ProxyClass, View
from meshfed.federation.capture import Capture
from meshfed.federation.demo.envoys import binary
from meshfed.federation.inject.capture import script
from meshfed.xds.bootstrap import ENVOY
from meshfed.xds.clusters import passthrough_cluster
from meshfed.xds.listeners import transparent_listener

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


def answered(capture: Capture, *envoy: str) -> dict[str, list[str]]:
    ended = subprocess.run(
        ("unshare", "--net", sys.executable, PROGRAM, "node", script(capture), *envoy),
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
        (captured.ROOT, f"::ffff:{captured.NODE}", 80): "outbound",
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


def test_a_kernel_that_cannot_look_into_queries_costs_the_meshs_names_alone() -> None:
    rules = script(Capture()).replace("-m string --algo kmp", "-m divination")
    ended = subprocess.run(
        ("unshare", "--net", "/bin/sh", "-ec", f"{rules}\niptables-save -t nat"),
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert "names in .mesh are not answered: " in ended.stderr
    assert "-A MESHFED_OUT -p tcp -j REDIRECT --to-ports 15001" in ended.stdout
    assert "15053" not in ended.stdout


def test_pods_that_exclude_port_53_have_no_rules_for_names() -> None:
    assert "15053" in script(Capture())
    assert "15053" not in script(Capture(outbound_ports=(53,)))


def test_where_only_some_ranges_are_captured_all_else_is_left_alone() -> None:
    said = answered(Capture(only_ranges=(f"{captured.APART}/32", "fd09::/64")))
    assert dict(zip(captured.CALLS["out"], said["out"], strict=True)) == {
        (captured.ROOT, captured.NODE, 80): "node",
        (captured.ROOT, captured.NODE6, 80): "outbound",
        (captured.ROOT, f"::ffff:{captured.NODE}", 80): "node",
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


def sidecar() -> str:
    """The command of an Envoy with the outbound listener of a pod with both families."""
    kind = ProxyClass(Identity("web", "shop"), (), "::", "127.0.0.1", "", Interception.TRANSPARENT)
    listener = transparent_listener(View(kind, "shop.example", (), (), (), ()))
    # What is dialled is dialled on: nothing of what answers is the mesh's.
    static = {
        "listeners": [MessageToDict(listener, preserving_proto_field_name=True)],
        "clusters": [MessageToDict(passthrough_cluster(), preserving_proto_field_name=True)],
    }
    pages = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}}
    bootstrap = json.dumps({"admin": pages, "static_resources": static})
    return json.dumps([str(binary()), *ENVOY[1:], "--config-yaml", bootstrap, "-l", "error"])


def test_what_goes_out_over_either_family_passes_through_a_real_sidecar() -> None:
    said = answered(Capture(), sidecar())
    called = dict(zip(captured.CALLS["out"], said["out"], strict=True))
    assert called[captured.ROOT, captured.NODE, 80] == "node"
    assert called[captured.ROOT, captured.NODE6, 80] == "node"
