"""Names of the mesh on a machine: a real systemd-resolved asks a real sidecar for them alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import resolving
from google.protobuf.json_format import MessageToDict

from meshfed.catalog.model import ServiceName
from meshfed.federation.agent import naming
from meshfed.federation.demo.envoys import binary
from meshfed.xds.bootstrap import ENVOY
from meshfed.xds.dns import DNS_PORT, DOMAIN, dns_listener

PLACES = f"{os.environ['PATH']}:/lib/systemd:/usr/lib/systemd"
TOOLS = ("systemd-resolved", "resolvectl", "dbus-daemon", "unshare", "ip")
ABSENT = [tool for tool in TOOLS if shutil.which(tool, path=PLACES) is None]
ADDRESS = "240.240.0.1"


def sidecar() -> str:
    """The command of an Envoy that answers for one name, and does nothing else."""
    names = ((ServiceName("bookstore", "shop"), (ADDRESS,)),)
    listener = dns_listener(names, ("127.0.0.1",))
    static = {"listeners": [MessageToDict(listener, preserving_proto_field_name=True)]}
    bootstrap = json.dumps({"static_resources": static})
    return json.dumps([str(binary()), *ENVOY[1:], "--config-yaml", bootstrap, "-l", "error"])


def test_what_the_resolver_is_told_is_where_the_sidecar_answers() -> None:
    assert naming.SERVER.rpartition(":") == ("127.0.0.1", ":", str(DNS_PORT))
    assert naming.DOMAIN == DOMAIN


NO_NETWORKS = os.geteuid() != 0 or {"unshare", "ip"} & {*ABSENT}
HALF = f"ip link add {naming.LINK} type veth peer name {naming.OTHER_END}"
LOOK = f"ip -json address show dev {naming.LINK}"


@pytest.mark.skipif(bool(NO_NETWORKS), reason="network namespaces need root, unshare and ip")
@pytest.mark.parametrize("before", ["true", HALF], ids=["no link", "half a link"])
def test_a_link_of_which_only_half_was_made_is_finished(before: str) -> None:
    """Who made it was killed in between, or one of its commands failed."""
    made = "from meshfed.federation.agent import naming\nnaming.link()\nnaming.link()"
    ended = subprocess.run(
        ("unshare", "--net", "sh", "-ec", f'{before}; "$0" -c "$1"; {LOOK}', sys.executable, made),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (seen,) = json.loads(ended.stdout)
    address, _, bits = naming.ADDRESS.partition("/")
    assert [(each["local"], str(each["prefixlen"])) for each in seen["addr_info"]][:1] == [
        (address, bits)
    ]
    assert {"UP", "LOWER_UP"} <= {*seen["flags"]}


@pytest.mark.skipif(
    os.geteuid() != 0 or bool(ABSENT),
    reason=f"no {', '.join(ABSENT)}" if ABSENT else "namespaces need root",
)
def test_the_mesh_answers_for_its_own_names_and_nothing_else_is_other_than_it_was(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        (
            *("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"),
            *(sys.executable, resolving.__file__, str(tmp_path), sidecar()),
        ),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    before = said["before"]
    for moment, seen in said.items():
        assert seen["files"] == before["files"], moment
        assert seen["answers"][2:] == before["answers"][2:], moment
    network = ["NOERROR 10.1.1.1", "NOERROR fd01::1"]  # by its own resolver, as any other
    meshed = [f"NOERROR {ADDRESS}", f"NOERROR ::ffff:{ADDRESS}"]
    assert {moment: seen["answers"][:2] for moment, seen in said.items()} == {
        "before": network,
        "during": meshed,
        "its resolver started again": meshed,
        "the sidecar is dead": ["SERVFAIL ", "SERVFAIL "],
        "after": network,
    }
