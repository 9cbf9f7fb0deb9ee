"""Whose turn it is: of new streams to be let in, and of open ones to be told something."""

import asyncio
import time
from collections import deque
from typing import Protocol

TOGETHER = 16  # streams that speak in one turn of the event loop; 5 ms
SPEAKING = 64  # at once: enough to keep two cores busy
HEARD = 0.1  # seconds that a turn lasts: whose client is not done by then keeps nobody waiting
MADE_UP = 4  # streams let in together, where a timer came late: those of uvloop do
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
        late, tokens = 0, 0.0
        while self._waiting:
            began = time.monotonic()
            await asyncio.sleep(self._apart)
            passed = time.monotonic() - began
            if passed - self._apart > self._lag and late < PATIENT:
                late += 1
                continue
            late = 0
            tokens = min(MADE_UP, tokens + passed / self._apart)
            while tokens >= 1:  # the rest is kept: half of the timers of a busy uvloop come early
                self._let_in()
                tokens -= 1
        self._letting, self._tokens, self._at = None, 0.0, time.monotonic()

    def _let_in(self) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # else its client gave up
                first.set_result(None)
                return


class Speaker(Protocol):
    def speak(self) -> None:
        """It is its turn."""
        ...


class Turns:
    """Whoever has waited longest speaks first; some in one turn of the event loop, few at once.

    What is on its way to a thousand clients at once is old when they take it. Who waits here is
    told the newest; and whatever else the loop has to do waits for some streams, not for all.
    """

    def __init__(self) -> None:
        self._waiting: deque[Speaker] = deque()
        self._speaking: dict[Speaker, float] = {}  # since when
        self._letting = False
        self._impatient: asyncio.TimerHandle | None = None

    def take(self, speaker: Speaker) -> None:
        self._waiting.append(speaker)
        self._go_on()

    def done(self, speaker: Speaker) -> None:
        """It has said what it had to say, or never will."""
        self._speaking.pop(speaker, None)
        self._go_on()

    def _go_on(self) -> None:
        if self._letting or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if len(self._speaking) < SPEAKING:
            self._letting = True
            loop.call_soon(self._let)
        elif self._impatient is None:
            self._impatient = loop.call_later(HEARD, self._interrupt)

    def _let(self) -> None:
        self._letting = False
        now = time.monotonic()
        for _ in range(min(TOGETHER, len(self._waiting), SPEAKING - len(self._speaking))):
            speaker = self._waiting.popleft()
            self._speaking[speaker] = now
            speaker.speak()
        self._go_on()

    def _interrupt(self) -> None:
        """A client that does not take its message keeps nobody waiting."""
        self._impatient = None
        until = time.monotonic() - HEARD
        for speaker in [one for one, since in self._speaking.items() if since <= until]:
            del self._speaking[speaker]
        self._go_on()
