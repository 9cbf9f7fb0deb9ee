"""Half an hour of everything that happens to a mesh: then all views are what they should be.

MESHFED_SOAK_SECONDS makes it shorter, to try it; MESHFED_SOAK_SEED repeats one.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from meshfed.catalog.model import Mesh, Workload
from meshfed.catalog.resolved import resolve
from meshfed.catalog.view import proxy_class, view
from meshfed.federation.bench import given
from meshfed.federation.bench.given import Size
from meshfed.federation.bench.stage import Stage, staged
from meshfed.federation.demo import envoys
from meshfed.federation.demo.processes import Child
from meshfed.xds.endpoints import load_assignment
from meshfed.xds.snapshot import snapshot

SECONDS = float(os.environ.get("MESHFED_SOAK_SECONDS", "1800"))
SEED = int(os.environ.get("MESHFED_SOAK_SEED", "6"))
SIZE = Size(services=40, endpoints=4_000, proxies=206, identities=20, clusters=20, envoys=6)
FLAT = 1.05  # of the memory that it had at half time
WARM = 120.0  # seconds until caches are full; a shorter one says nothing of memory
MENDED = 90.0  # seconds, of which 30 are a proxy's to acknowledge, and 30 until it is begun again
STOPPED = 3.0  # seconds
# What is done here on purpose, and the words in which the control plane warns of it.
CAUSES = ("configuration rejected", "proxy begun again")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 600)]


class Soak:
    """What is done to a mesh, each as often as chance says."""

    def __init__(self, stage: Stage, started: list[Child], chance: random.Random) -> None:
        self.stage = stage
        self.envoys = started
        self.chance = chance
        self.weight = 2
        self.shifted = self.denied = False
        self.did: dict[str, int] = {}
        self.acts = (
            *[self.reweigh] * 12,
            *[self.replace] * 6,
            *[self.shrink] * 3,
            *[self.specify] * 4,
            *[self.refuse] * 3,
            self.storm,
            self.stop_proxies,
            self.stop_envoy,
            self.kill_envoy,
        )

    async def once(self) -> None:
        act = self.chance.choice(self.acts)
        self.did[act.__name__] = self.did.get(act.__name__, 0) + 1
        with suppress(AssertionError):  # it was so already
            await act()

    def service(self) -> int:
        return self.chance.randrange(SIZE.identities, SIZE.services)

    async def reweigh(self) -> None:
        self.weight += 1
        await self.stage.observe(given.observation(SIZE, self.service(), weight=self.weight))

    async def replace(self) -> None:
        first = self.chance.randrange(5)
        await self.stage.observe(given.observation(SIZE, self.service(), first=first))

    async def shrink(self) -> None:
        lacking = self.chance.randrange(SIZE.each)
        await self.stage.observe(given.observation(SIZE, self.service(), lacking=lacking))

    async def specify(self) -> None:
        self.shifted, self.denied = self.chance.random() < 0.5, self.chance.random() < 0.5
        await self.stage.specify(given.specified(SIZE, shifted=self.shifted, denied=self.denied))

    async def refuse(self) -> None:
        await self.stage.crowd.refuse(self.chance.randrange(5, 50))
        await self.reweigh()

    async def storm(self) -> None:
        await self.stage.crowd.drop()
        await self.stage.crowd.connect()

    async def stop_proxies(self) -> None:
        await stopped(self.chance.choice(self.stage.crowd.pids))

    async def stop_envoy(self) -> None:
        await stopped(self.chance.choice(self.envoys).process.pid)

    async def kill_envoy(self) -> None:
        which = self.chance.randrange(len(self.envoys))
        self.envoys[which] = await self.stage.restarted(self.envoys[which], which)


async def stopped(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(STOPPED)
    os.kill(pid, signal.SIGCONT)


def should(mesh: Mesh, workload: Workload) -> dict[str, dict[str, str]]:
    """The versions of all that a proxy should have, made anew from the catalog."""
    seen = view(mesh, proxy_class(mesh, workload), resolve(mesh))
    shape = snapshot(seen)
    assignments = {
        name: load_assignment(each, mesh.endpoints_of(each.service, each.port))
        for name, each in shape.assignments.items()
    }
    kinds = {
        "CDS": shape.clusters,
        "EDS": assignments,
        "LDS": shape.listeners,
        "RDS": shape.routes,
    }
    return {
        kind: {name: each.version for name, each in there.items()} for kind, there in kinds.items()
    }


def warned(log: Path) -> Iterator[str]:
    """The warnings without a cause."""
    for line in log.read_text().splitlines():
        said = json.loads(line) if line.startswith("{") else {"level": "error", "event": line}
        if said["level"] in ("warning", "error") and said["event"] not in CAUSES:
            yield line


async def test_after_half_an_hour_of_everything_all_views_are_equal(tmp_path: Path):
    chance = random.Random(SEED)
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    async with staged(tmp_path, SIZE, url=url, dialect="delta") as stage:
        await stage.crowd.connect()
        soak = Soak(stage, await stage.start_envoys(), chance)
        began, memory = time.monotonic(), []
        while (passed := time.monotonic() - began) < SECONDS:
            await soak.once()
            await asyncio.sleep(chance.random() * 0.5)
            await stage.crowd.happened()  # else its processes keep all of it
            memory.append((passed, stage.meter.resident()))
        # What somebody refused is something else once more, and refused by nobody: also not by
        # those who were told to refuse, and have been sent nothing since.
        await stage.crowd.refuse(0)
        for service in range(SIZE.identities, SIZE.services):
            await stage.observe(given.observation(SIZE, service, weight=1_000_000 + service))
        last = given.specified(SIZE, shifted=soak.shifted, denied=not soak.denied)
        revision, _ = await stage.specify(last)
        # Who refused what stands as it was is asked again when its stream is begun again (care.py).
        async with asyncio.timeout(MENDED):
            while await stage.control.in_sync() < SIZE.proxies:  # noqa: ASYNC110  # a process
                await asyncio.sleep(0.5)
        await stage.settled(revision)
        await everyone_has_what_it_should(stage)
        for envoy, folder in zip(soak.envoys, stage.envoys, strict=True):
            assert envoy.process.returncode is None
            assert await asyncio.to_thread(weighs, SIZE, folder)
        later = [kb for at, kb in memory if at > SECONDS / 2]
        tenth = max(1, len(later) // 10)
        half, end = (sum(some) / tenth for some in (later[:tenth], later[-tenth:]))
        tenths = [memory[n * len(memory) // 10][1] for n in range(10)]
        print(json.dumps({"did": soak.did, "rss_kb": [*tenths, memory[-1][1]]}))
        if SECONDS >= WARM:
            assert end <= FLAT * half
        assert list(warned(tmp_path / "serve.log")) == []


async def everyone_has_what_it_should(stage: Stage) -> None:
    mesh = await stage.catalog.read()
    workloads = {each.name: each for each in mesh.workloads.values()}
    truth: dict[object, dict[str, dict[str, str]]] = {}
    for name, held in (await stage.crowd.held()).items():
        workload = workloads[name]
        if workload.identity not in truth:
            truth[workload.identity] = should(mesh, workload)
        for kind, versions in truth[workload.identity].items():
            assert held[kind] == versions, (name, kind)


def weighs(size: Size, folder: Path) -> bool:
    """Whether an Envoy calls the newest weight of the service that all may call."""
    admin = yaml.safe_load((folder / "envoy.yaml").read_text())["admin"]["address"]
    told = envoys.clusters(admin["socket_address"]["address"])
    return f"::weight::{1_000_000 + size.hot}" in told
