"""What sidecars report of their calls, taken in and written for everyone to ask."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from itertools import islice

import structlog

from meshfed.catalog.model import Workload
from meshfed.catalog.store import Away, Catalog
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.edges import Edges
from meshfed.federation.minutes import Minutes
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.xds.loads import Calls
from meshfed.xds.peer import Peer

EVERY = 2.0  # seconds between two writes
PAUSE = 1.0  # seconds before a catalog that is away is asked again
BATCH = 1000  # rows in one transaction: other writers wait for it a few milliseconds

log = structlog.get_logger()


class Traffic:
    """The load reporting service's Reports: one for this replica."""

    def __init__(
        self,
        publisher: Publisher,
        catalog: Catalog,
        metrics: Metrics,
        presence: Presence,
        replica: str,
    ) -> None:
        self._publisher = publisher
        self._catalog = catalog
        self._metrics = metrics
        self._presence = presence
        self._replica = replica
        self._minutes = Minutes()
        self._edges = Edges(lambda: publisher.mesh)

    def report(self, peer: Peer, moved: Callable[[], None]) -> "Sidecar":
        workload = self._publisher.admit(peer)
        return Sidecar(self, self._publisher, peer, workload, moved)

    def take(self, sidecar: "Sidecar", source: str, parts: Sequence[Calls]) -> None:
        found = [self._edges.counted(source, part) for part in parts]
        known = [each for each in found if each is not None]
        self._minutes.take(sidecar, known, time.time())
        requests = sum(each.load.requests for each in known)
        failed = sum(each.load.failed for each in known)
        self._metrics.reported(requests, failed, unknown=len(found) - len(known))

    def gone(self, sidecar: "Sidecar") -> None:
        self._minutes.gone(sidecar, time.time())

    async def run(self) -> None:
        """Write what is news, for ever; late, while the catalog is away."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.write()
            except Away as away:
                self._presence.lost("traffic", away)
                if lost := self._minutes.forget(time.time()):
                    log.warning("traffic lost", requests=lost, reason=str(away))
                    self._metrics.lost(lost)
            else:
                self._presence.found("traffic")

    async def write(self) -> None:
        """All that the catalog lacks. Raises Away."""
        rows = iter(self._minutes.unwritten().items())
        while batch := dict(islice(rows, BATCH)):
            await self._catalog.count(self._replica, batch)
            self._minutes.written(batch)


class Sidecar:
    """The load reporting service's Reporter."""

    def __init__(
        self,
        traffic: Traffic,
        publisher: Publisher,
        peer: Peer,
        workload: Workload,
        moved: Callable[[], None],
    ) -> None:
        self._traffic = traffic
        self._publisher = publisher
        self._peer = peer
        self._workload = workload
        self._moved = moved
        publisher.callers.watch(workload.id, moved)

    @property
    def clusters(self) -> Collection[str] | None:
        return self._publisher.callers.called(self._workload.id)

    def take(self, calls: Sequence[Calls]) -> None:
        workload = self._publisher.admit(self._peer)  # it may have left the mesh since
        self._traffic.take(self, str(workload.identity), calls)

    def close(self) -> None:
        self._publisher.callers.unwatch(self._workload.id, self._moved)
        self._traffic.gone(self)
