"""How soon nobody calls a machine that was deallocated: `python removal.py [MACHINES PROXIES]`.

A real `meshfed serve` looks at Azure every second, and at a list of hosts, each of which has a
proxy that may call everything. From the last answer of the look that saw the machine deallocated,
or allocated again, until the last proxy acknowledged that.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import given
from figures import Figure, told
from machines import ENVIRONMENT, SUBSCRIPTION, Manager, manager
from propagation import certify, furnish

from meshfed.catalog.reader import query
from meshfed.federation.admin.logs import configure
from meshfed.federation.bench.crowd import Crowd
from meshfed.federation.demo.control import Control, command, until
from meshfed.federation.demo.folder import Folder, free_ports
from meshfed.federation.demo.processes import Processes

TIMES = 10
MACHINES = "select count(*) from mesh_endpoints where platform = 'azure'"


async def measured(folder: Path, machines: int, proxies: int) -> Figure:
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    where = Folder(folder, given.DOMAIN, admin)
    control = Control(where)
    furnish(where, proxies, xds)
    async with manager(folder, machines, 0, 0) as there, asyncio.TaskGroup() as tasks:
        configured(where, there)
        processes = Processes(folder, tasks)
        try:
            await processes.start("serve", command(where))
            await until("the control plane's start", control.ready)
            await certify(where, given.names(proxies))
            papers = [where.papers(name) for name in given.names(proxies)]
            crowd = await Crowd.start(processes, "proxies", "delta", xds, papers)
            await crowd.connect()

            async def connected() -> bool:
                return await control.in_sync() == proxies

            async def listed() -> bool:
                found = await asyncio.to_thread(query, f"sqlite:///{folder}/meshfed.db", MACHINES)
                return found.rows == ((machines,),) and await connected()

            await until("the proxies' start", connected)
            await until("the machines", listed)
            taken = [await once(control, there, n) for n in range(TIMES)]
        finally:
            await processes.stop_all()
    what = f"one of {machines} machines is deallocated, or comes back: last answer → last ACK"
    return Figure(what, tuple(taken), f"until the last of {proxies} proxies acknowledged")


def configured(where: Folder, there: Manager) -> None:
    written = json.loads(where.config.read_text())
    azure = {
        "name": "azure",
        "type": "azure",
        "subscriptions": [SUBSCRIPTION],
        "cloud": there.cloud,
        "auth": "client_secret",
        "refresh": "1s",
    }
    where.config.write_text(json.dumps(written | {"providers": [*written["providers"], azure]}))


async def once(control: Control, there: Manager, n: int) -> float:
    """In milliseconds."""
    before = await control.revision()
    await there.power(0, "running" if n % 2 else "deallocated")
    edit = await control.acknowledged(before + 1, 0.0)
    seen = await there.spent(before=edit.committed)
    return 1000 * (edit.acknowledged - seen["last"])


def main() -> None:
    sizes = [int(each) for each in sys.argv[1:]] or [1000, 100]
    os.environ.update(ENVIRONMENT)
    configure()
    with TemporaryDirectory(prefix="meshfed-bench-") as name:
        print(json.dumps(told(asyncio.run(measured(Path(name), *sizes))), indent=2))


if __name__ == "__main__":
    main()
