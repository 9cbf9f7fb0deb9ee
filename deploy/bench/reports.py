"""What load reports cost: `python deploy/bench/reports.py [--proxies 1000] [--clusters 10]`.

The CPU of a real `meshfed serve` on SQLite, as it says itself, with so many reporting proxies less
without any; each calls so many services, and reports as often as sidecars do.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import given
import typer
from propagation import certify, furnish

from meshfed.catalog.reader import query
from meshfed.federation.admin.logs import configure
from meshfed.federation.demo.control import Control, command, until
from meshfed.federation.demo.folder import Folder, free_ports
from meshfed.federation.demo.processes import Processes
from meshfed.xds.loads import INTERVAL

CLIENTS = Path(__file__).with_name("reporters.py")


@dataclass(frozen=True, slots=True)
class Cost:
    proxies: int
    clusters: int  # that each reports
    reports_per_second: float
    idle_percent: float  # of a core, without a proxy
    percent: float  # of a core, with all of them
    microseconds_per_report: float  # everything: TLS, gRPC, sums, rows
    resident_kb_per_proxy: float  # of a connection with one stream of reports
    rows_per_minute: int
    counted: bool  # what the catalog has is what was reported


@dataclass(frozen=True, slots=True)
class Reading:
    at: float
    cpu: float
    resident: float
    reports: float
    requests: float

    @classmethod
    async def of(cls, control: Control) -> "Reading":
        _, text = await control.get("/metrics")

        def value(name: str) -> float:
            found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
            return float(found[1]) if found else 0.0

        return cls(
            time.monotonic(),
            value("process_cpu_seconds_total"),
            value("process_resident_memory_bytes"),
            value("meshfed_load_reports_total"),
            value("meshfed_reported_requests_total"),
        )


def percent(before: Reading, after: Reading) -> float:
    return 100 * (after.cpu - before.cpu) / (after.at - before.at)


async def measured(folder: Path, proxies: int, clusters: int, seconds: float) -> Cost:
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    where, control = Folder(folder, given.DOMAIN, admin), Control(Folder(folder, "", admin))
    furnish(where, proxies, xds)
    async with asyncio.TaskGroup() as tasks:
        processes = Processes(where.path, tasks)
        try:
            await processes.start("serve", command(where))
            await until("the control plane's start", control.ready)
            names = given.names(proxies)
            await certify(where, names)
            quiet = await Reading.of(control)
            await asyncio.sleep(10)
            idle = await Reading.of(control)
            mine = [str(where.papers(name)) for name in names]
            clients = (sys.executable, CLIENTS, xds, str(clusters), *mine)
            await processes.start("reporters", clients)

            async def all_there() -> bool:
                return (await Reading.of(control)).reports >= 2 * proxies

            await until("the proxies' start", all_there)
            await asyncio.sleep(INTERVAL)
            before = await Reading.of(control)
            await asyncio.sleep(seconds)
            after = await Reading.of(control)
        finally:
            await processes.stop_all()
    reports = after.reports - before.reports
    cpu = percent(before, after) - percent(quiet, idle)
    url = f"sqlite:///{folder}/meshfed.db"
    ((requests,),) = query(url, "select sum(requests) from mesh_traffic").rows
    sizes = query(url, "select minute, count(*) from mesh_traffic group by minute").rows
    return Cost(
        proxies,
        clusters,
        round(reports / (after.at - before.at), 1),
        round(percent(quiet, idle), 2),
        round(percent(before, after), 2),
        round(cpu / 100 * (after.at - before.at) / reports * 1e6, 1),
        round((after.resident - idle.resident) / proxies / 1024, 1),
        max(size for _, size in sizes),
        # Whatever came after the last look came before the end, and is written then.
        counted=requests >= after.requests and requests % 100 == 0,
    )


def main(
    proxies: Annotated[int, typer.Option(min=10)] = 1000,
    clusters: Annotated[int, typer.Option(min=1, help="That each calls.")] = 10,
    seconds: Annotated[float, typer.Option(min=5, help="How long it is measured.")] = 30,
) -> None:
    """Measure what load reports cost the control plane; prints JSON."""
    configure()
    with TemporaryDirectory(prefix="meshfed-bench-") as name:
        cost = asyncio.run(measured(Path(name), proxies, clusters, seconds))
    print(json.dumps(asdict(cost), indent=2))


if __name__ == "__main__":
    typer.run(main)
