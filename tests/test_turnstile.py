"""Whose turn it is: to speak, of streams that all have something to say, and to be let in."""

import asyncio
import time

from meshfed.xds.turnstile import MADE_UP, SPEAKING, TOGETHER, Turns, Turnstile


class One:
    """A stream that says when it was its turn."""

    def __init__(self, number: int, said: list[int]) -> None:
        self.number = number
        self._said = said

    def speak(self) -> None:
        self._said.append(self.number)


def many(count: int) -> tuple[Turns, list[One], list[int]]:
    said: list[int] = []
    return Turns(), [One(n, said) for n in range(count)], said


async def test_whoever_waited_longest_speaks_first_and_some_in_one_turn_of_the_loop():
    turns, streams, said = many(TOGETHER + 2)
    for stream in streams:
        turns.take(stream)
    assert said == []
    await asyncio.sleep(0)
    assert said == list(range(TOGETHER))
    await asyncio.sleep(0)
    assert said == list(range(TOGETHER + 2))


async def test_few_speak_at_once_and_the_next_when_one_is_done():
    turns, streams, said = many(SPEAKING + 3)
    for stream in streams:
        turns.take(stream)
    for _ in streams:
        await asyncio.sleep(0)
    assert len(said) == SPEAKING
    turns.done(streams[5])
    turns.done(streams[6])
    await asyncio.sleep(0)
    assert said[SPEAKING:] == [SPEAKING, SPEAKING + 1]


async def test_who_is_not_heard_keeps_nobody_waiting():
    turns, streams, said = many(3 * SPEAKING)
    for stream in streams:
        turns.take(stream)
    async with asyncio.timeout(5):
        while len(said) < len(streams):  # noqa: ASYNC110  # nobody is ever done
            await asyncio.sleep(0.01)
    assert said == list(range(3 * SPEAKING))


async def test_who_is_done_may_speak_again_after_the_others():
    turns, (first, second), said = many(2)
    turns.take(first)
    await asyncio.sleep(0)
    turns.take(second)
    turns.done(first)
    turns.take(first)
    await asyncio.sleep(0)
    assert said == [0, 1, 0]


async def test_where_a_timer_came_late_some_are_let_in_together():
    turnstile = Turnstile(burst=0, apart=0.001, lag=1.0)
    coming = [asyncio.create_task(turnstile.turn()) for _ in range(3 * MADE_UP)]
    for _ in range(2):  # all wait, and the timer of the first runs
        await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251  # the loop is held
    while turnstile.waiting == len(coming):  # noqa: ASYNC110  # a timer is no event
        await asyncio.sleep(0)
    assert turnstile.waiting == len(coming) - MADE_UP
    await asyncio.gather(*coming)


class Early:
    """A clock by which each timer comes a little before its time."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 0.0009
        return self.now


async def test_where_timers_come_early_all_are_let_in(monkeypatch):
    monkeypatch.setattr("meshfed.xds.turnstile.time", Early())
    turnstile = Turnstile(burst=0, apart=0.001)
    await asyncio.wait_for(asyncio.gather(*(turnstile.turn() for _ in range(20))), 5)
