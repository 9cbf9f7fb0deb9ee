"""Keeps what platforms list of machines where every replica finds it, for policies of joining."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from meshfed.catalog.inventory import Inventory
from meshfed.catalog.records import Record
from meshfed.catalog.store import Away, Catalog
from meshfed.providers.provider import Inventoried

REST = 1.0  # seconds between two looks at what was listed
LOT = 2000  # machines in a transaction: revisions wait for it

log = structlog.get_logger()


async def keep(led: Catalog, providers: Sequence[Inventoried]) -> None:
    """For ever, in the term that this catalog is of."""
    kept: dict[str, Mapping[str, Record]] = {}
    while True:
        for provider in providers:
            try:
                if provider.name not in kept:
                    kept[provider.name] = await Inventory(led).of(provider.name)
                seen = await asyncio.to_thread(provider.inventory)
                if seen is not None and seen is not kept[provider.name]:
                    await write(Inventory(led), provider.name, kept[provider.name], seen)
                    kept[provider.name] = seen
            except Away as away:
                log.warning("inventory not kept", provider=provider.name, reason=str(away))
                kept.pop(provider.name, None)
        await asyncio.sleep(REST)


async def write(
    inventory: Inventory, provider: str, before: Mapping[str, Record], now: Mapping[str, Record]
) -> None:
    """What is different. Raises Away."""
    news = [each for machine, each in now.items() if before.get(machine) != each]
    altered = [each.machine for each in news if each.machine in before]
    gone = [*(machine for machine in before if machine not in now), *altered]
    for at in range(0, len(gone), LOT):
        lot = frozenset(gone[at : at + LOT])
        await inventory.write(provider, lot, [each for each in news if each.machine in lot])
    added = [each for each in news if each.machine not in before]
    for at in range(0, len(added), LOT):
        await inventory.write(provider, (), added[at : at + LOT])
    if gone or news:
        log.info("inventory kept", provider=provider, machines=len(now), different=len(news))
