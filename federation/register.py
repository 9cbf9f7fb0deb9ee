"""Registering a workload by hand, for whoever asks: the command line, or the admin API."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from meshfed.catalog.model import Known, Service, ServiceName
from meshfed.providers.registered import Registration, known


class Register(Protocol):
    """What registering asks of the catalog."""

    async def declared(self, names: Iterable[ServiceName]) -> Mapping[ServiceName, Service]: ...
    async def register(self, name: str, known: Known, who: str) -> int | None: ...


async def register(catalog: Register, said: Registration, who: str) -> int | None:
    """The new revision; None when it was registered so already. Raises Wrong, Taken, Away."""
    services = await catalog.declared({each.service for each in said.service})
    return await catalog.register(said.name, known(said, services), who)
