"""The running mesh: everything started in order, and ended together."""

import asyncio
import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from meshfed.catalog.model import ProxyState
from meshfed.catalog.store import Away, Catalog, Newer, migrate
from meshfed.federation.account import Account
from meshfed.federation.admin import app as admin
from meshfed.federation.admin import workloads
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.care import expires_soon
from meshfed.federation.certificates import issuer as issuers
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.issuer import Unissuable
from meshfed.federation.certificates.keys import Unsealable
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence
from meshfed.federation.propagation import Propagation
from meshfed.federation.prune import prune
from meshfed.federation.publish import Publisher, identities
from meshfed.federation.settings import Mesh, ProviderEntry, Refused, Settings, SpecificationEntry
from meshfed.federation.sources import Sources
from meshfed.federation.specification.files import FilesSpecification
from meshfed.federation.specify import Specifying
from meshfed.providers import provider, watch
from meshfed.xds.server import Server, Tls, claim

PAUSE = 1.0  # seconds before a catalog that is away is asked again
GRACE = 2.0  # seconds for streams to end
STOPPING = (signal.SIGTERM, signal.SIGINT)

UNSTARTABLE = (Away, Newer, Unissuable, Unsealable, ValueError)

log = structlog.get_logger()


class CannotStart(Exception):
    """One line for people, who can do something about it."""


def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart, and OSError when a port is taken."""
    try:
        asyncio.run(_run(settings))
    except UNSTARTABLE as error:
        raise CannotStart(str(error)) from error


class Running:
    """What the admin API asks of the whole."""

    def __init__(
        self, sources: Sources, publisher: Publisher, account: Account, presence: Presence
    ) -> None:
        self._sources = sources
        self._publisher = publisher
        self._account = account
        self._presence = presence

    def unready(self) -> list[str]:
        if self._publisher.ready.is_set():
            return []
        return self._sources.unobserved() or ["the first view of the mesh is being made"]

    def degraded(self) -> list[str]:
        away = [self._presence.trouble] if self._presence.trouble else []
        return [*away, *self._sources.doubted(), *self._sources.unobserved()]

    def revision(self) -> int:
        return self._account.evaluated

    async def settled(self, revision: int, seconds: float) -> Propagation | None:
        return await self._account.settled(revision, seconds)

    def proxies(self) -> tuple[ProxyState, ...]:
        return self._publisher.proxies()


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("starting", catalog=repr(settings.catalog), trust_domain=settings.mesh.trust_domain)
    # Ports before anything is written: a second control plane by accident leaves no trace.
    door = admin.bound(settings.admin.listen)
    with closing(door):
        claim(settings.xds.listen)
        for name in await asyncio.to_thread(migrate, settings.catalog):
            log.info("catalog migrated", to=name)
        with closing(Catalog(settings.catalog)) as catalog:
            await catalog.configure(settings.mesh.trust_domain, settings.mesh.permissive)
            await _serve(settings, catalog, door, stop)
    log.info("stopped")


async def _serve(
    settings: Settings, catalog: Catalog, door: socket.socket, stop: asyncio.Event
) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    presence = Presence(metrics)
    domain, certificates = settings.mesh.trust_domain, settings.certificates
    issuer = await issuers.load(certificates.issuer).open(
        trust_domain=domain, safe=catalog, seal=certificates.seal
    )
    control = await ControlPlane.open(issuer, domain, certificates.workload_lifetime)
    custody = Custody(issuer, domain, certificates.workload_lifetime, kind=certificates.issuer)
    mesh = await catalog.read()
    custody.recorded(await catalog.certified())  # what left meanwhile is retired
    custody.keep(identities(mesh))
    await custody.check()
    account = Account(mesh.revision, metrics)
    soon = expires_soon(certificates.proxy_lifetime)
    publisher = Publisher(mesh, catalog, custody, account, metrics, presence, soon)
    sources = Sources(
        [_feed(entry, settings.base, catalog, presence) for entry in settings.providers],
        [_specifying(each, settings.base, catalog, presence) for each in settings.specification],
    )
    recording = settings.history.record_pushes
    server = Server(publisher, lambda: _tls(control), metrics.pushed, recording=recording)
    await server.start(settings.xds.listen)
    log.info("serving", xds=server.port, admin=door.getsockname()[1])
    api = admin.app(Running(sources, publisher, account, presence), registry)
    workloads.offer(api, catalog)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(part)
            for part in (
                *(source.run() for source in sources.all),
                control.run(),
                custody.run(),
                publisher.run(),
                sources.open(publisher),
                sources.measure(metrics, control, custody),
                heed(settings, catalog, presence),
                prune(catalog, settings.history.retain),
                admin.serve(api, door),
            )
        ]
        await stop.wait()
        log.info("stopping", streams=server.streams)
        await server.stop(GRACE)
        for task in running:
            task.cancel()


def _feed(entry: ProviderEntry, base: Path, catalog: Catalog, presence: Presence) -> Feed:
    made = provider.load(entry.type)(name=entry.name, options=entry.options, base=base)
    return Feed(made, entry.type, catalog, presence, time.monotonic)


def _specifying(
    entry: SpecificationEntry, base: Path, catalog: Catalog, presence: Presence
) -> Specifying:
    return Specifying(FilesSpecification(base / entry.path, entry.source), catalog, presence)


def _tls(control: ControlPlane) -> Tls:
    pair = control.current
    return Tls(pair.chain_pem.encode(), pair.key_pem.encode(), control.roots_pem.encode())


async def heed(settings: Settings, catalog: Catalog, presence: Presence) -> None:
    """`mesh.permissive` may be changed while it runs; everything else needs a restart."""
    if settings.file is None:
        return
    changed = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch.follow(settings.file, changed))
        tasks.create_task(_reread(settings.file, changed, settings.mesh, catalog, presence))


async def _reread(
    file: Path, changed: asyncio.Event, mesh: Mesh, catalog: Catalog, presence: Presence
) -> None:
    seen: watch.Mark | None = None
    permissive = mesh.permissive
    while True:
        await changed.wait()
        changed.clear()
        before, seen = seen, await watch.quiet(file, seen)
        if seen == before:
            continue
        try:
            now = Settings.read(file, os.environ)
        except Refused as refused:
            log.warning("configuration refused", reason=str(refused), kept="the one before")
            continue
        if now.mesh.permissive != permissive:
            permissive = now.mesh.permissive
            await _configure(mesh.trust_domain, permissive, catalog, presence)
            log.info("configured", permissive=permissive)


async def _configure(
    trust_domain: str, permissive: bool, catalog: Catalog, presence: Presence
) -> None:
    while True:
        try:
            await catalog.configure(trust_domain, permissive)
        except Away as away:
            presence.lost("configuration", away)
            await asyncio.sleep(PAUSE)
        else:
            presence.found("configuration")
            return
