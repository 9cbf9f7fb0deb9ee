"""Keeps history as long as it is wanted, and lets everyone else write meanwhile."""

import asyncio
import time
from datetime import timedelta

import structlog

from meshfed.catalog.store import Away, Catalog

EVERY = 600.0  # seconds between two looks
REST = 9.0  # times as long as a step took: no more than a tenth of anybody's time
LEAST = 0.05  # seconds, between two steps

log = structlog.get_logger()


async def prune(catalog: Catalog, retain: timedelta) -> None:
    """For ever: what ended longer ago than that is taken away in small steps."""
    while True:
        try:
            rows = await prune_once(catalog, time.time() - retain.total_seconds())
        except Away:  # which others say, who cannot wait
            rows = 0
        if rows:
            log.info("history pruned", rows=rows, retain=str(retain))
        await asyncio.sleep(EVERY)


async def prune_once(catalog: Catalog, before: float) -> int:
    """All that ended before; how many rows. Raises Away."""
    rows = 0
    while True:
        began = time.monotonic()
        if not (gone := await catalog.prune(before)):
            return rows
        rows += gone
        await asyncio.sleep(max(LEAST, REST * (time.monotonic() - began)))
