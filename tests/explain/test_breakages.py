"""Twelve things that go wrong: `why`, `path` or `doctor` names object and cause in two commands."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
)
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import live
import pytest
from dns.resolver import NoResolverConfiguration, Resolver

from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.reports import CertificateState
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.bootstrap import bootstrap
from meshfed.federation.demo import envoys
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import replace
from meshfed.federation.settings import Settings
from meshfed.providers.hosts import HostsProvider
from meshfed.providers.names import Names

pytestmark = pytest.mark.asyncio(loop_scope="session")

WEB = ServiceName("web", "shop")
HOUR = 3600.0


@dataclass(frozen=True)
class Broken:
    """What to ask of what is broken now, with the options that lead there."""

    options: tuple[str, ...] = ()
    user: int | None = None  # to ask as


Breaks = Callable[..., AbstractAsyncContextManager[Broken]]


# With a mesh that runs


@asynccontextmanager
async def nothing(world) -> AsyncIterator[Broken]:
    """Wrong from the start, or in the question."""
    yield Broken(("--config", str(world.mesh.config)))


@asynccontextmanager
async def emptied(world) -> AsyncIterator[Broken]:
    text = world.mesh.hosts.read_text()
    replace(world.mesh.hosts, "")
    await heard(world, "select state = 'failing' from mesh_providers where type = 'hosts'")
    yield Broken(("--config", str(world.mesh.config)))
    replace(world.mesh.hosts, text)
    await heard(world, "select state = 'good' from mesh_providers where type = 'hosts'")


@asynccontextmanager
async def rejected(world) -> AsyncIterator[Broken]:
    """Another program has the loopback port that the proxy is told to listen on."""
    access = world.mesh.folder / "policy" / "more.yaml"
    with socket.create_server(("127.0.4.2", 14306)):
        replace(access, GRANT)
        await heard(world, "select state = 'rejecting' from mesh_proxies where workload='stranger'")
        yield Broken(("--config", str(world.mesh.config)))
    access.unlink()
    await heard(world, "select state = 'synced' from mesh_proxies where workload = 'stranger'")


@asynccontextmanager
async def stuck(world) -> AsyncIterator[Broken]:
    """A proxy that stands still while something changes for it."""
    envoy = world.mesh.sidecars["stranger"].process.popen
    access = world.mesh.folder / "policy" / "more.yaml"
    os.kill(envoy.pid, signal.SIGSTOP)
    try:
        replace(access, GRANT)
        await heard(world, "select state = 'behind' from mesh_proxies where workload = 'stranger'")
        yield Broken(("--config", str(world.mesh.config)))
    finally:
        os.kill(envoy.pid, signal.SIGCONT)
        access.unlink()
    await heard(world, "select state = 'synced' from mesh_proxies where workload = 'stranger'")


GRANT = """\
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: stranger-server, namespace: live}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: live}
  sources: [{kind: ServiceAccount, name: stranger, namespace: live}]
  rules: [{kind: TCPRoute, name: open}]
"""


@asynccontextmanager
async def expired(world) -> AsyncIterator[Broken]:
    """An Envoy that starts with a certificate of yesterday."""
    settings = Settings.read(world.mesh.config, {})
    short = settings.certificates.model_copy(update={"proxy_lifetime": timedelta(seconds=1)})
    papers = world.mesh.folder / "late"
    await bootstrap(settings.model_copy(update={"certificates": short}), "late", papers)
    await asyncio.sleep(1.1)
    command = envoys.command(envoys.binary(), papers / "envoy.yaml")
    process = live.Process(command, world.mesh.folder / "late.log")

    async def holds_it() -> bool:
        process.running()
        _, told = await asyncio.to_thread(envoys.get, "127.0.4.3", envoys.ADMIN, "/certs")
        return "expiration_time" in told

    try:
        await until("its certificate", holds_it)
        yield Broken(("--config", str(world.mesh.config)))
    finally:
        process.kill()


async def heard(world, question: str) -> None:
    """Once the catalog says so."""
    from meshfed.catalog.reader import query

    async def so() -> bool:
        answer = await asyncio.to_thread(query, world.url, question)
        return bool(answer.rows) and bool(answer.rows[0][0])

    await until(question, so)


# With a catalog that nobody serves


def host(name: str, provider: str = "rack", address: str = "127.0.6.1", who: str = "web") -> Known:
    scope = f"{provider}/hosts.yaml"
    identity = Identity(who, "shop")
    workload = Workload(name, provider, scope, identity=identity, addresses=(address,))
    endpoint = Endpoint(WEB, 8080, address, 8080, workload.id, provider, scope, identity=identity)
    services = frozenset({Service(WEB, (Port(8080, "http"),))})
    return Known(provider, scope, services, frozenset({workload}), frozenset({endpoint}))


def seeded(
    fill: Callable[[Catalog], Awaitable[object]], *, clock: Callable[[], float] = time.time
) -> Breaks:
    @asynccontextmanager
    async def broken(world) -> AsyncIterator[Broken]:
        del world
        with TemporaryDirectory() as folder:
            yield Broken(("--catalog", await filled(Path(folder), fill, clock)))

    return broken


async def filled(
    folder: Path, fill: Callable[[Catalog], Awaitable[object]], clock: Callable[[], float]
) -> str:
    url = f"sqlite:///{folder}/meshfed.db"
    await asyncio.to_thread(migrate, url)
    with closing(Catalog(url, clock=clock)) as catalog:
        await catalog.configure("shop.example", permissive=False)
        await fill(catalog)
        await catalog.record("replica-1", 1, (), (), ())
    return url


async def two_claims(catalog: Catalog) -> None:
    await catalog.believe(host("web-1"), kind="hosts", cause="")
    await catalog.believe(host("other", "stock", who="thief"), kind="hosts", cause="")


async def one(catalog: Catalog) -> None:
    await catalog.believe(host("web-1"), kind="hosts", cause="")


async def unrenewed(catalog: Catalog) -> None:
    await one(catalog)
    ended = time.time() - HOUR
    row = CertificateState(Identity("web", "shop"), WEB, "local", "claimed", "1", 0.0, ended)
    await catalog.certify([row])


def no_servers() -> Resolver:
    raise NoResolverConfiguration


async def without_dns(catalog: Catalog) -> None:
    """What the provider itself sees then."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "hosts.yaml"
        file.write_text(
            "hosts:\n  - {name: web-1, address: web-1.corp.example, service: web.shop, port: 8080,"
            " identity: web.shop}\n"
        )
        names = Names(no_servers, Path(folder) / "none")
        options = {"path": "hosts.yaml"}
        provider = HostsProvider(name="rack", options=options, base=Path(folder), names=names)
        async with aclosing(provider.observe()) as observations:
            seen = await anext(observations)
    known = Known("rack", seen.scope, seen.services, seen.workloads, seen.endpoints,
                  rejected=seen.rejected)  # fmt: skip
    await catalog.believe(known, kind="hosts", cause="")
    await catalog.seen("rack", "hosts", seen.scope, fault=seen.fault)


