"""What is measured, set up: a catalog, a real `meshfed serve`, proxies, and gRPC alone."""

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from meshfed.catalog.model import Known, Observation, Specified
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.bench import given
from meshfed.federation.bench.crowd import Crowd
from meshfed.federation.bench.given import Size
from meshfed.federation.certificates import issuer, proxyfiles
from meshfed.federation.certificates.issuer import Issuer, Names
from meshfed.federation.demo import envoys
from meshfed.federation.demo.control import Control, command, until
from meshfed.federation.demo.folder import Folder, free_ports
from meshfed.federation.demo.processes import Broken, Child, Processes, environment
from meshfed.federation.settings import Settings
from meshfed.xds.bootstrap import BUNDLE, CERTIFICATE, KEY, control_plane_uri

TOGETHER = 100  # scopes that are written in one transaction
FLOOR = (sys.executable, "-m", "meshfed.xds.floor")


@dataclass(frozen=True, slots=True)
class Meter:
    """What a process has used."""

    pid: int

    def cpu(self) -> float:
        """Seconds of all its threads: CPUCLOCK_SCHED of linux/posix-timers.h."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def resident(self) -> int:
        """Kilobytes."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """Kilobytes."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


class Floor:
    """A bare gRPC server with as many streams."""

    def __init__(self, child: Child, crowd: Crowd) -> None:
        self.crowd = crowd
        self.meter = Meter(child.process.pid)
        self._child = child

    async def greet(self, bodies: Sequence[str]) -> None:
        """What whoever connects is sent from now on; base 64."""
        await self.crowd.expect(len(bodies))
        await self._child.ask(do="greet", bodies=bodies)

    async def push(self, bodies: Sequence[str], streams: int) -> tuple[float, float]:
        """When it began, and CPU seconds until all had answered."""
        told = await self._child.ask(do="push", bodies=bodies, streams=streams)
        return float(told["began"]), float(told["cpu"])


class Stage:
    """A mesh that runs, and everyone who takes part."""

    def __init__(
        self, size: Size, folder: Folder, catalog: Catalog, processes: Processes, serve: Child
    ) -> None:
        self.size = size
        self.envoys: Sequence[Path] = ()  # the folders that they are started from
        self._processes = processes
        self.control = Control(folder)
        self.folder = folder
        self.meter = Meter(serve.process.pid)
        self.catalog = catalog
        self.crowd: Crowd
        self.floor: Floor

    async def start_envoys(self) -> list[Child]:
        """The real ones, once they have everything."""
        started = [await self._envoy(n) for n in range(len(self.envoys))]

        async def told() -> bool:
            return await self.control.in_sync() >= self.size.proxies

        if started:
            await until("the Envoys' start", told)
        return started

    async def restarted(self, envoy: Child, which: int) -> Child:
        """Killed, and started again."""
        await self._processes.kill(envoy)
        return await self._envoy(which)

    async def _envoy(self, which: int) -> Child:
        command = envoys.command(envoys.binary(), self.envoys[which] / proxyfiles.ENVOY)
        return await self._processes.start(f"envoy-{which}", command)

    async def observe(self, *seen: Observation) -> tuple[int, float]:
        """Believe it; the revision, and when it was committed by the monotonic clock."""
        return self._committed(await observe(self.catalog, seen))

    async def specify(self, specified: Specified) -> tuple[int, float]:
        revision = await self.catalog.specify(specified)
        assert revision is not None, "nothing changed"
        return self._committed(revision)

    def _committed(self, revision: int) -> tuple[int, float]:
        at = self.catalog.committed_at(revision)
        assert at is not None
        return revision, at - time.time() + time.monotonic()

    async def settled(self, revision: int) -> float:
        """Until every proxy has it; milliseconds, as the control plane accounts for it."""
        return (await self.control.acknowledged(revision, 0.0)).propagation_ms

    async def metric(self, name: str) -> float:
        """The sum of all samples of a metric, as the control plane exposes it."""
        return sum([value async for _, value in self._samples(name)])

    async def lag(self) -> Counter[float]:
        """How often the control plane's event loop was late, by the bound of seconds it was in."""
        found, below = Counter[float](), 0.0
        async for labels, value in self._samples("meshfed_loop_lag_seconds_bucket"):
            found[float(labels["le"])] += int(value - below)
            below = value
        return found

    async def _samples(self, name: str) -> AsyncIterator[tuple[dict[str, str], float]]:
        status, text = await self.control.get("/metrics")
        if status != 200:
            raise Broken(f"the control plane has no metrics: {status}")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value


