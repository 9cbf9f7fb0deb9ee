"""Hosts cut off from the control plane call each other as before, and hear then of what is new."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from joining import Ground, grounded
from machines import Machine, ip

from meshfed.catalog.database import stamp
from meshfed.catalog.reader import query
from meshfed.federation.agent import unit
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import replace
from meshfed.federation.join.machine import join
from meshfed.federation.join.papers import Server
from meshfed.federation.join.secret import Secret

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own is made by root alone"),
    pytest.mark.skipif(not shutil.which("ip"), reason="no ip on this machine (iproute2)"),
]

NETWORK = "10.213.57"
OUTSIDE = f"{NETWORK}.1"
CALLER, STORE = "127.0.57.1", "127.0.57.2"  # both in the network that is cut off
# When the network is back TCP tries again up to 1.6 s later, of one agent sooner than of the other:
# with a lease of a second, who was heard first made the other's silence that of no more than half.
LEASE = "3s"
KEEPALIVE = 30  # seconds until an Envoy notices that nobody answers
LONG = (pytest.mark.soak, pytest.mark.timeout(900))
KINDS = ("CDS", "EDS", "LDS", "RDS", "SDS")
RAN = "hosts:\n  - {name: far, address: 10.0.0.9, service: far.live, port: 80, identity: far.live"


def listed(weight: int) -> str:
    return f"{RAN}, weight: {weight}}}\n"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    folder = tmp_path / "mesh"
    folder.mkdir()
    xds = {"listen": "0.0.0.0", "names": [OUTSIDE]}
    with grounded(folder, listed(1), "127.0.57", xds, lease=LEASE) as ground:
        yield ground


@pytest.fixture
def hosts(ground: Ground, tmp_path: Path) -> Iterator[Machine]:
    """Two that joined, in one network."""
    made = Machine(tmp_path, NETWORK)
    try:
        made.start()
        made.boot()  # the application
        for name, address in (("caller", CALLER), ("store", STORE)):
            papers = made.there(joined, ground, name, address)
            made.runs(*unit.command(papers))
        yield made
    finally:
        made.end()


def joined(ground: Ground, name: str, address: str) -> Path:
    token = ground.token(identity=f"{name}.live", service=f"{name}.live:8080")
    server = Server(OUTSIDE, ground.port).believed_by(Secret.parse(token).pin)
    asked = {"token": token, "untrusted_name": name}
    join(server, ground.folder / name, asked, None, [address])
    return ground.folder / name


@dataclass
class Calls:
    """What the caller says to the store, again and again, over connections of its own."""

    enough: threading.Event = field(default_factory=threading.Event)
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    def run(self) -> None:
        while not self.enough.wait(0.01):
            self.call()

    def call(self) -> None:
        with closing(HTTPConnection(CALLER, 15001, timeout=5)) as line:
            try:
                line.request("GET", "/", headers={"host": "store.live:8080"})
                status = line.getresponse().status
            except (OSError, HTTPException) as error:
                self.failed.append(repr(error))
                return
        if status == 200:
            self.answered += 1
        else:
            self.failed.append(str(status))


async def sent(ground: Ground) -> dict[str, float]:
    """Resources, so far."""
    name = "meshfed_pushed_resources_total"
    return {kind: await ground.mesh.metric(name, type=kind) for kind in KINDS}


@pytest.mark.parametrize("seconds", [1.5, pytest.param(600, marks=LONG)])
async def test_who_is_cut_off_is_called_as_before_and_hears_then_of_what_changed_alone(
    ground: Ground, hosts: Machine, seconds: float
) -> None:
    async def ready() -> bool:
        once = Calls()
        once.enough.set()
        await asyncio.to_thread(hosts.there, once.call)
        return once.answered > 0 and await healed() and await asyncio.to_thread(heard) == 2

    def heard() -> int:
        """Whose agents have said that they live: who never was is silent though most are."""
        alive = f"select name from mesh_workloads where lease_until > '{stamp(time.time())}'"
        return len(query(ground.url, alive).rows)

    async def healed() -> bool:
        return await ground.mesh.control.in_sync() == 2

    await until("a call from host to host", ready)
    before, calls = await sent(ground), Calls()
    calling = asyncio.create_task(asyncio.to_thread(hosts.there, calls.run))
    ip("link", "set", hosts.device, "down")
    await asyncio.sleep(seconds / 2)
    revision = await ground.mesh.control.revision()
    replace(ground.mesh.hosts, listed(2))

    async def committed() -> bool:
        return await ground.mesh.control.revision() > revision

    await until("what changes meanwhile", committed)
    await asyncio.sleep(seconds / 2)
    assert not await healed()
    ip("link", "set", hosts.device, "up")
    await until("what is new at both hosts", healed)
    calls.enough.set()
    await calling
    assert calls.failed == []
    assert calls.answered > 10 * seconds
    after = await sent(ground)
    news = {kind: after[kind] - before[kind] for kind in KINDS}
    if seconds < KEEPALIVE:
        # One load assignment, for each of the two that have it.
        assert news == {**dict.fromkeys(KINDS, 0), "EDS": 2}
    else:
        # Their streams are others: what is asked for by name is answered, once (xDS has no other
        # way), but no cluster and no listener is sent again.
        assert (news["CDS"], news["LDS"]) == (0, 0)
        assert all(news[kind] <= before[kind] for kind in KINDS)
