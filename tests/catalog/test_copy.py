"""A catalog copied out of one database and put back into another."""

import asyncio
import gzip
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from meshfed.catalog.copy import Uncopied, copied, held, moved, put_back
from meshfed.catalog.database import Database
from meshfed.catalog.migrating import carried_out
from meshfed.catalog.model import (
    Changed,
    Endpoint,
    Identity,
    Known,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.reader import query
from meshfed.catalog.schema import metadata
from meshfed.catalog.store import Catalog, migrate, pending
from meshfed.federation.cli.reading import LISTINGS, Kind, flagged
from meshfed.federation.cli.source import rows

OLDER = Path(__file__).parent / "copy-of-0002.jsonl"  # as the first release wrote it
BOOKSTORE = ServiceName("bookstore", "shop")
STORE = Identity("bookstore", "shop")


def known(*addresses: str) -> Known:
    hosts = [
        Workload(f"store-{n}", "rack", "rack/hosts", identity=STORE, addresses=(address,))
        for n, address in enumerate(addresses)
    ]
    endpoints = [
        Endpoint(
            BOOKSTORE, 80, host.addresses[0], 80, host.id, "rack", "rack/hosts", identity=STORE
        )
        for host in hosts
    ]
    services = {Service(BOOKSTORE, (Port(80, "http"),))}
    return Known("rack", "rack/hosts", frozenset(services), frozenset(hosts), frozenset(endpoints))


async def fill(url: str) -> None:
    with closing(Catalog(url)) as catalog:
        await catalog.configure("shop.example", permissive=False)
        await catalog.believe(known("10.0.0.1", "10.0.0.2"), kind="hosts", cause="test")
        await catalog.believe(known("10.0.0.1"), kind="hosts", cause="one left")
        await catalog.keep_authority("a certificate", bytes(range(256)))


def everything(url: str) -> list[str]:
    return gzip.decompress(copied(url)).decode().splitlines()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param("sqlite_url", "postgres_url", id="from SQLite to Postgres"),
        pytest.param("postgres_url", "sqlite_url", id="from Postgres to SQLite"),
    ],
)
async def test_a_catalog_moves(request: pytest.FixtureRequest, source: str, target: str) -> None:
    here, there = request.getfixturevalue(source), request.getfixturevalue(target)
    await fill(here)
    done: list[str] = []
    put_back(there, copied(here), also=lambda: done.append("the key"))
    assert done == ["the key"]
    assert everything(there) == everything(here)
    for kind in (Kind.SERVICES, Kind.ENDPOINTS, Kind.WORKLOADS, Kind.IDENTITIES):
        question = LISTINGS[kind].statement(kind)
        assert flagged(rows(there, question)) == flagged(rows(here, question))
    with closing(Catalog(there)) as catalog:  # new rows are numbered after the old ones
        assert await catalog.believe(known("10.0.0.3"), kind="hosts", cause="on") is not None
        assert await catalog.authority() == ("a certificate", bytes(range(256)))


@pytest.mark.parametrize("more", [1, 2], ids=["to the same revision", "and beyond it"])
async def test_who_is_ahead_of_what_was_put_back_reads_all_anew(url: str, more: int) -> None:
    """As is who knew commits that a standby lost, when that is promoted and written to."""
    with closing(Catalog(url)) as catalog:
        await catalog.believe(known("10.0.0.1"), kind="hosts", cause="test")
        copy = copied(url)
        await catalog.believe(known("10.0.0.2"), kind="hosts", cause="test")
        ahead = await catalog.read()
        emptied(url)
        put_back(url, copy, also=lambda: None)
        for n in range(more):
            await catalog.configure(f"shop-{n}.example", permissive=False)
        newest, changed = await catalog.advance(ahead)
        assert newest == await catalog.read()
        assert changed == Changed(frozenset({BOOKSTORE}), frozenset(ahead.workloads), shape=True)
        assert await catalog.advance(newest) == (newest, Changed())


