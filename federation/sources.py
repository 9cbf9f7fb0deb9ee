"""The providers and specifications that feed the catalog: were they read, how do they stand."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from meshfed.catalog.store import Away, Catalog
from meshfed.federation import garbage
from meshfed.federation.admin.metrics import Certificates, Metrics
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.feed import Feed
from meshfed.federation.inventory import keep
from meshfed.federation.join.policy import policies
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.sections import KubernetesEntry, ProviderEntry, SpecificationEntry
from meshfed.federation.settings import Refused, Settings
from meshfed.federation.specification.files import FilesSpecification
from meshfed.federation.specification.specification import Specification
from meshfed.federation.specify import Specifying
from meshfed.providers import provider
from meshfed.providers.provider import Attesting, Attestor, Inventoried, Provider

PATIENCE = 30.0  # seconds for each source's first answer; then the mesh is served without it
GLANCE = 0.05  # seconds between two looks whether the leader has read them
METERED = 1.0  # seconds between two looks at what metrics are made of

log = structlog.get_logger()


def specification(entry: SpecificationEntry, base: Path) -> Specification:
    """The source that an entry of the configuration means."""
    if not isinstance(entry, KubernetesEntry):
        return FilesSpecification(base / entry.path, entry.source)
    # With it comes the client, for whoever needs it.
    from meshfed.federation.specification.cluster import ClusterSpecification

    return ClusterSpecification(entry.source, *entry.reached(base))


class Sources:
    """All of them, as one. They run while this replica leads; else another's are looked at."""

    def __init__(
        self, settings: Settings, catalog: Catalog, presence: Presence, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._presence = presence
        self._metrics = metrics
        self._feeds: Sequence[Feed] = ()
        self._specifications: Sequence[Specifying] = ()
        self._names = (
            *(entry.name for entry in settings.providers),
            *(entry.source for entry in settings.specification),
        )
        self._unread: Sequence[str] = self._names  # by anyone, in this catalog's life
        self._providers()  # what is wrong with them is said at start, not when this one leads

    async def run(self, led: Catalog) -> None:
        """For ever, in the term that this catalog is of."""
        kinds, made = [entry.type for entry in self._settings.providers], self._providers()
        self._feeds = [
            Feed(each, kind, led, self._presence, time.monotonic)
            for each, kind in zip(made, kinds, strict=True)
        ]
        entries = self._settings.specification
        clusters = [each.source for each in entries if isinstance(each, KubernetesEntry)]
        self._specifications = [
            Specifying(specification(each, self._settings.base), led, self._presence, clusters)
            for each in entries
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in self._all:
                    tasks.create_task(each.run())
                if any(policy.asks for policy in policies(self._settings)):
                    listing = [each for each in made if isinstance(each, Inventoried)]
                    tasks.create_task(keep(led, listing))
        finally:
            for each in self._all:
                self._presence.forget(each.name)
            self._feeds = self._specifications = ()
            self._metrics.unprovided()

    def attestors(self) -> dict[str, Attestor]:
        """Who knows the tokens of workloads, by provider; on every replica. Raises Refused.

        Where pods may come that nobody could know, that is a mistake.
        """
        if self._settings.xds.tokens is None:
            return {}
        made = [each for each in self._providers() if isinstance(each, Attesting)]
        if not made:
            why = "no provider knows tokens: name one of type kubernetes"
            raise Refused(self._settings.reject(("xds", "tokens"), why))
        return {each.name: each.attestor() for each in made}

    def _providers(self) -> list[Provider]:
        return [self._provider(n, entry) for n, entry in enumerate(self._settings.providers)]

    def _provider(self, n: int, entry: ProviderEntry) -> Provider:
        """Raises Refused."""
        options, base = entry.options, self._settings.base
        try:
            return provider.load(entry.type)(name=entry.name, options=options, base=base)
        except ValueError as error:
            key, _, why = str(error).partition(": ")
            raise Refused(self._settings.reject(("providers", n, *key.split(".")), why)) from error

    @property
    def _all(self) -> list[Feed | Specifying]:
        return [*self._feeds, *self._specifications]

    def unobserved(self) -> list[str]:
        """What has not been read: since this replica leads, or ever."""
        unread = [each.name for each in self._all if not each.observed.is_set()]
        return [f"{name} has not been read yet" for name in (unread if self._all else self._unread)]

    def doubted(self) -> list[str]:
        return [f"{each.name}: {each.trouble}" for each in self._all if each.trouble]

    async def open(self, publisher: Publisher) -> None:
        """Lets proxies come once all sources were read, by any replica, or had time enough."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self._lacking():  # noqa: ASYNC110  # the leader is another process
                    await asyncio.sleep(GLANCE)
        except TimeoutError:
            log.warning("serving without a source", reason=", ".join(self._unread))
        await publisher.begin()
        garbage.settled()
        log.info("ready")

    async def _lacking(self) -> bool:
        """Whether anything was never read, as far as can be known."""
        if self._unread:
            with suppress(Away):  # which those say who use it
                read = await self._catalog.observed()
                self._unread = [name for name in self._names if name not in read]
        return bool(self._unread)

    async def measure(self, control: ControlPlane, custody: Custody) -> None:
        metrics = self._metrics
        while True:
            await self._lacking()
            for feed in self._feeds:
                stood = feed.standing
                metrics.provider(
                    feed.name,
                    last_good=stood.last_good,
                    doubts=stood.doubts,
                    endpoints=stood.endpoints,
                )
                metrics.remaining(feed.name, feed.remaining)
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
            metrics.certificates(
                Certificates.ROOT,
                issued=min(root.not_valid_before_utc.timestamp() for root in control.roots),
                expires=min(root.not_valid_after_utc.timestamp() for root in control.roots),
            )
            await asyncio.sleep(METERED)
