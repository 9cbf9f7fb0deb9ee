"""What the agent tells the control plane again and again: that the machine lives, and how it is."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from meshfed.federation.backoff import doubled
from meshfed.federation.join.line import Line
from meshfed.federation.join.papers import Papers, Unjoinable
from meshfed.providers.hysteresis import Verdict

TICK = 1.0  # seconds between two looks at what there is to say
FIRST = 10.0  # seconds between two words, until the control plane says how long one holds
LONGEST = 300.0  # seconds until the next word to one that refused
STARTING = 10.0  # seconds for its Envoy
LAST = 3.0  # seconds for the last word, when the agent ends

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Told:
    """How the last word fared. Times by a clock that nobody sets."""

    word: Mapping[str, object] | None = None  # as it was heard
    due: float = float("-inf")  # when the next is, unless there is news
    failures: int = 0
    why: str = ""


class Reporting:
    """Comes again after a third of its lease; at once, when there is news."""

    def __init__(
        self,
        folder: Path,
        failing: Callable[[], Mapping[int, str]],
        ready: Callable[[], str],
    ) -> None:
        """`ready` blocks: why its Envoy serves nothing, or nothing."""
        self._folder = folder
        self._failing = failing
        self._ready = ready
        self._line = Line()
        self._envoy = Verdict()
        self._draining: dict[str, str] = {}  # who wants it → why
        self._told = Told()
        self._every = FIRST
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        with closing(self._line):
            await self._started()
            while True:
                self._envoy = self._envoy.after(await asyncio.to_thread(self._ready))
                await self._tell()
                try:
                    async with asyncio.timeout(TICK):
                        await self._news.wait()
                except TimeoutError:
                    continue
                self._news.clear()

    async def _started(self) -> None:
        """Nothing is said of a machine that has just booted until it serves, or had time enough."""
        until = time.monotonic() + STARTING
        while await asyncio.to_thread(self._ready) and time.monotonic() < until:  # noqa: ASYNC110  # another process
            await asyncio.sleep(TICK / 10)

    def drain(self, who: str, why: str) -> None:
        """From now on, until `undrain`, it wants no new calls."""
        self._draining[who] = why
        self._news.set()

    def undrain(self, who: str) -> None:
        if self._draining.pop(who, None) is not None:
            self._news.set()

    async def again(self) -> None:
        """Say it at once: who was let in anew is called once it was heard."""
        async with self._turn:
            self._told = replace(self._told, due=float("-inf"))
        self._news.set()

    async def drained(self, who: str, why: str) -> bool:
        """Tell that now; whether it was heard."""
        self._draining[who] = why
        self._told = replace(self._told, due=float("-inf"))
        await self._tell()
        return self._told.word == self._word()

    def _word(self) -> Mapping[str, object]:
        return {
            "untrusted_draining": next(iter(self._draining.values()), ""),
            "untrusted_lost": self._envoy.why,
            "untrusted_failing": dict(self._failing()),
        }

    async def _tell(self) -> None:
        async with self._turn:
            word, now = self._word(), time.monotonic()
            news = word != self._told.word and not self._told.failures
            if not news and now < self._told.due:
                return
            try:
                self._every = await asyncio.to_thread(told, self._line, self._folder, word) / 3
            except (Unjoinable, OSError) as error:
                self._failed(error, now)
                return
            if self._told.failures:
                log.info("heard again")
            self._told = Told(word, now + self._every)

    def _failed(self, error: Unjoinable | OSError, now: float) -> None:
        failures = self._told.failures + 1
        refused = isinstance(error, Unjoinable) and 400 <= error.status < 500
        pause = doubled(1.0, failures, LONGEST if refused else self._every)
        if str(error) != self._told.why:
            log.warning("not heard", reason=str(error))
        self._told = replace(
            self._told, due=now + pause, failures=failures, why=str(error), word=None
        )


def told(line: Line, folder: Path, word: Mapping[str, object]) -> float:
    """For how many seconds it holds. Raises Unjoinable, OSError."""
    if (papers := Papers.read(folder)) is None:
        raise Unjoinable(f"{folder}: nothing of joining is there")
    if not papers.valid(time.time()):
        raise Unjoinable(papers.ended)
    return line.lease(papers, word)
