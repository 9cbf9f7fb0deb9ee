"""A loop whose time is skipped while all that it does is wait: hours of everything in a second."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from selectors import DefaultSelector, SelectorKey
from typing import Any, ParamSpec

P = ParamSpec("P")


class Skipping(asyncio.SelectorEventLoop):
    """Its time stands still while there is anything to do, and what threads do is waited for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.threads = 0  # with work of this loop
        super().__init__(Waiting(self))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        self.threads += 1
        done = super().run_in_executor(executor, func, *args)
        done.add_done_callback(self._came)
        return done

    def _came(self, _: asyncio.Future[Any]) -> None:
        self.threads -= 1


class Waiting(DefaultSelector):
    def __init__(self, loop: Skipping) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self._loop.threads:
            return super().select(None)
        self._loop.now += timeout
        return []


def skipping(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that runs on such a loop."""

    @wraps(test)
    def run(*args: P.args, **given: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=Skipping) as runner:
            runner.run(test(*args, **given))

    return run
