"""How long a change takes to reach everyone, through a real `meshfed serve` and real mutual TLS."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from itertools import cycle
from pathlib import Path

import given
from figures import Figure

from meshfed.catalog.store import Catalog
from meshfed.federation.bench.crowd import Crowd
from meshfed.federation.certificates import issuer, proxyfiles
from meshfed.federation.demo.control import Control, command, until
from meshfed.federation.demo.folder import Folder, free_ports, replace
from meshfed.federation.demo.measure import Edit
from meshfed.federation.demo.processes import Processes, environment
from meshfed.federation.settings import Settings

APART = 0.15  # seconds between changes: longer than shape changes are held together


async def propagation(folder: Path, proxies: int, times: int) -> list[Figure]:
    """The figures of every kind of change, `times` each."""
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    where = Folder(folder, given.DOMAIN, admin)
    furnish(where, proxies, xds)
    async with connected(where, xds, given.names(proxies)) as control:
        figures = []
        for what, edits in changes(where, proxies):
            taken = [await measured(control, next(edits)) for _ in range(times)]
            figures += list(told(what, taken, proxies))
        return figures


@asynccontextmanager
async def connected(where: Folder, xds: str, names: list[str]) -> AsyncIterator[Control]:
    """A control plane as the folder says, once a proxy of each of these workloads is in sync."""
    control = Control(where)
    async with asyncio.TaskGroup() as tasks:
        processes = Processes(where.path, tasks)
        try:
            await processes.start("serve", command(where))
            await until("the control plane's start", control.ready)
            await certify(where, names)
            papers = [where.papers(name) for name in names]
            crowd = await Crowd.start(processes, "proxies", "delta", xds, papers)
            await crowd.connect()

            async def all_there() -> bool:
                return await control.in_sync() == len(names)

            await until("the proxies' start", all_there)
            yield control
        finally:
            await processes.stop_all()


def furnish(where: Folder, proxies: int, xds: str) -> None:
    where.split.parent.mkdir()
    where.config.write_text(given.configuration(xds, where.admin))
    where.hosts.write_text(given.host_list(proxies, spare=True))
    (where.split.parent / "access.yaml").write_text(given.access(proxies))
    where.split.write_text(given.split(100))


def changes(where: Folder, proxies: int) -> Iterator[tuple[str, Iterator[Callable[[], float]]]]:
    """What is changed, and the edits that do it, each the opposite of the one before."""
    reweighted = [given.host_list(proxies, weight=weight, spare=True) for weight in (2, 1)]
    emptied = [given.host_list(proxies, spare=there) for there in (False, True)]
    shifted = [given.split(first) for first in (50, 100)]
    yield "a host's weight", cycle([_replacing(where.hosts, text) for text in reweighted])
    yield "a host leaves or comes", cycle([_replacing(where.hosts, text) for text in emptied])
    yield "a split's weights", cycle([_replacing(where.split, text) for text in shifted])


def _replacing(path: Path, text: str) -> Callable[[], float]:
    return lambda: replace(path, text)


async def measured(control: Control, act: Callable[[], float]) -> Edit:
    edit = await control.after(act)
    await asyncio.sleep(APART)
    return edit


def told(what: str, edits: list[Edit], proxies: int) -> Iterator[Figure]:
    everyone = f"the last of {proxies} proxies acknowledged"
    yield Figure(
        f"{what}: commit → last ACK",
        tuple(edit.propagation_ms for edit in edits),
        f"from the catalog's commit until {everyone}",
    )
    yield Figure(
        f"{what}: edit → last ACK",
        tuple(edit.edit_to_ack_ms for edit in edits),
        f"from the rename of the file until {everyone}",
    )


async def certify(where: Folder, names: list[str]) -> None:
    """What `proxy bootstrap` writes for each of them, with the authority opened once."""
    settings = Settings.read(where.config, environment(os.environ))
    certificates = settings.certificates
    with closing(Catalog(settings.catalog)) as catalog:
        workloads = {each.name: each for each in (await catalog.read()).workloads.values()}
        authority = await issuer.load(certificates.issuer).open(
            trust_domain=where.domain, safe=catalog, seal=certificates.seal
        )
        for name in names:
            papers = await proxyfiles.credentials(
                authority, workloads[name], where.domain, certificates.proxy_lifetime
            )
            proxyfiles.write(where.papers(name), papers)
