"""The same Resource Manager without sockets, and time that passes when everybody rests."""

import asyncio
import heapq
import itertools
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from meshfed.demo.arm.world import World
from meshfed.providers.azure.lists import Answer, Unreachable
from meshfed.providers.azure.pace import Pace

URL = "https://arm.test"


class Direct:
    """What a provider asks, of a world in the same process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.down = ""  # why it cannot be reached

    @property
    def url(self) -> str:
        return URL

    async def get(self, url: str) -> Answer:
        if self.down:
            raise Unreachable(self.down)
        asked = urlsplit(url)
        query: Mapping[str, str] = dict(parse_qsl(asked.query))
        said = self.world.answer(URL, asked.path, query)
        return Answer(said.status, said.headers, said.body)

    async def close(self) -> None:
        pass


class Hours:
    """Time that is passed on by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, asyncio.Event]] = []
        self._count = itertools.count()

    def clock(self) -> float:
        return self.now

    async def rest(self, seconds: float) -> None:
        over = asyncio.Event()
        heapq.heappush(self._due, (self.now + seconds, next(self._count), over))
        await over.wait()

    async def pass_by(self, seconds: float) -> None:
        """Whatever is due in so many seconds happens in its order."""
        until = self.now + seconds
        await settled()
        while self._due and self._due[0][0] <= until:
            self.now, _, over = heapq.heappop(self._due)
            over.set()
            await settled()
        self.now = until

    def pace(self, refresh: float = 30.0) -> Pace:
        return Pace(refresh, self.rest, self.clock, lambda: 0.5)


async def settled() -> None:
    """Everybody has done what could be done without time passing, in threads too.

    For those, the loop must have one thread only.
    """
    loop = asyncio.get_running_loop()
    for _ in range(3):
        for _ in range(20):
            await asyncio.sleep(0)
        await loop.run_in_executor(None, lambda: None)
