"""The running mesh: everything started in order, and ended together."""

import asyncio
import signal
import socket
import sys
from contextlib import ExitStack, aclosing, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from meshfed.catalog.reports import ProxyState
from meshfed.catalog.store import Away, Catalog, Unfit, migrate
from meshfed.federation import files, garbage
from meshfed.federation.account import Account
from meshfed.federation.addressing import keep_addressed
from meshfed.federation.admin import app as admin
from meshfed.federation.admin import workloads
from meshfed.federation.admin.aside import Home, aside
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.bearers import Bearers
from meshfed.federation.called import called
from meshfed.federation.certificates import issuer as issuers
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.issuer import Unissuable
from meshfed.federation.certificates.keys import Unsealable
from meshfed.federation.fields import Address
from meshfed.federation.heed import configure, heed
from meshfed.federation.join import server as joining
from meshfed.federation.join.open import desk
from meshfed.federation.join.silence import listen
from meshfed.federation.lead import Duty, Lead, replica
from meshfed.federation.presence import Presence
from meshfed.federation.propagation import Propagation
from meshfed.federation.prune import prune
from meshfed.federation.publish import Publisher
from meshfed.federation.settings import Refused, Settings
from meshfed.federation.sources import Sources
from meshfed.federation.traffic import Traffic
from meshfed.federation.wanted import identities
from meshfed.xds.listening import Tls, claim
from meshfed.xds.reporting import LoadReporting
from meshfed.xds.server import Server

if TYPE_CHECKING:
    from meshfed.federation.inject.serve import Webhook

GRACE = 2.0  # seconds for streams to end
HANDED_OVER = 0.001  # seconds until a thread that waits for Python has it: what answers /healthz
STOPPING = (signal.SIGTERM, signal.SIGINT)

UNSTARTABLE = (Away, Unfit, Refused, Unissuable, Unsealable, ValueError)

log = structlog.get_logger()


class CannotStart(Exception):
    """One line for people, who can do something about it."""


