"""The demo's story: start everything, move the split twice, take a host away."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.table import Table

from meshfed.federation.bootstrap import Unbootstrappable, bootstrap
from meshfed.federation.demo import control, envoys
from meshfed.federation.demo.applications import Applications, application, stores
from meshfed.federation.demo.control import Control, until
from meshfed.federation.demo.folder import Folder, Host, hosts, replace, weighted, without
from meshfed.federation.demo.measure import (
    ENOUGH,
    VERSIONS,
    Edit,
    Mark,
    Measured,
    Removal,
    phases,
    whole,
)
from meshfed.federation.demo.processes import Broken, Processes, environment
from meshfed.federation.demo.screen import Progress, Screen, live
from meshfed.federation.settings import Settings

SPLITS = ((100, 0), (50, 50), (0, 100))
REMOVED = "store-4"
PARTS = len(SPLITS) + 1  # a removal follows
SHORTEST = 1.5  # seconds of a part, whatever was asked for
CLOSING = 1.0  # seconds after the last part
PATIENCE = 120.0  # seconds for the requests of the 50/50 phase
CALLERS = ("bookbuyer", "bookthief")


class Story:
    """The bookstore from its first process to its last request."""

    def __init__(
        self, folder: Folder, envoy: Path, deadline: float, processes: Processes, screen: Screen
    ) -> None:
        self.folder = folder
        self.envoy = envoy
        self.deadline = deadline
        self.processes = processes
        self.screen = screen
        self.hosts = {host.name: host for host in hosts(folder.hosts.read_text())}
        everyone = tuple(self.hosts.values())
        self.applications = Applications(
            lambda host: application(host, everyone, folder), processes
        )
        self.control = Control(folder)
        self.act = "starting"
        self.change = ""
        self.last: Edit | None = None

    @property
    def servers(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.name not in CALLERS]

    async def tell(self) -> Measured:
        await self.start()
        proxies = await self.control.in_sync()
        marks, edits = await self.play()
        ended = time.time()
        await self.applications.stop(*CALLERS)
        counted = await self.counters(self.hosts.values())
        plaintext = await asyncio.gather(
            *(asyncio.to_thread(envoys.answers_plaintext, each.address) for each in self.servers)
        )
        await self.applications.stop(*(host.name for host in self.servers))
        calls = {name: tuple(made) for name, made in self.applications.calls.items()}
        *splits, removal = edits
        return Measured(
            phases=phases(SPLITS, marks),
            splits=tuple(splits),
            removal=Removal(removal, ended, calls.get(REMOVED, ())),
            buyer=calls.get("bookbuyer", ()),
            thief=calls.get("bookthief", ()),
            warehouse=calls.get("warehouse", ()),
            ledger_refused=envoys.total(counted["ledger"], envoys.REFUSED),
            handshakes=sum(envoys.total(each, envoys.HANDSHAKE) for each in counted.values()),
            plaintext_refused=not any(plaintext),
            proxies=proxies,
        )

    async def start(self) -> None:
        """Everything but the two callers, until every sidecar has its configuration."""
        self.announce("starting the control plane")
        await self.processes.start("serve", control.command(self.folder))
        await asyncio.gather(*(self.applications.start(host) for host in self.servers))
        await until("the control plane's start", self.control.ready)
        self.announce(f"starting {len(self.hosts)} sidecars")
        settings = Settings.read(self.folder.config, environment(os.environ))
        for host in self.hosts.values():
            papers = self.folder.papers(host.name)
            try:
                await bootstrap(settings, host.name, papers)
            except Unbootstrappable as why:
                raise Broken(str(why)) from why
            command = envoys.command(self.envoy, papers / "envoy.yaml")
            await self.processes.start(f"{host.name}.envoy", command)
        await until("the sidecars' start", self.sidecars_ready)

    async def sidecars_ready(self) -> bool:
        addresses = [host.address for host in self.hosts.values()]
        ready = await asyncio.gather(*(asyncio.to_thread(envoys.ready, each) for each in addresses))
        return all(ready) and await self.control.in_sync() == len(addresses)

    async def play(self) -> tuple[list[Mark], list[Edit]]:
        """The three splits, and the removal after them: the marks between, and what made them."""
        self.announce("split {}/{}".format(*SPLITS[0]))
        refused, begun = await self.refused(), time.time()
        await asyncio.gather(*(self.applications.start(self.hosts[name]) for name in CALLERS))
        marks, edits = [Mark(begun, begun, refused)], list[Edit]()
        await self.part(0)
        for number, weights in enumerate(SPLITS[1:], 1):
            await self.edit("split {}/{}".format(*weights), self.split(weights), marks, edits)
            await self.part(number)
            if 0 not in weights:
                await self.enough(marks[-1].applied)
        await self.edit(f"{REMOVED} removed", self.removal, marks, edits)
        await self.part(PARTS - 1)
        return marks, edits

    async def edit(
        self, what: str, act: Callable[[], float], marks: list[Mark], edits: list[Edit]
    ) -> None:
        refused = await self.refused()
        edit = await self.control.after(act)
        marks.append(Mark(edit.renamed, edit.applied, refused))
        edits.append(edit)
        self.change, self.last = what, edit
        self.announce(what)

    def split(self, weights: tuple[int, int]) -> Callable[[], float]:
        text = weighted(self.folder.split.read_text(), dict(zip(VERSIONS, weights, strict=True)))
        return lambda: replace(self.folder.split, text)

    def removal(self) -> float:
        return replace(self.folder.hosts, without(self.folder.hosts.read_text(), REMOVED))

    async def part(self, number: int) -> None:
        """Let a part have its share of the time that is left."""
        left = self.deadline - CLOSING - time.monotonic()
        await asyncio.sleep(max(SHORTEST, left / (PARTS - number)))

    async def enough(self, applied: float) -> None:
        """Wait until the bookbuyer has bought enough for the shares to mean something."""
        try:
            async with asyncio.timeout(PATIENCE):
                buyer = self.applications.calls["bookbuyer"]
                while len(whole(buyer, applied, time.time())) < ENOUGH:
                    self.applications.news.clear()
                    await self.applications.news.wait()
        except TimeoutError:
            raise Broken(f"the bookbuyer made no {ENOUGH} requests in {PATIENCE:.0f} s") from None

    async def refused(self) -> int:
        """What the stores' RBAC counters stand at."""
        counted = await self.counters(stores(tuple(self.hosts.values())))
        return sum(envoys.total(each, envoys.REFUSED) for each in counted.values())

    async def counters(self, asked: Iterable[Host]) -> dict[str, envoys.Counters]:
        found = {host.name: asyncio.to_thread(envoys.stats, host.address) for host in asked}
        return dict(zip(found, await asyncio.gather(*found.values()), strict=True))

    def announce(self, act: str) -> None:
        self.act = act
        self.screen.act(act if self.last is None else f"{act}: {self.last.edit_to_ack_ms:.0f} ms")

    async def shown(self) -> Table:
        return live(await self.progress())

    async def progress(self) -> Progress:
        return Progress(
            act=self.act,
            tally=self.applications.tally,
            in_sync=await self.control.in_sync(),
            proxies=len(hosts(self.folder.hosts.read_text())),
            change=self.change,
            last=self.last,
        )
