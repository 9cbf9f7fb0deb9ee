"""How a database is opened: by several at once, and where nothing can be written."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from disks import mounted, read_only

from meshfed.catalog.database import Away, Database, _write_ahead
from meshfed.catalog.store import Catalog


def test_those_who_open_a_new_file_at_once_all_can(tmp_path: Path) -> None:
    refused: list[str] = []

    def open_it(file: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            with closing(Database(f"sqlite:///{file}")) as database:
                database.read(lambda connection: connection.exec_driver_sql("select 1"))
        except Away as away:
            refused.append(str(away))

    for n in range(10):
        together = threading.Barrier(8)
        them = [
            threading.Thread(target=open_it, args=(tmp_path / f"{n}.db", together))
            for _ in range(8)
        ]
        for one in them:
            one.start()
        for one in them:
            one.join()
    assert refused == []


class Contended(sqlite3.Connection):
    """Refused twice without a wait, as SQLite does to one of two in a few of a hundred cases."""

    left = 2

    def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
        if self.left:
            self.left -= 1
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise busy
        return super().execute(sql, *more)


def test_who_is_refused_asks_again(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "new.db", factory=Contended)) as connection:
        _write_ahead(connection)
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


# Where nothing can be written

READING = """\
import json, sys
from meshfed.federation.cli.main import main
codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        codes.append(int(ended.code or 0))
print(json.dumps(codes), file=sys.stderr)
"""


def read_in(folder: Path, *commands: tuple[str, ...]) -> tuple[list[int], str, list[str]]:
    """Exit codes, stdout, and what else was said, by commands on a read-only disk."""
    command = [sys.executable, "-c", READING, json.dumps(commands)]
    ended = subprocess.run(
        mounted(read_only(folder), command), cwd=folder, capture_output=True, text=True
    )
    *said, codes = ended.stderr.splitlines()
    return json.loads(codes), ended.stdout, said


@pytest.fixture
async def closed(sqlite_template: Path, tmp_path: Path) -> Path:
    """The folder of a catalog that nobody has open."""
    folder = tmp_path / "disk"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "meshfed.db")
    with closing(Catalog(f"sqlite:///{folder}/meshfed.db")) as catalog:
        await catalog.configure("shop.example", permissive=True)
    return folder


def test_a_catalog_on_a_read_only_disk_is_read(closed: Path) -> None:
    codes, out, said = read_in(
        closed,
        ("sql", "select change from mesh_changes where object = 'permissive'"),
        ("get", "services", "--at", "1"),
        ("diff", "--from", "1", "--to", "1"),
    )
    assert codes == [0, 0, 0], said
    assert "changed to true" in out


def test_what_was_not_merged_before_its_disk_became_read_only_is_said(closed: Path) -> None:
    with closing(sqlite3.connect(closed / "meshfed.db")) as connection:
        connection.execute("update state set at = 'later'")
        connection.commit()
        shutil.copytree(closed, closed.parent / "copy", ignore=shutil.ignore_patterns("*-shm"))
    asked = (("get", "services"), ("why", "a.shop"))
    codes, _, said = read_in(closed.parent / "copy", *asked)
    assert codes == [1, 1]
    assert said[0] == said[1]
    assert "meshfed.db-wal" in said[0]
    assert "copy both" in said[0]


async def test_a_catalog_that_was_moved_away_is_away_and_nothing_takes_its_place(
    sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "catalog.db"
    with closing(Catalog(sqlite_url)) as catalog:
        async with aclosing(catalog.follow()) as revisions:
            assert await anext(revisions) == (await catalog.read()).revision == 0
            for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
                (tmp_path / name).rename(tmp_path / f"away-{name}")
            with pytest.raises(Away, match=r"catalog\.db is gone"):
                await catalog.configure("shop.example", permissive=True)
            assert not file.exists()
            for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
                (tmp_path / f"away-{name}").rename(tmp_path / name)
            assert await catalog.configure("shop.example", permissive=True) == 1
            async with asyncio.timeout(5):
                assert await anext(revisions) == 1


async def test_another_file_in_its_place_is_what_is_read_and_followed(
    sqlite_url: str, sqlite_template: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    shutil.copy(sqlite_template, other)
    with closing(Catalog(f"sqlite:///{other}")) as there:
        for permissive in (True, False):
            await there.configure("there.example", permissive=permissive)
    with closing(Catalog(sqlite_url)) as catalog:
        await catalog.configure("here.example", permissive=False)
        async with aclosing(catalog.follow()) as revisions:
            assert await anext(revisions) == 1
            for end in ("-wal", "-shm"):
                (tmp_path / f"catalog.db{end}").unlink()
            other.rename(tmp_path / "catalog.db")
            async with asyncio.timeout(5):
                assert await anext(revisions) == 2
            assert (await catalog.read()).trust_domain == "there.example"
