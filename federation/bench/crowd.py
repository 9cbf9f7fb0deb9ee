"""The processes that proxies run in, and what they say happened to them."""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshfed.federation.demo.processes import Broken, Child, Processes

PROCESSES = 2  # that share the proxies
CLIENTS = (sys.executable, "-m", "meshfed.federation.bench.proxies")


@dataclass(frozen=True, slots=True)
class Ack:
    """One response, as the proxy that acknowledged it knows it; seconds of the monotonic clock."""

    at: float
    type: str
    resources: int
    removed: int
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Happened:
    """What proxies were sent in some time."""

    acks: Mapping[str, tuple[Ack, ...]]  # by proxy, of those that were sent something
    lost: tuple[str, ...]  # streams that ended by themselves, and why

    @property
    def pushes(self) -> int:
        return sum(map(len, self.acks.values()))

    @property
    def bytes(self) -> int:
        return sum(ack.size for each in self.acks.values() for ack in each)

    def resources(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for each in self.acks.values():
            for ack in each:
                found[ack.type] += ack.resources + ack.removed
        return dict(sorted(found.items()))

    def last(self) -> list[float]:
        """When each proxy had acknowledged everything, ascending."""
        return sorted(each[-1].at for each in self.acks.values())

    def closest(self) -> float | None:
        """The shortest time between two pushes of one type to one proxy, in seconds."""
        apart = []
        for each in self.acks.values():
            times: defaultdict[str, list[float]] = defaultdict(list)
            for ack in each:
                times[ack.type].append(ack.at)
            for at in times.values():
                apart += [later - at[n] for n, later in enumerate(at[1:])]
        return min(apart, default=None)


@dataclass(frozen=True, slots=True)
class Connected:
    """Everyone came, and was told everything."""

    began: float
    whole: Sequence[float]  # when each was, ascending
    lost: tuple[str, ...]

    @property
    def taken(self) -> float:
        """Seconds until the last was."""
        return self.whole[-1] - self.began


class Crowd:
    """All simulated proxies."""

    def __init__(self, children: Sequence[Child], count: int) -> None:
        self._children = children
        self.pids = tuple(child.process.pid for child in children)
        self.count = count

    @classmethod
    async def start(
        cls, processes: Processes, name: str, dialect: str, address: str, papers: Sequence[Path]
    ) -> "Crowd":
        children = [
            await processes.start(f"{name}-{n}", (*CLIENTS, dialect), pipe=True)
            for n in range(PROCESSES)
        ]
        crowd = cls(children, len(papers))
        orders = [
            child.ask(do="furnish", address=address, folders=list(map(str, papers[n::PROCESSES])))
            for n, child in enumerate(children)
        ]
        await asyncio.gather(*orders)
        return crowd

    async def expect(self, greetings: int) -> None:
        await self._all(do="expect", greetings=greetings)

    async def connect(self) -> Connected:
        """All at once. Raises Broken when some were not told everything."""
        told = await self._all(do="connect")
        return Connected(
            min(each["began"] for each in told),
            sorted(at for each in told for at in each["whole"]),
            tuple(why for each in told for why in each["lost"]),
        )

    async def drop(self) -> None:
        await self._all(do="drop")

    async def pause(self, every: int) -> None:
        """One proxy in so many stops reading."""
        await self._all(do="pause", every=every)

    async def resume(self) -> None:
        await self._all(do="resume")

    async def reached(self, responses: Sequence[int]) -> None:
        """Until so many came to each process's proxies. Raises Broken."""
        pairs = zip(self._children, responses, strict=True)
        told = await asyncio.gather(*(child.ask(do="reach", responses=n) for child, n in pairs))
        if not all(each["reached"] for each in told):
            raise Broken("not every proxy was told of a change")

    def shares(self, *, every: int = 0) -> list[int]:
        """How many proxies each process has; without one in so many of them."""
        mine = [len(range(n, self.count, PROCESSES)) for n in range(PROCESSES)]
        return [n - (len(range(0, n, every)) if every else 0) for n in mine]

    async def happened(self) -> Happened:
        """Since it was asked last."""
        told = await self._all(do="events")
        acks = {
            name: tuple(Ack(*each) for each in events)
            for one in told
            for name, events in one["events"].items()
        }
        return Happened(acks, tuple(why for each in told for why in each["lost"]))

    async def refuse(self, every: int) -> None:
        """One proxy in so many rejects what it is sent next, and no other does; 0: nobody."""
        await self._all(do="refuse", every=every)

    async def held(self) -> dict[str, dict[str, dict[str, str]]]:
        """By proxy and type, the versions of what it was told and did not refuse, by name."""
        told = await self._all(do="held")
        return {name: held for each in told for name, held in each["held"].items()}

    async def keep(self) -> None:
        """From now on one proxy keeps what it is sent."""
        await self._children[0].ask(do="keep")

    async def kept(self) -> list[str]:
        """In base 64."""
        return list((await self._children[0].ask(do="kept"))["bodies"])

    async def _all(self, **order: object) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(child.ask(**order) for child in self._children)))
