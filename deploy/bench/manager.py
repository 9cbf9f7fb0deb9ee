"""The tests' Azure Resource Manager as a process: `python manager.py FOLDER MACHINES SETS EACH`.

It writes FOLDER/manager.json once it listens. `POST /-/power?of=N&to=deallocated` changes a
machine, and `POST /-/spent` says how many calls there were, what they cost it, and when the last
one ended.
"""

import json
import sys
import time
from collections import deque
from pathlib import Path

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from meshfed.demo.arm.resources import Ip, Nic, ScaleSet, Vm
from meshfed.demo.arm.server import Server
from meshfed.demo.arm.world import World

GROUP = 500  # machines of one resource group
SERVICES = 100
PAGE = 200  # what Azure's lists of machines hold


def address(n: int, net: int) -> str:
    return f"{net}.{n >> 16}.{n >> 8 & 255}.{n & 255}"


def tags(n: int) -> dict[str, str]:
    name = f"app-{n % SERVICES}.bench"
    return {"meshfed.service": f"{name}:80", "meshfed.identity": name}


def world(machines: int, sets: int, each: int) -> World:
    made = World(page=PAGE, kept={})
    made.resources.vms = [
        Vm(
            f"vm-{n}",
            [Nic(f"vm-{n}-nic", [Ip(address(n, 10))])],
            group=f"Rg-{n // GROUP}",
            tags=tags(n),
            zones=[str(n % 3 + 1)],
            health="healthy",
        )
        for n in range(machines)
    ]
    made.resources.sets = [
        ScaleSet(
            f"set-{s}",
            tags=tags(s),
            instances=[
                Vm(str(n), [Nic("nic0", [Ip(address(s * each + n, 11))])]) for n in range(each)
            ],
        )
        for s in range(sets)
    ]
    return made


class Manager(Server):
    """With a door for whoever measures."""

    def __init__(self, folder: Path, world: World) -> None:
        super().__init__(folder, world)
        self._answers: deque[float] = deque([0.0], maxlen=2000)  # when each was given

    def _app(self) -> web.Application:
        app = super()._app()
        app.router.add_post("/-/power", self._power)
        app.router.add_post("/-/spent", self._spent)
        return app

    async def _list(self, request: web.Request) -> web.Response:
        try:
            return await super()._list(request)
        finally:
            self._answers.append(time.time())

    async def _power(self, request: web.Request) -> web.Response:
        self.world.resources.vms[int(request.query["of"])].power = request.query["to"]
        self.world.moved()
        return web.Response()

    async def _spent(self, request: web.Request) -> web.Response:
        """And when the last answer was given, before a moment if one is named."""
        before = float(request.query.get("before", "inf"))
        last = max(each for each in self._answers if each <= before)
        said = {"calls": self.world.total, "spent": time.process_time(), "last": last}
        return web.json_response(said)


def main(folder: Path, machines: int, sets: int, each: int) -> None:
    server = Manager(folder, world(machines, sets, each))
    server.begin()
    beside = folder / "manager.new"
    beside.write_text(json.dumps(server.cloud))
    beside.replace(folder / "manager.json")
    server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(each) for each in sys.argv[2:]))
