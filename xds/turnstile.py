"""How fast new streams are let in: none is lost, and those that are open are not kept waiting."""

import asyncio
import time
from collections import deque

PATIENT = 3  # turns of a late event loop in which no stream is let in


class Turnstile:
    """Lets new streams in as fast as the event loop keeps up; the others wait, and none is lost.

    A token bucket: whoever comes while there are tokens is let in at once. Of a thousand that come
    together each costs some milliseconds, in which nobody else would be told or asked anything.
    """

    def __init__(self, burst: int = 32, apart: float = 0.001, lag: float = 0.01) -> None:
        self._burst = burst
        self._apart = apart  # seconds between two tokens, while the loop keeps up
        self._lag = lag  # seconds that it may be late
        self._tokens = float(burst)
        self._at = time.monotonic()  # when they were counted
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._letting: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def turn(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) / self._apart)
        self._at = now
        if self._tokens >= 1 and not self._waiting:
            self._tokens -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if self._letting is None:
            self._letting = asyncio.create_task(self._let())
        await mine

    async def _let(self) -> None:
        late = 0
        while self._waiting:
            began = time.monotonic()
            await asyncio.sleep(self._apart)
            if time.monotonic() - began - self._apart > self._lag and late < PATIENT:
                late += 1
                continue
            late = 0
            while self._waiting and (first := self._waiting.popleft()).done():
                pass  # its client gave up
            if not first.done():
                first.set_result(None)
        self._letting, self._tokens, self._at = None, 0.0, time.monotonic()
