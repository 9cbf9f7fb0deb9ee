"""Gives virtual IPs to services that came while the ranges were full."""

import asyncio
from contextlib import suppress

import structlog

from meshfed.catalog.store import Away, Catalog
from meshfed.catalog.unaddressed import address

EVERY = 10.0  # seconds between two looks; an address rests for a day

log = structlog.get_logger()


async def keep_addressed(led: Catalog) -> None:
    """For ever, in the term that this catalog is of."""
    while True:
        await asyncio.sleep(EVERY)
        with suppress(Away):  # which others say, who cannot wait
            if (revision := await address(led)) is not None:
                log.info("virtual IPs given", revision=revision)
