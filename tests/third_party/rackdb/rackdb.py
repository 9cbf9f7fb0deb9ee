"""Endpoints from the export of a rack database: `name address service port identity` a line."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

from meshfed.catalog.model import (
    Endpoint,
    Evidence,
    Identity,
    Observation,
    Port,
    Service,
    ServiceName,
    Workload,
)


class RackProvider:
    def __init__(self, *, name: str, options: Mapping[str, object], base: Path) -> None:
        for key in options.keys() - {"path"}:
            raise ValueError(f"{key}: unknown key; did you mean path?")
        self.name = name
        self.scope = f"{name}/racks"
        self.path = base / str(options.get("path", "racks.txt"))
        self.asked = asyncio.Event()

    async def observe(self) -> AsyncIterator[Observation]:
        before = None
        while True:
            seen = await asyncio.to_thread(self.look)
            if seen != before or self.asked.is_set():
                self.asked.clear()
                before = seen
                yield seen
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self.asked.wait()

    async def refresh(self, scope: str) -> None:
        if scope == self.scope:
            self.asked.set()

    def look(self) -> Observation:
        try:
            return observation(self.path.read_text(), self.name, self.scope)
        except (OSError, ValueError) as error:
            return Observation(self.scope, evidence=Evidence.FAULT, fault=str(error))


def observation(text: str, provider: str, scope: str) -> Observation:
    services, workloads, endpoints = set(), set(), set()
    for line in text.splitlines():
        name, address, service, port, account = line.split()
        identity = Identity.parse(account)
        host = Workload(name, provider, scope, identity=identity, addresses=(address,))
        where = (ServiceName.parse(service), int(port), address, int(port))
        services.add(Service(where[0], (Port(int(port)),)))
        workloads.add(host)
        endpoints.add(Endpoint(*where, host.id, provider, scope, identity=identity))
    return Observation(scope, frozenset(services), frozenset(workloads), frozenset(endpoints))