async def observe(catalog: Catalog, seen: Iterable[Observation]) -> int:
    known = [
        Known(given.PROVIDER, each.scope, each.services, each.workloads, each.endpoints)
        for each in seen
    ]
    revision = None
    for start in range(0, len(known), TOGETHER):
        some = known[start : start + TOGETHER]
        revision = await catalog.believe(*some, kind=given.KIND, cause="bench")
    assert revision is not None, "nothing changed"
    return revision


def configuration(url: str, xds: str, admin: str, lifetime: str) -> str:
    return json.dumps(
        {
            "mesh": {"trust_domain": given.DOMAIN},
            "catalog": url,
            "xds": {"listen": xds},
            "admin": {"listen": admin},
            "certificates": {"workload_lifetime": lifetime},
        }
    )


@asynccontextmanager
async def staged(
    path: Path, size: Size, *, url: str, dialect: str, lifetime: str = "24h"
) -> AsyncIterator[Stage]:
    """The mesh, with nobody connected yet."""
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    folder = Folder(path, given.DOMAIN, admin)
    folder.config.write_text(configuration(url, xds, admin, lifetime))
    settings = Settings.read(folder.config, environment(os.environ))
    await asyncio.to_thread(migrate, settings.catalog)
    async with asyncio.TaskGroup() as tasks:
        processes = Processes(path, tasks)
        with closing(Catalog(settings.catalog)) as catalog:
            try:
                papers, floor = await furnished(settings, catalog, folder, size)
                simulated = papers[: size.proxies - size.envoys]
                serve = await processes.start("serve", command(folder))
                stage = Stage(size, folder, catalog, processes, serve)
                await until("the control plane's start", stage.control.ready)
                stage.crowd = await Crowd.start(processes, "proxies", dialect, xds, simulated)
                stage.envoys = papers[size.proxies - size.envoys :]
                child = await processes.start("floor", (*FLOOR, *floor), pipe=True)
                port = json.loads(await child.reports.readline())["port"]
                bare = f"127.0.0.1:{port}"
                crowd = await Crowd.start(processes, "bare", "bare", bare, simulated)
                stage.floor = Floor(child, crowd)
                yield stage
            finally:
                await processes.stop_all()


async def furnished(
    settings: Settings, catalog: Catalog, folder: Folder, size: Size
) -> tuple[list[Path], list[Path]]:
    """The catalog filled; the papers of all proxies, and those of the bare server."""
    gc.disable()
    await catalog.configure(given.DOMAIN, permissive=False)
    await observe(catalog, given.observed(size))
    await catalog.specify(given.specified(size))
    gc.enable()
    certificates = settings.certificates
    authority = await issuer.load(certificates.issuer).open(
        trust_domain=given.DOMAIN, safe=catalog, seal=certificates.seal
    )
    workloads = {each.name: each for each in (await catalog.read()).workloads.values()}
    papers = []
    for name in size.names():
        names = proxyfiles.names(workloads[name], given.DOMAIN)
        papers.append(await written(authority, names, settings, folder.papers(name)))
        if (bind := workloads[name].bind) != "0.0.0.0":
            admin = f"{bind}:{envoys.ADMIN}"
            xds = str(settings.xds.listen)
            start = proxyfiles.start(workloads[name], given.DOMAIN, xds, admin, papers[-1])
            fill(papers[-1], start)
    names = Names(control_plane_uri(given.DOMAIN))
    floor = await written(authority, names, settings, folder.path / "floor")
    return papers, [floor / each for each in (CERTIFICATE, KEY, BUNDLE)]


async def written(authority: Issuer, names: Names, settings: Settings, folder: Path) -> Path:
    lifetime = settings.certificates.proxy_lifetime
    put(folder, await proxyfiles.papers(authority, names, lifetime))
    return folder


def put(folder: Path, files: proxyfiles.Files) -> None:
    folder.mkdir(parents=True, mode=0o700)
    fill(folder, files)


def fill(folder: Path, files: proxyfiles.Files) -> None:
    for name, text in files.items():
        (folder / name).write_bytes(text)
