"""A catalog copied out of one database and put back into another."""

import gzip
import json
from contextlib import closing

import pytest

from meshfed.catalog.copy import Uncopied, copied, put_back
from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.store import Catalog
from meshfed.federation.cli.reading import LISTINGS, Kind, flagged
from meshfed.federation.cli.source import rows

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


async def test_a_copy_of_another_schema_says_what_to_do(sqlite_url: str) -> None:
    header, *rest = everything(sqlite_url)
    ours = json.loads(header)["schema"]
    other = gzip.compress("\n".join([header.replace(ours, "0000"), *rest]).encode())
    with pytest.raises(Uncopied, match=f"schema is 0000 and this meshfed's {ours}"):
        put_back(sqlite_url, other, also=lambda: None)
