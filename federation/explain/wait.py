"""Waiting until every connected proxy has a revision, from whatever machine reaches the catalog."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from meshfed.catalog.bearings import Bearings
from meshfed.catalog.model import Mesh
from meshfed.catalog.resolved import resolve
from meshfed.catalog.store import Catalog
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.lag import Lag, lagging

BEAT = 0.1  # seconds between two looks; receipts are written every 0.2


@dataclass(frozen=True, slots=True)
class Arrival:
    """How far a revision has got."""

    revision: int
    proxies: int
    lacking: tuple[Lag, ...]
    why: str = ""  # it cannot have got anywhere

    @property
    def there(self) -> bool:
        return not (self.lacking or self.why)


def arrival(bearings: Bearings, revision: int | None, now: float) -> Arrival:
    """How far it has got: this revision, else the newest."""
    wanted = bearings.revision if revision is None else revision
    nothing = Mesh("")
    facts = Facts(nothing, resolve(nothing), bearings, now)
    lacking = lagging(facts, wanted)
    count = len(bearings.proxies)
    if wanted > bearings.revision:
        why = f"not committed yet: the newest revision is {bearings.revision}"
        return Arrival(wanted, count, (), why)
    if not facts.alive:
        why = "no control plane has written to this catalog for 30 s: is `meshfed serve` running?"
        return Arrival(wanted, count, lacking, why)
    late = [r for r in bearings.replicas if r.name in facts.alive and r.evaluated < wanted]
    if late and not lacking:
        return Arrival(wanted, count, (), f"replica {late[0].name} is at {late[0].evaluated}")
    return Arrival(wanted, count, lacking)


def waited(
    url: str, revision: int | None, seconds: float, clock: Callable[[], float] = time.time
) -> Arrival:
    """Once all have it, or when the time is over. Raises Away."""

    async def wait() -> Arrival:
        wanted = revision
        until = time.monotonic() + seconds
        with closing(Catalog(url)) as catalog:
            while True:
                bearings = await catalog.bearings()
                found = arrival(bearings, wanted, bearings.now or clock())
                wanted = found.revision  # the newest when it began: not ever newer ones
                if found.there or time.monotonic() >= until:
                    return found
                await asyncio.sleep(BEAT)

    return asyncio.run(wait())
