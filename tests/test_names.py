"""The mesh's names, asked for in a pod's network with its rules: the sidecar alone answers.

And in a mesh that runs: what a sidecar answers while services come and go.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import live
import naming
import pytest
from google.protobuf.json_format import MessageToDict
from naming import MESH, QUESTIONS

from meshfed.catalog.model import ServiceName
from meshfed.federation.capture import Capture
from meshfed.federation.demo.control import until
from meshfed.federation.demo.envoys import binary
from meshfed.federation.demo.folder import replace
from meshfed.federation.inject.capture import script
from meshfed.xds.bootstrap import ENVOY
from meshfed.xds.dns import DNS_PORT, dns_listener

TOOLS = ("iptables-restore", "ip6tables-restore", "unshare", "ip")
ABSENT = [tool for tool in TOOLS if shutil.which(tool) is None]
WHY = "network namespaces need root" if os.geteuid() else f"no {', '.join(ABSENT)}"
namespaced = pytest.mark.skipif(os.geteuid() != 0 or bool(ABSENT), reason=WHY)
NAMES = (
    (ServiceName("bookstore", "shop"), ("240.240.0.1", "fd00:6d65::1")),
    (ServiceName("warehouse", "shop"), ("240.240.0.2",)),
)
OWN = "its own"
TOLD = {
    (MESH, "A"): "NOERROR 240.240.0.1",
    (MESH, "AAAA"): "NOERROR fd00:6d65::1",
    ("warehouse.shop.mesh", "A"): "NOERROR 240.240.0.2",
    ("warehouse.shop.mesh", "AAAA"): "NOERROR ::ffff:240.240.0.2",
    ("nobody.shop.mesh", "A"): "NXDOMAIN",
}


def sidecar() -> str:
    """The command of an Envoy that answers for NAMES, and does nothing else."""
    listener = dns_listener(NAMES, ("127.0.0.1", "::1"))
    static = {"listeners": [MessageToDict(listener, preserving_proto_field_name=True)]}
    pages = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}}
    bootstrap = json.dumps({"admin": pages, "static_resources": static})
    return json.dumps([str(binary()), *ENVOY[1:], "--config-yaml", bootstrap, "-l", "error"])


def asked(capture: Capture) -> dict[str, list[str]]:
    ended = subprocess.run(
        ("unshare", "--net", sys.executable, Path(naming.__file__), "node", script(capture),
         sidecar()),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    said: dict[str, list[str]] = json.loads(ended.stdout)
    return said


@namespaced
def test_the_meshs_names_are_answered_by_the_sidecar_and_no_others_whatever_becomes_of_it() -> None:
    said = asked(Capture())
    meshed = [TOLD.get(each, OWN) for each in QUESTIONS]
    assert said == {
        "IPv4": meshed,
        "IPv6": meshed,
        "sidecar": [OWN] * len(QUESTIONS),  # what it asks itself is not brought to it
        "killed": [OWN if each == OWN else "TimeoutError" for each in meshed],
    }


# In a mesh that runs

CALLER = "127.0.75.1"
HOSTS = f"""\
services:
  ledger.shop: {{ports: {{db: 3306}}, protocol: tcp}}
  stated.shop: {{ports: {{http: 80}}, vip: 10.96.0.7}}
hosts:
  - {{name: caller, identity: caller.shop, address: {CALLER}, bind: {CALLER},
     interception: transparent}}
"""
MORE = """\
  - {name: store, identity: store.shop, address: 127.0.75.2, service: store.shop, port: 8080}
"""


async def address_of(name: str) -> str:
    query = dns.message.make_query(f"{name}.mesh", "A")
    told = await dns.asyncquery.udp(query, CALLER, timeout=5, port=DNS_PORT)
    found = [str(each) for rrset in told.answer for each in rrset]
    return ", ".join(found) or dns.rcode.to_text(told.rcode())


async def test_a_service_has_a_name_from_its_first_host_on_and_no_question_is_lost_meanwhile(
    tmp_path: Path,
) -> None:
    async with live.mesh(tmp_path, HOSTS, {}, "caller") as mesh:
        assert await address_of("ledger.shop") == "240.240.0.1"
        assert await address_of("stated.shop") == "10.96.0.7"
        assert await address_of("store.shop") == "NXDOMAIN"
        told: list[str] = []
        enough = asyncio.Event()
        asking = asyncio.create_task(ask_on("ledger.shop", told, enough))
        for _ in range(3):
            await mesh.change(lambda: replace(mesh.hosts, HOSTS + MORE))
            await until("a name for it", lambda: named("store.shop", "240.240.0.2"))
            await mesh.change(lambda: replace(mesh.hosts, HOSTS))
            await until("the end of its name", lambda: named("store.shop", "NXDOMAIN"))
        enough.set()
        await asking
        assert set(told) == {"240.240.0.1"}
        assert len(told) > 10


async def ask_on(name: str, told: list[str], enough: asyncio.Event) -> None:
    """One question after another; one that is not answered within five seconds is lost."""
    while not enough.is_set():
        told.append(await address_of(name))


async def named(name: str, address: str) -> bool:
    return await address_of(name) == address
