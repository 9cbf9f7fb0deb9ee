"""Services that came while no virtual IP was left: they have one as soon as one has rested."""

from meshfed.catalog import unions
from meshfed.catalog.store import Catalog


async def address(catalog: Catalog) -> int | None:
    """The new revision, if any was given. Nearly always nobody lacks one. Raises Away."""
    if not await catalog.ask(unions.lacking):
        return None
    return await catalog.change(unions.address, "an address has rested")
