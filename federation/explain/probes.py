"""Who answers, tried from this machine: TCP connections that say nothing and end at once."""

import asyncio
from collections.abc import Iterable, Mapping

from meshfed.catalog.model import Endpoint, Interception
from meshfed.xds.endpoints import reached_at

SECONDS = 0.5  # for one connection: a machine that is up answers sooner, or refuses
AT_ONCE = 50
MOST = 200  # places; of a large mesh the first ones, not a scan

Place = tuple[str, int]


def places(endpoints: Iterable[Endpoint]) -> tuple[Place, ...]:
    """What is worth trying: where callers dial, and the application where it should be hidden."""
    wanted: dict[Place, None] = {}
    for endpoint in endpoints:
        wanted[reached_at(endpoint)] = None
        if endpoint.interception is Interception.EXPLICIT:
            wanted[endpoint.address, endpoint.target] = None
    return tuple(wanted)[:MOST]


def answering(wanted: Iterable[Place], seconds: float = SECONDS) -> Mapping[Place, bool]:
    return asyncio.run(_all(tuple(wanted), seconds))


async def _all(wanted: tuple[Place, ...], seconds: float) -> Mapping[Place, bool]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(place: Place) -> bool:
        async with turn:
            return await answers(*place, seconds)

    return dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))


async def answers(host: str, port: int, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # refused, unreachable, or no answer in time
        return False
    writer.close()
    return True
