"""Keeps history as long as it is wanted, and lets everyone else write meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from meshfed.catalog.store import Away, Catalog

EVERY = 600.0  # seconds between two looks
REST = 9.0  # times as long as a step took: no more than a tenth of anybody's time
LEAST = 0.05  # seconds, between two steps

Step = Callable[[float], Awaitable[int]]  # takes away a little from before a time; how many rows

log = structlog.get_logger()


async def prune(catalog: Catalog, retain: timedelta, traffic: timedelta) -> None:
    """For ever: what ended longer ago than that is taken away in small steps."""
    while True:
        with suppress(Away):  # which others say, who cannot wait
            if rows := await prune_once(catalog.prune, time.time() - retain.total_seconds()):
                log.info("history pruned", rows=rows, retain=str(retain))
            before = time.time() - traffic.total_seconds()
            if rows := await prune_once(catalog.prune_traffic, before):
                log.info("traffic pruned", rows=rows, retain=str(traffic))
        await asyncio.sleep(EVERY)


async def prune_once(step: Step, before: float) -> int:
    """All from before; how many rows. Raises Away."""
    rows = 0
    while True:
        began = time.monotonic()
        if not (gone := await step(before)):
            return rows
        rows += gone
        await asyncio.sleep(max(LEAST, REST * (time.monotonic() - began)))