@asynccontextmanager
async def read_only(world) -> AsyncIterator[Broken]:
    del world
    with TemporaryDirectory() as name:
        folder = Path(name)
        url = await filled(folder, one, time.time)
        with guarded(folder):
            yield Broken(("--catalog", url), user=65534 if os.geteuid() == 0 else None)


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Nobody may write there."""
    folder.chmod(0o555)
    (folder / "meshfed.db").chmod(0o444)
    try:
        yield
    finally:
        folder.chmod(0o755)


@contextmanager
def being(user: int | None) -> Iterator[None]:
    """Root may write everything: to be told that one may not, be somebody else."""
    if user is None:
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


BREAKAGES = [
    pytest.param(nothing, ["path stranger web.live"],
                 "server.live", "no TrafficTarget lets stranger.live call server.live",
                 id="missing authorization"),
    pytest.param(nothing, ["path caller web.live:81"],
                 "web.live", "it has no port 81: it has 8080 (http)", id="wrong port"),
    pytest.param(expired, ["why late"],
                 "late", "the certificate with which its Envoy connects ended at",
                 id="expired certificate of a proxy"),
    pytest.param(seeded(unrenewed), ["doctor"],
                 "certificate: web.shop", "no newer one was issued", id="expired certificate"),
    pytest.param(emptied, ["why web.live"],
                 "scope: rack/hosts.yaml", "the file is empty", id="emptied host file"),
    pytest.param(rejected, ["doctor", "why stranger"],
                 "proxy: stranger", "127.0.4.2:14306", id="rejected configuration"),
    pytest.param(read_only, ["doctor"],
                 "meshfed.db", "may not be written by this user", id="read-only database"),
    pytest.param(seeded(one, clock=lambda: time.time() + HOUR), ["doctor"],
                 "clock: this machine", "s behind what wrote the last revision", id="clock skew"),
    pytest.param(seeded(without_dns), ["why web-1"],
                 "web-1", "no DNS server is configured", id="DNS down"),
    pytest.param(stuck, ["wait --timeout 1s"],
                 "stranger", "has not acknowledged revision", id="stuck proxy"),
    pytest.param(seeded(two_claims), ["why 127.0.6.1"],
                 "127.0.6.1:8080", "stock claims it too, as thief.shop", id="conflicting address"),
    pytest.param(nothing, ["why lost.live"],
                 "127.0.5.9:15003", "does not answer from this machine", id="unreachable host"),
    pytest.param(nothing, ["doctor"],
                 "127.0.5.1:14101", "in plaintext, to anybody", id="plaintext application port"),
]  # fmt: skip


@pytest.mark.parametrize(("breaks", "commands", "about", "cause"), BREAKAGES)
async def test_what_is_broken_is_named_with_its_cause(
    world, command, breaks: Breaks, commands: Sequence[str], about: str, cause: str
):
    assert len(commands) <= 2
    said = ""
    async with breaks(world) as broken:
        for each in commands:
            with being(broken.user):
                ended = await asyncio.to_thread(command, *each.split(), *broken.options)
            assert ended.code == 1, ended.out
            said += ended.err
    (line, *_) = [line for line in said.splitlines() if about in line and cause in line] or [said]
    assert about in line
    assert cause in line
    assert ";" in line or "revision" in line, "without a remedy"
