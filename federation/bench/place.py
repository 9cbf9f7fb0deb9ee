"""A database of somebody's own for the mesh that is measured: empty before, and after."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection, text

from meshfed.catalog import viewing
from meshfed.catalog.database import Database
from meshfed.catalog.migrating import VERSION, planned
from meshfed.catalog.schema import metadata
from meshfed.federation.demo.processes import Broken


@asynccontextmanager
async def borrowed(url: str) -> AsyncIterator[None]:
    """Raises Broken where something is in it already, Unfit where that is somebody else's, Away."""
    steps = await asyncio.to_thread(planned, url)
    if not steps or steps[0].before:
        raise Broken("there is a catalog in that database already: name an empty one")
    try:
        yield
    finally:
        await asyncio.to_thread(_emptied, url)


def _emptied(url: str) -> None:
    database = Database(url)
    try:
        database.write(_empty)
    finally:
        database.close()


def _empty(connection: Connection) -> None:
    viewing.drop(connection)
    metadata.drop_all(connection)
    connection.execute(text(f"drop table if exists {VERSION}"))
