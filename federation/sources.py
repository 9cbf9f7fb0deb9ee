"""The providers and specifications that feed the catalog: were they read, how do they stand."""

import asyncio
import gc

import structlog

from meshfed.federation.admin.metrics import Certificates, Metrics
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.feed import Feed
from meshfed.federation.publish import Publisher
from meshfed.federation.specify import Specifying

PATIENCE = 30.0  # seconds for each source's first answer; then the mesh is served without it
METERED = 1.0  # seconds between two looks at what metrics are made of

log = structlog.get_logger()


class Sources:
    """All of them, as one."""

    def __init__(self, feeds: list[Feed], specifications: list[Specifying]) -> None:
        self._feeds = feeds
        self._specifications = specifications

    @property
    def all(self) -> list[Feed | Specifying]:
        return [*self._feeds, *self._specifications]

    def unobserved(self) -> list[str]:
        """What has not been read since this process began."""
        return [
            f"{each.name} has not been read yet" for each in self.all if not each.observed.is_set()
        ]

    def doubted(self) -> list[str]:
        return [f"{each.name}: {each.trouble}" for each in self.all if each.trouble]

    async def open(self, publisher: Publisher) -> None:
        """Lets proxies come once all sources were read, or had time enough."""
        try:
            async with asyncio.timeout(PATIENCE):
                for each in self.all:
                    if not publisher.knows(each.name):
                        await each.observed.wait()
        except TimeoutError:
            log.warning("serving without a source", reason=", ".join(self.unobserved()))
        await publisher.begin()
        # Modules and the first mesh stay: to look for garbage among them stops all for 0.1 s.
        gc.freeze()
        log.info("ready")

    async def measure(self, metrics: Metrics, control: ControlPlane, custody: Custody) -> None:
        while True:
            for feed in self._feeds:
                stood = feed.standing
                metrics.provider(
                    feed.name,
                    last_good=stood.last_good,
                    doubts=stood.doubts,
                    endpoints=stood.endpoints,
                )
            pairs = custody.keypairs()
            if pairs:
                metrics.certificates(
                    Certificates.WORKLOAD,
                    issued=min(pair.issued_at for pair in pairs),
                    expires=min(pair.not_after for pair in pairs),
                )
            own = control.current
            metrics.certificates(
                Certificates.CONTROL_PLANE, issued=own.issued_at, expires=own.not_after
            )
            await asyncio.sleep(METERED)
