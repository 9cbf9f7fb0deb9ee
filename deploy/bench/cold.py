"""How long a control plane with a large catalog takes to answer: `python cold.py [ENDPOINTS]`.

From the start of the process `meshfed serve` until a proxy on a TLS stream of its own, which may
call every service, has been sent all clusters, and until it has been sent all their endpoints.
"""

import asyncio
import json
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import given
from fleet import fleet
from propagation import certify
from scale import observe

from meshfed.catalog.store import Catalog
from meshfed.federation.bench.proxies import Proxy, Tally, tls
from meshfed.federation.demo.control import Control, command, until
from meshfed.federation.demo.folder import Folder, free_ports
from meshfed.federation.demo.processes import Processes

PROXY = given.names(1)[0]
AGAIN = 0.02  # seconds between two attempts to connect


@dataclass(frozen=True, slots=True)
class Cold:
    """Seconds since the process began; medians."""

    endpoints: int
    clusters: float  # the first answer
    first_endpoints: float
    all_endpoints: float
    times: int


async def cold(folder: Path, endpoints: int, times: int) -> Cold:
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    where = Folder(folder, given.DOMAIN, admin)
    control = Control(where)
    where.hosts.write_text(given.host_list(1))
    where.config.write_text(configuration(xds, admin))
    async with asyncio.TaskGroup() as tasks:
        processes = Processes(folder, tasks)
        try:  # the first start makes the catalog, and the authority
            await processes.start("first", command(where))
            await until("the control plane's start", control.ready)
            await certify(where, [PROXY])
        finally:
            await processes.stop_all()
    with closing(Catalog(f"sqlite:///{folder / 'meshfed.db'}")) as catalog:
        await observe(catalog, *fleet(endpoints))
    runs = [await started(folder, where, xds, len(fleet(endpoints))) for _ in range(times)]
    return Cold(endpoints, *(median(each) for each in zip(*runs, strict=True)), times)


async def started(folder: Path, where: Folder, xds: str, services: int) -> tuple[float, ...]:
    async with asyncio.TaskGroup() as tasks:
        processes = Processes(folder, tasks)
        try:
            began = time.monotonic()
            await processes.start("serve", command(where))
            proxy = await connected(xds, where.papers(PROXY), services)
            clusters, assigned = (
                [at for at, its, *_ in proxy.events if its == kind] for kind in ("CDS", "EDS")
            )
            return tuple(mark - began for mark in (clusters[0], assigned[0], assigned[-1]))
        finally:
            await processes.stop_all()


async def connected(address: str, papers: Path, services: int) -> Proxy:
    """Once it has the endpoints of every service; until it is let in, it comes again."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    proxy = Proxy(PROXY, "delta", Tally())
    while True:
        with suppress(OSError):
            await loop.create_connection(lambda: proxy, host, int(port), ssl=tls(papers))
            while not proxy.ended.done():
                if sum(told for _, its, told, *_ in proxy.events if its == "EDS") >= services:
                    return proxy
                await asyncio.wait([proxy.ended], timeout=AGAIN)
        await asyncio.sleep(AGAIN)


def configuration(xds: str, admin: str) -> str:
    asked = json.loads(given.configuration(xds, admin))
    asked["mesh"]["permissive"] = True  # everyone may call everyone
    del asked["specification"]
    return json.dumps(asked)


if __name__ == "__main__":
    with TemporaryDirectory(prefix="meshfed-bench-") as name:
        size = int(sys.argv[1]) if sys.argv[1:] else 200_000
        print(json.dumps(asdict(asyncio.run(cold(Path(name), size, 3))), indent=2))
