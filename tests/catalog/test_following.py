"""Who follows a catalog hears of the latest, and outlives a database that is away."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from believing import WEB, believe, endpoint, kill_connections, known
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from meshfed.catalog.model import (
    Known,
)
from meshfed.catalog.store import Away, Catalog

# Following


async def test_followers_hear_of_every_process_and_only_the_latest(
    catalog: Catalog, url: str
) -> None:
    async with aclosing(catalog.follow()) as revisions:
        assert await anext(revisions) == 0
        await believe(catalog, known(endpoint()))
        assert await anext(revisions) == 1
        with closing(Catalog(url)) as other:
            await believe(other, known(endpoint(weight=2)))
            assert await anext(revisions) == 2
            await believe(other, known(endpoint(weight=3)))
            await believe(other, known(endpoint(weight=4)))
        assert await newest(revisions, 4) == 4


async def newest(revisions: AsyncIterator[int], wanted: int) -> int:
    async with asyncio.timeout(10):
        async for revision in revisions:
            if revision >= wanted:
                return revision
    raise AssertionError("the followers ended")


async def test_what_moves_no_revision_wakes_no_follower(catalog: Catalog) -> None:
    async with aclosing(catalog.follow()) as revisions:
        assert await anext(revisions) == 0
        await catalog.seen("rack", "hosts", "rack/a", fault="gone")
        await believe(catalog, known(endpoint()))
        assert await anext(revisions) == 1


async def test_followers_outlive_their_connection(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        async with aclosing(catalog.follow()) as revisions:
            assert await anext(revisions) == 0
            kill_connections(postgres_url)
            assert await anext(revisions) == 0
            await believe(catalog, known(endpoint()))
            assert await newest(revisions, 1) == 1


# The database away


async def test_a_catalog_works_again_after_its_connections_were_cut(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        await believe(catalog, known(endpoint()))
        kill_connections(postgres_url)
        assert await believe(catalog, known()) == 2


async def test_a_locked_database_is_away_and_nothing_is_lost(sqlite_url: str) -> None:
    with closing(Catalog(sqlite_url)) as catalog:
        await believe(catalog, known(endpoint()))
        await hurry(catalog)
        with closing(sqlite3.connect(make_url(sqlite_url).database or "")) as other:
            other.execute("begin immediate")
            with pytest.raises(Away, match="locked"):
                await believe(catalog, known())
            assert (await catalog.read()).endpoints[WEB] == (endpoint(),)
        assert await believe(catalog, known()) == 2


async def hurry(catalog: Catalog) -> None:
    """Give up on a lock at once, on the connection that is pooled."""
    await asyncio.to_thread(
        catalog._database.read, lambda c: c.exec_driver_sql("pragma busy_timeout = 1")
    )


async def test_a_full_disk_is_away_until_there_is_room(sqlite_url: str) -> None:
    def many(count: int) -> Known:
        return known(*(endpoint(f"10.1.{n // 200}.{n % 200}") for n in range(count)))

    with closing(Catalog(sqlite_url)) as catalog:
        await believe(catalog, known(endpoint()))
        with closing(sqlite3.connect(make_url(sqlite_url).database or "")) as look:
            (pages,) = look.execute("pragma page_count").fetchone()
        await asyncio.to_thread(
            catalog._database.read, lambda c: c.exec_driver_sql(f"pragma max_page_count = {pages}")
        )
        with pytest.raises(Away, match="full"):
            await believe(catalog, many(1000))
        assert (await catalog.read()).endpoints[WEB] == (endpoint(),)
        await asyncio.to_thread(
            catalog._database.read, lambda c: c.exec_driver_sql("pragma max_page_count = 100000")
        )
        assert await believe(catalog, many(1000)) == 2


async def test_a_file_that_is_no_database_is_away(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    file.write_bytes(b"no database at all " * 500)
    with closing(Catalog(f"sqlite:///{file}")) as catalog, pytest.raises(Away, match="not a data"):
        await catalog.read()


async def test_a_standby_is_away_until_it_is_promoted(postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        await believe(catalog, known(endpoint()))
        standby(postgres_url, "on")
        with pytest.raises(Away, match="read-only"):
            await believe(catalog, known())
        standby(postgres_url, "off")
        assert await believe(catalog, known()) == 2


def standby(url: str, only_reads: str) -> None:
    """As a server behaves that is not the primary any more, or not yet."""
    database = make_url(url).database
    engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
    with closing(engine.connect()) as admin:
        admin.execute(text("set default_transaction_read_only = off"))
        admin.execute(
            text(f'alter database "{database}" set default_transaction_read_only = {only_reads}')
        )
    engine.dispose()
    kill_connections(url)


@pytest.mark.parametrize(
    "nowhere",
    ["sqlite:////nowhere/at/all.db", "postgresql+psycopg://nobody@127.0.0.1:9/nothing"],
)
async def test_a_database_that_is_not_there_is_away(nowhere: str) -> None:
    with closing(Catalog(nowhere)) as catalog, pytest.raises(Away):
        await catalog.read()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("mysql://somewhere", "neither sqlite nor postgresql"),
        ("sqlite://", "is a file"),
        ("meshfed.db", "neither sqlite:///FILE"),
    ],
)
def test_a_wrong_address_says_what_it_should_be(wrong: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Catalog(wrong)


async def test_a_catalog_on_a_file_is_private(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    with closing(Catalog(f"sqlite:///{file}")) as catalog, pytest.raises(Away, match="no such"):
        await catalog.read()
    assert file.stat().st_mode & 0o777 == 0o600