def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart, and OSError when a port is taken."""
    files.raised()
    sys.setswitchinterval(HANDED_OVER)
    try:
        uvloop.run(_run(settings))
    except UNSTARTABLE as error:
        raise CannotStart(str(error)) from error


class Running:
    """What the admin API asks of the whole."""

    def __init__(
        self,
        lead: Lead,
        sources: Sources,
        publisher: Publisher,
        account: Account,
        presence: Presence,
        bearers: Bearers,
    ) -> None:
        self._lead = lead
        self._sources = sources
        self._publisher = publisher
        self._account = account
        self._presence = presence
        self._bearers = bearers

    def unready(self) -> list[str]:
        if self._publisher.ready.is_set():
            return []
        return self._sources.unobserved() or ["the first view of the mesh is being made"]

    def degraded(self) -> list[str]:
        away = [self._presence.trouble] if self._presence.trouble else []
        troubles = self._bearers.troubles
        return [*away, *self._sources.doubted(), *self._sources.unobserved(), *troubles]

    def replica(self) -> str:
        return self._lead.name

    def leader(self) -> str:
        return self._lead.leader.term.replica

    def revision(self) -> int:
        return self._account.evaluated

    async def settled(self, revision: int, seconds: float) -> Propagation | None:
        return await self._account.settled(revision, seconds)

    def proxies(self) -> tuple[ProxyState, ...]:
        return self._publisher.proxies()


@dataclass(frozen=True, slots=True)
class Doors:
    """The ports that are bound before anything is written."""

    admin: socket.socket
    join: socket.socket | None
    health: socket.socket | None
    webhook: socket.socket | None


def _bound(settings: Settings, stack: ExitStack) -> Doors:
    """Raises OSError when one is taken."""

    def bound(listen: Address | None, setting: str) -> socket.socket | None:
        return stack.enter_context(closing(admin.bound(listen, setting))) if listen else None

    made = Doors(
        stack.enter_context(closing(admin.bound(settings.admin.listen))),
        bound(settings.join.listen, "join.listen"),
        bound(settings.health.listen, "health.listen"),
        bound(settings.injection.listen, "injection.listen"),
    )
    claim(settings.xds.listen)
    if settings.xds.tokens:
        claim(settings.xds.tokens)
    return made


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("starting", catalog=settings.catalog.shown, trust_domain=settings.mesh.trust_domain)
    # Ports before anything is written: a second control plane by accident leaves no trace.
    with ExitStack() as bound:
        doors = _bound(settings, bound)
        with closing(Catalog(settings.catalog)) as catalog:
            if why := await catalog.deaf():
                raise CannotStart(why)
            for step in await asyncio.to_thread(migrate, settings.catalog):
                log.info("catalog migrated", to=step)
            name = replica()
            await _serve(settings, catalog, doors, stop, name)
            with suppress(Away):
                await catalog.leave(name)
    log.info("stopped")


async def _serve(
    settings: Settings, catalog: Catalog, doors: Doors, stop: asyncio.Event, name: str
) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    presence = Presence(metrics)
    domain, certificates = settings.mesh.trust_domain, settings.certificates
    issuer = await issuers.load(certificates.issuer).open(
        trust_domain=domain, safe=catalog, seal=certificates.seal
    )
    pods = settings.injection.hosts if settings.xds.tokens or doors.webhook else ()
    hosts = await asyncio.to_thread(called, settings.xds.listen, (*settings.xds.names, *pods))
    control = await ControlPlane.open(issuer, domain, certificates.workload_lifetime, hosts=hosts)
    custody = Custody(issuer, domain, certificates.workload_lifetime, kind=certificates.issuer)
    garbage.loading()
    mesh = await catalog.read()
    if not mesh.trust_domain:  # of all replicas the first says whose mesh it is
        await configure(settings, catalog)
        mesh = await catalog.read()
    custody.recorded(await catalog.certified())  # what left meanwhile is retired
    custody.keep(identities(mesh))
    await custody.check()
    account = Account(mesh.revision, metrics)
    publisher = Publisher(mesh, catalog, custody, account, metrics, presence, name)
    sources = Sources(settings, catalog, presence, metrics)
    webhook = _webhook(settings, control)

    def duties(led: Catalog) -> tuple[Duty, ...]:
        retain, minutes = settings.history.retain, settings.history.retain_traffic
        return (
            heed(settings, led, presence),
            sources.run(led),
            prune(led, retain, minutes),
            keep_addressed(led),
            listen(led, settings.join.lease, settings.join.gone),
            *(webhook.duties() if webhook else ()),
        )

    lead = Lead(name, catalog, presence, metrics, duties)
    traffic = Traffic(publisher, catalog, metrics, presence, name)
    audience = settings.injection.audience
    bearers = Bearers(sources.attestors(), publisher, audience, metrics)
    server = Server(
        publisher,
        lambda: _tls(control),
        metrics.pushed,
        LoadReporting(traffic, bearers),
        recording=settings.history.record_pushes,
        bearers=bearers,
    )
    # What is wrong with it is said before anybody is served.
    joinable = desk(settings, catalog, issuer, lambda: server.port) if doors.join else None
    await server.start(settings.xds.listen, settings.xds.tokens or "")
    tokens = {"tokens": server.port_of_tokens} if settings.xds.tokens else {}
    log.info("serving", replica=name, xds=server.port, **tokens, admin=doors.admin.getsockname()[1])
    standing = Running(lead, sources, publisher, account, presence, bearers)
    home = Home()
    api, refused = admin.app(standing, registry, home), metrics.turned_away
    workloads.offer(api, catalog, home)
    async with aclosing(bearers), asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(part)
            for part in (
                lead.run(),
                control.run(),
                custody.run(),
                publisher.run(),
                traffic.run(),
                sources.open(publisher),
                sources.measure(control, custody),
                home.beat(metrics.late),
                aside(partial(admin.serve, api, doors.admin, refused=refused)),
            )
        ]
        if joinable and doors.join is not None:
            joins = joining.serve(joinable, doors.join, control, refused)
            running.append(tasks.create_task(joins))
        if webhook and doors.webhook is not None:
            running.append(tasks.create_task(aside(partial(webhook.run, doors.webhook, refused))))
        if doors.health is not None:
            shown = admin.health(standing, registry, home)
            served = partial(
                admin.serve, shown, doors.health, refused=refused, door="health.listen"
            )
            running.append(tasks.create_task(aside(served)))
        await stop.wait()
        log.info("stopping", streams=server.streams)
        await server.stop(GRACE)
        for task in running:
            task.cancel()
    with suppress(Away):
        await traffic.write()


def _webhook(settings: Settings, control: ControlPlane) -> "Webhook | None":
    """Raises Refused."""
    if settings.injection.listen is None:
        return None
    # With it comes the client of Kubernetes, for whoever needs it.
    from meshfed.federation.inject.serve import Webhook

    return Webhook(settings, control)


def _tls(control: ControlPlane) -> Tls:
    pair = control.current
    return Tls(pair.chain_pem.encode(), pair.key_pem.encode(), control.roots_pem.encode())
