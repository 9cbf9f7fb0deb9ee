"""The demo's applications: which runs on which host, and what they report."""

import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from meshfed.federation.demo.envoys import INBOUND, OUTBOUND
from meshfed.federation.demo.folder import LEDGER, Folder, Host
from meshfed.federation.demo.measure import Call, calls
from meshfed.federation.demo.processes import Child, Processes


def application(host: Host, hosts: Sequence[Host], folder: Folder) -> tuple[str, ...]:
    """The module of deploy/demo that a host runs, and its arguments."""
    if host.account == "bookthief":
        return (*honest(host, ""), *targets(host, hosts, folder))
    return honest(host, host.account)


def honest(host: Host, name: str) -> tuple[str, ...]:
    """The same of whoever need not know of others; `name` is what a bookstore calls itself."""
    bind = ("--bind", f"{host.address}:{host.port}")
    sidecar = ("--sidecar", f"{host.address}:{OUTBOUND}")
    local = f"{host.address}:{LEDGER}"
    match host.account:
        case "bookbuyer":
            return ("bookbuyer", *sidecar)
        case "bookthief":
            return ("bookthief", *sidecar, "--local", local)
        case "bookwarehouse":
            return ("bookwarehouse", *bind, "--ledger", local)
        case "ledger":
            return ("ledger", *bind)
        case _:
            return ("bookstore", "--name", name, *bind, *sidecar)


def targets(thief: Host, hosts: Sequence[Host], folder: Folder) -> tuple[str, ...]:
    """The doors that the thief tries, and the papers that it shows there."""
    ledger = next(host for host in hosts if host.account == "ledger")
    return (
        *("--papers", str(folder.papers(thief.name)), "--domain", folder.domain),
        *(part for host in stores(hosts) for part in ("--store", door(host))),
        *("--ledger", f"{ledger.address}:{INBOUND}"),
    )


def stores(hosts: Sequence[Host]) -> tuple[Host, ...]:
    return tuple(host for host in hosts if host.account.startswith("bookstore-"))


def door(host: Host) -> str:
    return f"{host.account}@{host.address}:{INBOUND}"


def command(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"meshfed.demo.{module}", *arguments)


class Applications:
    """The applications that run, and every call that they reported."""

    def __init__(
        self,
        application: Callable[[Host], tuple[str, ...]],
        processes: Processes,
        more: Callable[[Host], Mapping[str, str]] = lambda host: {},
    ) -> None:
        self.application = application  # the module that a host runs, and its arguments
        self.more = more  # for its environment
        self.processes = processes
        self.calls: defaultdict[str, list[Call]] = defaultdict(list)  # by host
        self.tally: Counter[tuple[str, str, str]] = Counter()  # account, path, outcome
        self.news = asyncio.Event()  # set whenever one has reported
        self.children: dict[str, tuple[Child, asyncio.Task[None]]] = {}

    async def start(self, host: Host) -> None:
        """Start a host's application, and wait until it is ready."""
        started = command(*self.application(host))
        child = await self.processes.start(
            f"{host.name}.app", started, pipe=True, more=self.more(host)
        )
        await child.reports.readline()  # `ready`, or its end, which the watch reports
        reading = self.processes.tasks.create_task(self.read(host, child))
        self.children[host.name] = (child, reading)

    async def read(self, host: Host, child: Child) -> None:
        async for line in child.reports:
            for call in calls(json.loads(line)):
                self.calls[host.name].append(call)
                self.tally[host.account, call.path, call.outcome] += 1
            self.news.set()

    async def stop(self, *names: str) -> None:
        """Stop applications, and read to the end what they have to say."""
        stopped = [self.children.pop(name) for name in names]
        await self.processes.stop(*(child for child, _ in stopped))
        await asyncio.gather(*(reading for _, reading in stopped))

    async def kill(self, name: str) -> None:
        """As if its machine had lost its power."""
        child, reading = self.children.pop(name)
        await self.processes.kill(child)
        await reading
