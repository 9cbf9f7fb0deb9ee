"""A follower hears of what another process commits from the log that it is written to."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from pathlib import Path

import pytest

from meshfed.catalog import follow, stirred
from meshfed.catalog.model import Known
from meshfed.catalog.store import Catalog

NEVER = 600.0  # seconds


async def heard(url: str) -> list[int]:
    """The revisions that a catalog of its own follows, while another one writes three."""
    revisions: list[int] = []
    with closing(Catalog(url)) as writer, closing(Catalog(url)) as reader:
        async with asyncio.timeout(10), aclosing(reader.follow()) as following:
            async for revision in following:
                revisions.append(revision)
                if revision == 3:
                    break
                # Nobody looks before it is written.
                await writer.believe(Known("rack", f"rack/{revision}"), kind="hosts", cause="")
    return revisions


async def test_a_commit_of_others_is_heard_though_nobody_looks(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "REST", NEVER)
    monkeypatch.setattr(follow, "TICK", NEVER)
    assert await heard(sqlite_url) == [0, 1, 2, 3]


async def test_where_nothing_tells_of_the_log_it_is_looked_at_often(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def deaf(_: Path) -> Iterator[None]:
        yield None

    monkeypatch.setattr(stirred, "log", deaf)
    monkeypatch.setattr(follow, "REST", NEVER)
    assert await heard(sqlite_url) == [0, 1, 2, 3]


async def test_a_commit_that_is_many_words_is_looked_for_a_few_times() -> None:
    heard, words = os.pipe2(os.O_NONBLOCK)
    looks, committed = 0, False

    def moved() -> bool:
        nonlocal looks
        looks += 1
        return committed

    try:
        hearing = asyncio.create_task(follow.Bell().heard(moved, heard))
        for _ in range(500):
            os.write(words, b"a word")
            await asyncio.sleep(0)
        assert 1 <= looks <= 50
        committed = True
        async with asyncio.timeout(10):
            await hearing
    finally:
        os.close(heard)
        os.close(words)
