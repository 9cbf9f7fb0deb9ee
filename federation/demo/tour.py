"""The demo's other story: one service on several platforms, each of which loses its power once."""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table

from meshfed.catalog.reader import query
from meshfed.federation.bootstrap import Unbootstrappable, bootstrap
from meshfed.federation.demo import control, envoys
from meshfed.federation.demo.applications import Applications, honest
from meshfed.federation.demo.control import Control, until
from meshfed.federation.demo.folder import Folder, Host, hosts, replace
from meshfed.federation.demo.inventories import file
from meshfed.federation.demo.outages import Outage, Toured
from meshfed.federation.demo.platforms import (
    HOSTS,
    SERVICE,
    by_platform,
    clusters,
    dialled,
    emptied,
    left_alone,
    sellers,
    starting,
)
from meshfed.federation.demo.processes import Broken, Child, Processes, environment
from meshfed.federation.demo.screen import Screen
from meshfed.federation.demo.toured import live
from meshfed.federation.settings import Settings

BUYER = "bookbuyer"
ENDPOINTS = f"select platform, address from mesh_endpoints where service = '{SERVICE}'"
# What says that Envoy was told of a cluster: of its endpoints, or of itself.
UPDATES = re.compile(
    rf"^cluster\.(?!{SERVICE}|xds)(.+)\.update_success$"
    r"|^cluster_manager\.cluster_(added|modified|removed)$"
)
SHORTEST = 0.5  # seconds in which all are there, before each outage
AWAY = 0.5  # seconds after the ejection in which nobody tells the inventory
OUTAGE = 5.0  # seconds that one takes


