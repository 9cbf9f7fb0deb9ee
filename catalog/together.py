"""What several ask for at the same time, done at once: one transaction instead of many."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Of what machines want, many come in a second. Whoever follows the catalog reads it again after
# each transaction, which costs more than what one machine wants.
APART = 0.05  # seconds


class Lot(Generic[T, R]):
    """Those who are served together."""

    def __init__(self) -> None:
        self.asked: list[T] = []
        self.served: asyncio.Task[Sequence[R]] | None = None  # None while others may come


class Together(Generic[T, R]):
    """Whoever comes while others are served is served next, with all who come meanwhile."""

    def __init__(
        self,
        act: Callable[[Sequence[T]], Coroutine[Any, Any, Sequence[R]]],
        *,
        apart: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`act` has an answer for each. Between two of them are so many seconds at least."""
        self._act = act
        self._apart = apart
        self._clock = clock
        self._last = float("-inf")
        self._turn = asyncio.Lock()
        self._next: Lot[T, R] = Lot()

    async def done(self, asked: T) -> R:
        """The answer. Raises what `act` raises, to all whom it was to serve.

        Whoever goes before it is served is served nevertheless.
        """
        lot = self._next
        lot.asked.append(asked)
        place = len(lot.asked) - 1
        async with self._turn:
            if lot.served is None:
                await asyncio.sleep(self._last + self._apart - self._clock())
                self._next, self._last = Lot(), self._clock()
                lot.served = asyncio.create_task(self._act(lot.asked))
                await asyncio.wait({lot.served})
        return (await asyncio.shield(lot.served))[place]
