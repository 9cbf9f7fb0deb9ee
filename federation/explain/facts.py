"""What an explanation starts from: the mesh, and where its running parts stand."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from meshfed.catalog.bearings import Bearings, Connected
from meshfed.catalog.model import Interception, Mesh, Workload
from meshfed.catalog.resolved import Resolved, resolve
from meshfed.catalog.spelling import SILENT
from meshfed.catalog.store import Catalog
from meshfed.federation.explain.judge import UNCONNECTED


@dataclass(frozen=True, slots=True)
class Facts:
    mesh: Mesh
    resolved: Resolved
    bearings: Bearings
    now: float  # seconds since the epoch, by the database's clock where it has one

    def silent(self, replica: str) -> bool:
        seen = {each.name: each.seen_at for each in self.bearings.replicas}
        return self.now - seen.get(replica, 0.0) > SILENT

    @property
    def alive(self) -> tuple[str, ...]:
        """The replicas that have written lately."""
        return tuple(r.name for r in self.bearings.replicas if not self.silent(r.name))

    @property
    def connected(self) -> Mapping[str, Connected]:
        return {each.proxy: each for each in self.bearings.proxies}

    def trouble(self) -> dict[str, str]:
        """What is wrong with a workload's proxy, by workload."""
        connected = self.connected
        found = {each.id: self._of(connected.get(each.id), each) for each in self.mesh.everyone}
        return {id_: trouble for id_, trouble in found.items() if trouble}

    def _of(self, proxy: Connected | None, workload: Workload) -> str:
        if workload.interception is Interception.NONE or workload.identity is None:
            return ""
        if proxy is None:
            return UNCONNECTED
        if self.silent(proxy.replica):
            return f"is silent: its replica {proxy.replica} writes nothing"
        if proxy.state == "synced" or (proxy.state == "behind" and not proxy.reason):
            return ""
        return f"is {proxy.state}: {proxy.reason}"


def gathered(url: str) -> Facts:
    """Everything of a catalog that is there already. Raises Away."""

    async def read() -> tuple[Mesh, Bearings]:
        with closing(Catalog(url)) as catalog:
            return await catalog.read(), await catalog.bearings()

    mesh, bearings = asyncio.run(read())
    return Facts(mesh, resolve(mesh), bearings, bearings.now or time.time())