class Tour:
    """From the first process to the last platform's return."""

    def __init__(
        self,
        folder: Folder,
        platforms: Iterable[str],
        envoy: Path,
        deadline: float,
        processes: Processes,
        screen: Screen,
    ) -> None:
        self.folder = folder
        self.envoy = envoy
        self.deadline = deadline
        self.processes = processes
        self.screen = screen
        self.files = {name: file(folder.path, name) for name in platforms}
        self.sellers = {name: sellers(name, f.read_text()) for name, f in self.files.items()}
        listed = {host.name: host for host in hosts(self.files[HOSTS].read_text())}
        selling = {host.name: host for there in self.sellers.values() for host in there}
        self.hosts = listed | selling
        self.buyer = listed[BUYER]
        self.sidecars: dict[str, Child] = {}
        self.applications = Applications(lambda host: honest(host, host.name), processes)
        self.control = Control(folder)
        self.act = "starting"
        self.outages: list[Outage] = []

    async def tell(self, more: Mapping[str, str]) -> Toured:
        await self.start(more)
        proxies = await self.control.in_sync()
        rows = await asyncio.to_thread(self.rows)
        found = await self.dialled()
        since = time.time()
        for number, platform in enumerate(self.files):
            self.announce("all platforms answer")
            await self.dwell(len(self.files) - number)
            self.outages.append(await self.outage(platform))
        await self.applications.stop(BUYER)
        return Toured(
            sellers=self.sellers,
            endpoints=dict(Counter(platform for platform, _ in rows)),
            addresses=by_platform(found, self.sellers),
            since=since,
            outages=tuple(self.outages),
            buyer=tuple(self.applications.calls[BUYER]),
            proxies=proxies,
        )

    async def start(self, more: Mapping[str, str]) -> None:
        """Everything, until the buyer buys at all of them."""
        self.announce("starting the control plane")
        await self.processes.start("serve", control.command(self.folder), more=more)
        await self.run_applications(host for host in self.hosts.values() if host != self.buyer)
        await until("the control plane's start", self.control.ready)
        await until("the platforms' endpoints", self.all_listed)
        self.announce(f"starting {len(self.hosts)} sidecars")
        settings = Settings.read(self.folder.config, environment(os.environ))
        for host in self.hosts.values():
            try:
                await bootstrap(settings, host.name, self.folder.papers(host.name))
            except Unbootstrappable as why:
                raise Broken(str(why)) from why
        await self.run_sidecars(self.hosts.values())
        await until("the endpoints at the bookbuyer", self.all_there)
        await self.applications.start(self.buyer)

    async def run_applications(self, those: Iterable[Host]) -> None:
        await asyncio.gather(*(self.applications.start(host) for host in those))

    async def run_sidecars(self, those: Iterable[Host]) -> None:
        """Start them, and wait until each has its configuration."""
        started = list(those)
        for host in started:
            papers = self.folder.papers(host.name)
            self.sidecars[host.name] = await self.processes.start(
                f"{host.name}.envoy", envoys.command(self.envoy, papers / "envoy.yaml")
            )

        async def ready() -> bool:
            asked = (asyncio.to_thread(envoys.ready, host.address) for host in started)
            return all(await asyncio.gather(*asked))

        await until("the sidecars' start", ready)

    async def outage(self, platform: str) -> Outage:
        """Its machines lose power; later the platform says so; then they are there again."""
        those = self.sellers[platform]
        addresses = [host.address for host in those]
        before = await self.unrelated(those)
        self.announce(f"{platform} loses its power")
        began = time.time()
        await self.processes.kill(*(self.sidecars[host.name] for host in those))
        await self.applications.stop(*(host.name for host in those))

        async def ejected() -> bool:
            return left_alone(await self.dialled(), addresses, len(self.selling))

        await until(f"the ejection of {platform}", ejected)
        left = time.time()
        await asyncio.sleep(AWAY)
        self.announce(f"{platform} says that its machines are gone")
        said = self.files[platform].read_text()
        edited = replace(self.files[platform], emptied(platform, said))
        rest = self.selling.difference(addresses)

        async def gone() -> bool:
            return set(await self.dialled()) == rest

        await until(f"the removal of {platform}", gone)
        removed = time.time()
        agreed = {at for _, at in await asyncio.to_thread(self.rows)} == rest
        later = await self.unrelated(those)
        self.announce(f"{platform} comes back")
        replace(self.files[platform], starting(platform, said))
        await self.run_applications(those)
        await self.run_sidecars(those)
        replace(self.files[platform], said)
        await until(f"the return of {platform}", self.all_there)
        others = sum(n > 0 for (_, name), n in before.items() if name.startswith("cluster."))
        told = sum(later.values()) - sum(before.values())
        return Outage(platform, began, left, edited, removed, time.time(), agreed, others, told)

    @property
    def selling(self) -> frozenset[str]:
        """The addresses of all who sell, when all are there."""
        return frozenset(host.address for there in self.sellers.values() for host in there)

    async def all_listed(self) -> bool:
        """Whether the catalog has everyone."""
        return {at for _, at in await asyncio.to_thread(self.rows)} == self.selling

    async def all_there(self) -> bool:
        """Whether every proxy has everything, and the buyer's may call every seller."""
        everyone = await self.control.in_sync() == len(self.hosts)
        found = await self.dialled()
        return everyone and set(found) == self.selling and set(found.values()) == {"healthy"}

    def rows(self) -> list[tuple[str, str]]:
        """What anyone can ask the catalog: who answers for the bookstore."""
        rows = query(f"sqlite:///{self.folder.path}/meshfed.db", ENDPOINTS).rows
        return [(str(platform), str(address)) for platform, address in rows]

    async def dialled(self) -> Mapping[str, str]:
        return dialled(clusters(await asyncio.to_thread(envoys.clusters, self.buyer.address)))

    async def unrelated(self, but: Iterable[Host]) -> Mapping[tuple[str, str], int]:
        """How often all other Envoys were ever told of other clusters: by Envoy and statistic."""
        asked = [host.address for host in self.hosts.values() if host not in set(but)]
        found = await asyncio.gather(*(asyncio.to_thread(envoys.stats, each) for each in asked))
        return {
            (address, name): count
            for address, stats in zip(asked, found, strict=True)
            for name, count in stats.items()
            if UPDATES.search(name)
        }

    async def dwell(self, outages: int) -> None:
        """Let all be there for a share of the time that these outages leave."""
        left = self.deadline - time.monotonic() - outages * OUTAGE
        await asyncio.sleep(max(SHORTEST, left / outages))

    def announce(self, act: str) -> None:
        self.act = act
        self.screen.act(act)

    async def shown(self) -> Table:
        return live(self.act, self.applications.tally, self.sellers, await self.control.in_sync())
