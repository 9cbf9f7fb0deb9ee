"""The demo's third story: gRPC without sidecars, balanced over the machines of two providers."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from meshfed.catalog.reader import query
from meshfed.federation.bootstrap import Unbootstrappable, bootstrap
from meshfed.federation.certificates import proxyfiles
from meshfed.federation.demo import control
from meshfed.federation.demo.applications import Applications
from meshfed.federation.demo.control import Control, until
from meshfed.federation.demo.folder import Folder, Host, hosts, replace, without
from meshfed.federation.demo.inventories import file
from meshfed.federation.demo.measure import Call, Edit, Json, begun, tally, whole
from meshfed.federation.demo.platforms import AZURE, HOSTS, SERVICE, sellers
from meshfed.federation.demo.processes import Broken, Processes, environment
from meshfed.federation.demo.screen import Screen
from meshfed.federation.settings import Settings

SOURCE = "grpc"  # the folder of its files
PROVIDERS = (HOSTS, AZURE)
BUYER, THIEF = "bookbuyer", "bookthief"
LOST = "host-2"
ENDPOINTS = f"select provider, address from mesh_endpoints where service = '{SERVICE}'"
SHORTEST = 1.0  # seconds of a part, whatever was asked for
PARTS = 3  # all are there; one is killed; the list says so
FAIR = 0.4  # how far from an equal share one may be: gRPC draws among localities


@dataclass(frozen=True, slots=True)
class Balanced:
    """Everything that was counted."""

    stores: Mapping[str, tuple[Host, ...]]  # by provider
    since: float
    killed: float
    removal: Edit
    until: float
    buyer: tuple[Call, ...]
    thief: tuple[Call, ...]

    @property
    def names(self) -> list[str]:
        return [host.name for there in self.stores.values() for host in there]


class Proxyless:
    """From the first process to the last call."""

    def __init__(
        self, folder: Folder, deadline: float, processes: Processes, screen: Screen
    ) -> None:
        self.folder = folder
        self.deadline = deadline
        self.processes = processes
        self.screen = screen
        texts = {name: file(folder.path, name).read_text() for name in PROVIDERS}
        self.stores = {name: sellers(name, text) for name, text in texts.items()}
        self.callers = {host.name: host for host in hosts(texts[HOSTS]) if host.port is None}
        self.applications = Applications(application, processes, self.told)
        self.control = Control(folder)
        self.act = "starting"

    @property
    def selling(self) -> list[Host]:
        return [host for there in self.stores.values() for host in there]

    async def tell(self, more: Mapping[str, str]) -> Balanced:
        await self.start(more)
        since = time.time()
        self.announce("hosts of two providers sell")
        await self.part(0)
        self.announce(f"{LOST} is killed")
        killed = time.time()
        await self.applications.kill(LOST)
        await self.part(1)
        removal = await self.control.after(self.removal)
        self.announce(f"{LOST} is taken out of the list")
        await self.part(2)
        ended = time.time()
        await self.applications.stop(BUYER, THIEF)
        calls = {name: tuple(self.applications.calls[name]) for name in (BUYER, THIEF)}
        return Balanced(self.stores, since, killed, removal, ended, calls[BUYER], calls[THIEF])

    async def start(self, more: Mapping[str, str]) -> None:
        self.announce("starting the control plane")
        await self.processes.start("serve", control.command(self.folder), more=more)
        await until("the control plane's start", self.control.ready)
        await until("the providers' endpoints", self.all_listed)
        settings = Settings.read(self.folder.config, environment(os.environ))
        for host in (*self.selling, *self.callers.values()):
            try:
                await bootstrap(settings, host.name, self.folder.papers(host.name), grpc=True)
            except Unbootstrappable as why:
                raise Broken(str(why)) from why
        self.announce(f"starting {len(self.selling)} bookstores")
        await self.run(self.selling)
        await until("the bookstores' listeners", self.all_told)
        await self.run(self.callers.values())
        await until("the first sale", self.sold)

    async def run(self, those: Iterable[Host]) -> None:
        await asyncio.gather(*(self.applications.start(host) for host in those))

    def told(self, host: Host) -> Mapping[str, str]:
        """All that an application has of the mesh."""
        return {proxyfiles.VARIABLE: str(self.folder.papers(host.name) / proxyfiles.GRPC)}

    async def all_listed(self) -> bool:
        """Whether the catalog has every store."""
        url = f"sqlite:///{self.folder.path}/meshfed.db"
        rows = (await asyncio.to_thread(query, url, ENDPOINTS)).rows
        return {str(address) for _, address in rows} == {host.address for host in self.selling}

    async def all_told(self) -> bool:
        return await self.control.in_sync() >= len(self.selling)

    async def sold(self) -> bool:
        tally = self.applications.tally
        return all(tally[BUYER, "buy", host.name] for host in self.selling)

    def removal(self) -> float:
        listed = file(self.folder.path, HOSTS)
        return replace(listed, without(listed.read_text(), LOST))

    async def part(self, number: int) -> None:
        """Let a part have its share of the time that is left."""
        left = self.deadline - time.monotonic()
        await asyncio.sleep(max(SHORTEST, left / (PARTS - number)))

    def announce(self, act: str) -> None:
        self.act = act
        self.screen.act(act)

    async def shown(self) -> Table:
        table = Table(title=self.act, title_justify="left", show_header=False, min_width=72)
        bought = self.applications.tally
        for provider, there in self.stores.items():
            for number, host in enumerate(there):
                sold = str(bought[BUYER, "buy", host.name])
                table.add_row("" if number else provider, host.name, sold)
        table.add_row(BUYER, "failed", str(bought[BUYER, "buy", "failed"]))
        table.add_row(BUYER, "denied", str(bought[BUYER, "steal", "denied"]))
        table.add_row(THIEF, "denied", str(bought[THIEF, "buy", "denied"]))
        return table


def application(host: Host) -> tuple[str, ...]:
    """The module of deploy/demo that a host runs, and its arguments."""
    if host.port is None:
        return ("grpcbuyer",)
    return ("grpcstore", "--name", host.name, "--bind", f"{host.address}:{host.port}")


# What it was, and what is wrong in it


def answered(run: Balanced) -> dict[str, int]:
    """Who sold how many while all were there."""
    sold = tally(whole(run.buyer, run.since, run.killed), "buy")
    return {name: sold[name] for name in run.names}


def failed(run: Balanced, since: float, until: float) -> int:
    sold = tally(begun(run.buyer, since, until), "buy")
    return sold.total() - sum(sold[name] for name in run.names)


def result(run: Balanced) -> Json:
    """The object of `meshfed demo --grpc -o json`."""
    after = tally(begun(run.buyer, run.removal.applied, run.until), "buy")
    return {
        "providers": {name: [host.name for host in there] for name, there in run.stores.items()},
        "sidecars": 0,
        "answered": answered(run),
        "failed": failed(run, run.since, run.killed),
        "killed": {
            "name": LOST,
            "failed": failed(run, run.killed, run.removal.renamed),
            "edit_to_ack_ms": round(run.removal.edit_to_ack_ms, 1),
            "failed_after_removal": failed(run, run.removal.renamed, run.until),
            "answered_after_removal": {name: after[name] for name in run.names},
        },
        "denied": {
            "by_stores": tally(run.buyer, "steal")["denied"],
            "to_others": tally(run.thief, "buy")["denied"],
        },
    }


def findings(run: Balanced) -> list[str]:
    """What the demo promises and this run did not keep; nothing, when all is well."""
    sold = answered(run)
    fair = sum(sold.values()) / len(sold)
    found = [
        f"{name} sold {number} books of {sum(sold.values())}"
        for name, number in sold.items()
        if not (1 - FAIR) * fair <= number <= (1 + FAIR) * fair
    ]
    if number := failed(run, run.since, run.until):
        found.append(f"{number} calls failed")
    if after := tally(begun(run.buyer, run.removal.applied, run.until), "buy")[LOST]:
        found.append(f"{LOST} sold {after} books after it was killed")
    tried = {"the bookbuyer's thefts": tally(run.buyer, "steal"), THIEF: tally(run.thief, "buy")}
    for whose, outcomes in tried.items():
        if not outcomes["denied"] or outcomes["denied"] != outcomes.total():
            found.append(f"{whose}: {outcomes['denied']} of {outcomes.total()} calls were denied")
    return found


def summary(run: Balanced) -> Table:
    """The table at the end."""
    table = Table("", "", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("answered", f"after {LOST} left"):
        table.add_column(heading, justify="right")
    after = tally(begun(run.buyer, run.removal.applied, run.until), "buy")
    sold = answered(run)
    for provider, there in run.stores.items():
        for host in there:
            table.add_row(provider, host.name, str(sold[host.name]), str(after[host.name]))
    table.caption = (
        f"One gRPC client, no sidecar: {failed(run, run.since, run.until)} calls failed,"
        f" {failed(run, run.killed, run.removal.renamed)} of them when {LOST} was killed."
    )
    return table