def emptied(url: str) -> None:
    def empty(connection: Connection) -> None:
        for table in metadata.tables.values():
            connection.execute(table.delete())

    with closing(Database(url)) as database:
        database.write(empty)


async def test_what_is_in_use_is_left_as_it_is(sqlite_url: str, postgres_url: str) -> None:
    await fill(sqlite_url)
    await fill(postgres_url)
    before = everything(postgres_url)
    with pytest.raises(Uncopied, match="not empty"):
        put_back(postgres_url, copied(sqlite_url), also=lambda: None)
    assert everything(postgres_url) == before


async def test_nothing_is_put_back_when_the_key_cannot_be(
    url: str, request: pytest.FixtureRequest
) -> None:
    new = everything(url)
    await fill(request.getfixturevalue("sqlite_url" if "postgres" in url else "postgres_url"))
    copy = copied(request.getfixturevalue("sqlite_url" if "postgres" in url else "postgres_url"))

    def fail() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        put_back(url, copy, also=fail)
    assert everything(url) == new


def packed(lines: list[str]) -> bytes:
    return gzip.compress("\n".join(lines).encode())


async def test_a_copy_of_an_unknown_schema_says_what_to_do(sqlite_url: str) -> None:
    header, *rest = everything(sqlite_url)
    ours = json.loads(header)["schema"]
    for other in ("9999", "0000"):
        copy = packed([header.replace(ours, other), *rest])
        with pytest.raises(Uncopied, match=f"schema is {other}, .* with the version that made it"):
            put_back(sqlite_url, copy, also=lambda: None)


def test_a_copy_of_an_older_version_is_put_back_and_brought_up(url: str) -> None:
    counts = put_back(url, gzip.compress(OLDER.read_bytes()), also=lambda: None)
    assert counts["endpoints"] == 2
    assert pending(url) == []
    assert query(url, "select address, valid_to_revision from mesh_endpoint_history").rows == (
        ("10.0.0.2", 3),
        ("10.0.0.1", None),
    )
    asked = "select state, last_good from mesh_providers"
    assert query(url, asked).rows == (("good", "2026-11-24T02:38:38.074Z"),)


async def test_older_tables_are_copied_as_they_are(
    url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    await fill(url)
    carried_out(url, "0001")
    try:
        older = everything(url)
        assert json.loads(older[0])["schema"] == "0001"
        there = f"sqlite:///{tmp_path}/there.db"
        put_back(there, packed(older), also=lambda: None)
        assert query(there, "select address from mesh_endpoints").rows == (("10.0.0.1",),)
    finally:
        migrate(url)


# Moved


async def test_a_catalog_moves_to_another_database_without_a_file(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    await fill(sqlite_url)
    counts = moved(sqlite_url, postgres_url)
    assert counts["endpoints"] == 2
    assert sum(counts.values()) == sum(line.startswith("[") for line in everything(sqlite_url))
    assert everything(postgres_url) == everything(sqlite_url)
    back = f"sqlite:///{tmp_path}/back.db"
    moved(postgres_url, back)
    assert everything(back) == everything(sqlite_url)
    for target in (postgres_url, back):
        with pytest.raises(Uncopied, match="not empty"):
            moved(sqlite_url, target)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_catalog_that_is_open_elsewhere_is_not_moved(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    asyncio.run(fill(url))
    assert held(url) == ""
    program = (
        "import sys\nfrom meshfed.catalog.database import Database\n"
        "database = Database(sys.argv[1])\n"
        "database.read(lambda connection: connection.exec_driver_sql('select 1'))\n"
        "print(flush=True)\nsys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program, url], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        other.stdout.readline()
        who = f"process {other.pid}" if kind == "sqlite" else "a meshfed at this machine"
        with pytest.raises(Uncopied, match=f"{who} has this catalog open: stop `meshfed serve`"):
            moved(url, f"sqlite:///{tmp_path}/new.db")
        other.communicate()
    assert not (tmp_path / "new.db").exists()
    assert held(url) == ""
