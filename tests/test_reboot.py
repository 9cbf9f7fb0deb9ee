"""A machine of its own network and /etc: two commands make it serve, also after a reboot."""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from joining import Ground, grounded
from machines import Machine

from meshfed.catalog.reader import query
from meshfed.federation.agent import unit
from meshfed.federation.demo.control import until
from meshfed.federation.demo.processes import environment

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine of its own is made by root alone"),
    pytest.mark.skipif(not shutil.which("ip"), reason="no ip on this machine (iproute2)"),
]

BUYER = "127.0.49.1"
HOSTS = f"""
hosts:
  - {{name: buyer, address: {BUYER}, bind: {BUYER}, identity: buyer.live}}
"""
NETWORK = "10.213.49"
XDS = {"listen": "0.0.0.0", "names": [f"{NETWORK}.1"]}
SERVICE, APPLICATION = "bookstore.shop", 8080


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("reboot")
    with grounded(folder, HOSTS, "127.0.49", XDS, lease="2s", gone="2s") as ground:
        yield ground


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, NETWORK)
    try:
        made.start()
        yield made
    finally:
        made.end()


async def test_who_follows_the_page_serves_also_after_a_reboot_and_leaves_no_trace(
    ground: Ground, machine: Machine
) -> None:
    create, _, select, drain, enable, leave = page()
    before = machine.files()
    printed = await asyncio.to_thread(typed, ground, create)
    join = next(line for line in printed.splitlines() if line.startswith("meshfed join "))
    said = await asyncio.to_thread(machine.typed, join)
    assert f"{machine.host}: joined" in said
    assert f"{unit.FOLDER / unit.NAME}: written" in said
    machine.boot()
    await ground.mesh.start("buyer")
    await until("an answer", lambda: answers(ground))
    assert machine.host in await asyncio.to_thread(typed, ground, select)

    # Power is lost, and comes back.
    machine.loses_power()
    assert not await answers(ground)
    machine.boot()
    await until("an answer after a reboot", lambda: answers(ground))

    # Off for so long that its endpoint is taken away, it is back as soon as it is up.
    await until("its agent is heard", serves(ground, (("healthy",),)))
    machine.loses_power()
    await until("the end of its endpoint", serves(ground, ()))
    machine.boot()
    await until("an answer after a long time off", lambda: answers(ground))

    for line, verdict in ((drain, "draining"), (enable, "healthy")):
        await asyncio.to_thread(typed, ground, line.replace("$NAME", machine.host))
        assert await serves(ground, ((verdict,),))()

    # What joining did is undone, by one command.
    said = await asyncio.to_thread(machine.typed, leave)
    assert re.search(rf"^{unit.FOLDER / unit.NAME}: removed$", said, re.MULTILINE)
    assert machine.files() == sorted({*before, *folders(unit.FOLDER)})
    assert await serves(ground, ())()
    await until("the end of its agent and its Envoy", alone(machine))
    assert not await answers(ground)


def page() -> list[str]:
    """The commands of docs/vm.md, in order."""
    lines = (Path(__file__).parent.parent / "docs" / "vm.md").read_text().splitlines()
    return [line[2:] for line in lines if line.startswith(("$ meshfed ", "# meshfed "))]


def typed(ground: Ground, line: str) -> str:
    """One command of a person on the control plane; what it said."""
    program = [sys.executable, "-m", "meshfed.federation.cli", *shlex.split(line)[1:]]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=False,
        cwd=ground.mesh.folder,
        env=environment(os.environ),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def folders(of: Path) -> list[str]:
    """Where the unit stood, as any machine with systemd has it."""
    inner = of.relative_to("/etc")
    return [str(each) for each in (inner, *inner.parents) if str(each) != "."]


def serves(ground: Ground, wanted: tuple[object, ...]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        asked = f"select health from mesh_endpoints where service = '{SERVICE}'"
        return (await asyncio.to_thread(query, ground.url, asked)).rows == wanted

    return look


def alone(machine: Machine) -> Callable[[], Awaitable[bool]]:
    """Its application is all that runs there."""

    async def look() -> bool:
        return len(await asyncio.to_thread(lambda: machine.running)) == 1

    return look


async def answers(ground: Ground) -> bool:
    async with ground.mesh.sidecars["buyer"].http() as client:
        got = await client.get("/", headers={"host": f"{SERVICE}:{APPLICATION}"})
    return got.status_code == 200
