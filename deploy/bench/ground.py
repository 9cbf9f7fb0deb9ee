"""A control plane that machines may join, and what is looked at while they do."""

import asyncio
import http.client
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import given

from meshfed.federation.demo.control import Control, command, until
from meshfed.federation.demo.folder import Folder, free_ports
from meshfed.federation.demo.processes import Processes, environment
from meshfed.federation.join.invite import invite
from meshfed.federation.settings import Settings

SERVICES = 50  # with a token and an identity each
MOST = 100_000  # uses of one
LIFE = timedelta(hours=1)
GLANCE = 0.05  # seconds between two looks at /healthz
PROCESSES = 2  # of machines


@dataclass(frozen=True, slots=True)
class Ground:
    where: Folder
    port: int  # of the join server
    pid: int

    @property
    def machines(self) -> Path:
        """Where their papers are: not beside the catalog, which is watched."""
        return self.where.path / "machines"

    @property
    def settings(self) -> Settings:
        return Settings.read(self.where.config, environment(os.environ))

    async def tokens(self) -> list[str]:
        """As people get them."""
        names = [f"app-{n}.bench" for n in range(SERVICES)]
        made = [
            await invite(self.settings, name, [f"{name}:80"], MOST, LIFE, "bench") for name in names
        ]
        return [each.command.rpartition(" ")[2] for each in made]

    def spent(self) -> float:
        """Seconds of CPU that the control plane has had."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Megabytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @contextmanager
    def healthy(self) -> Iterator[list[float]]:
        """How long /healthz takes meanwhile, in milliseconds."""
        taken: list[float] = []
        over = Event()
        thread = Thread(target=self._look, args=(taken, over))
        thread.start()
        try:
            yield taken
        finally:
            over.set()
            thread.join()

    def _look(self, taken: list[float], over: Event) -> None:
        host, _, port = self.where.admin.rpartition(":")
        with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as line:
            while not over.wait(GLANCE):
                began = time.perf_counter()
                line.request("GET", "/healthz")
                line.getresponse().read()
                taken.append(1000 * (time.perf_counter() - began))


@asynccontextmanager
async def grounded(folder: Path, catalog: str, lease: str) -> AsyncIterator[Ground]:
    """Once it is ready."""
    xds, admin, join = free_ports(3)
    where = Folder(folder, given.DOMAIN, f"127.0.0.1:{admin}")
    written = {
        "mesh": {"trust_domain": given.DOMAIN, "permissive": True},
        "catalog": catalog,
        "xds": {"listen": f"127.0.0.1:{xds}"},
        "admin": {"listen": where.admin},
        "join": {"listen": f"127.0.0.1:{join}", "lease": lease, "gone": lease},
    }
    where.config.write_text(json.dumps(written))
    (folder / "machines").mkdir(exist_ok=True)
    async with asyncio.TaskGroup() as tasks:
        processes = Processes(folder, tasks)
        try:
            serve = await processes.start("serve", command(where))
            await until("the control plane's start", Control(where).ready)
            yield Ground(where, join, serve.process.pid)
        finally:
            await processes.stop_all()
