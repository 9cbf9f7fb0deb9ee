"""A thread for what must answer while the loop of the mesh is busy, and how it asks that loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BEAT = 0.1  # seconds between two signs of life of the loop


class Home:
    """The loop that the mesh runs on: made there, and asked from elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._heard = clock()

    async def beat(self, late: Callable[[float], None]) -> None:
        """For ever; `late` is told how late the loop was each time, in seconds."""
        while True:
            due = self._clock() + BEAT
            await asyncio.sleep(BEAT)
            self._heard = self._clock()
            late(max(0.0, self._heard - due))

    @property
    def silence(self) -> float:
        """Seconds since its last sign of life; some are normal."""
        return self._clock() - self._heard

    def does(self, act: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Awaitable[T]]:
        """The same, run there: what belongs to the mesh is touched by no other thread."""

        @wraps(act)
        async def asked(*args: P.args, **kwargs: P.kwargs) -> T:
            coming = asyncio.run_coroutine_threadsafe(act(*args, **kwargs), self._loop)
            return await asyncio.wrap_future(coming)

        return asked


async def aside(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it in a thread with a loop of its own, until cancelled. Raises what it raises."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()

    async def part() -> None:
        task = asyncio.current_task()
        assert task
        begun.set_result((asyncio.get_running_loop(), task))
        await act()

    def run() -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(part())

    with ThreadPoolExecutor(1, "aside") as thread:
        running = asyncio.get_running_loop().run_in_executor(thread, run)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            loop, task = begun.result()
            loop.call_soon_threadsafe(task.cancel)
            await running
            raise
