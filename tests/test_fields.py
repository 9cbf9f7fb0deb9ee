"""Fields of the configuration: durations, addresses, and where a catalog is."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from meshfed.catalog.file import sqlite_file
from meshfed.federation.fields import address, catalog_url, duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 2592000),
        ("24h", 86400),
        ("30s", 30),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1h1m1s", 3661),
    ],
)
def test_durations(text: str, seconds: int):
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "24", 24, "h", "1w", "-1h", "1.5h", "30s1h", "0s", "99999h"])
def test_what_is_no_duration(text: object):
    with pytest.raises(ValueError, match=r"duration|0s"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]:0", "::1", 0),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_addresses(text: str, host: str, port: int):
    listen = address(text)
    assert (listen, listen.host, listen.port) == (text, host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":80", "127.0.0.1", "::1:80", "[127.0.0.1]:80", "a.example:80", "127.0.0.1:65536", 80],
)
def test_what_is_no_address(text: object):
    with pytest.raises(ValueError, match=r"host:port|address"):
        address(text)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("sqlite:///meshfed.db", "sqlite:////srv/meshfed.db"),
        ("sqlite:////var/lib/meshfed.db", "sqlite:////var/lib/meshfed.db"),
        ("postgresql+psycopg://me@db:5432/mesh", "postgresql+psycopg://me@db:5432/mesh"),
        ("postgresql://me@db/mesh", "postgresql+psycopg://me@db/mesh"),
        ("postgres:///mesh?host=/run/pg", "postgresql+psycopg:///mesh?host=/run/pg"),
    ],
)
def test_catalogs(url: str, same: str):
    assert catalog_url(url).under(Path("/srv")) == same


def test_a_folder_may_have_any_name():
    found = catalog_url("sqlite:///meshfed.db").under(Path("/srv/a%41?b"))
    assert make_url(found).database == sqlite_file(found) == "/srv/a%41?b/meshfed.db"


@pytest.mark.parametrize("file", ["", "/", ".", "..", "folder/", ":memory:"])
def test_a_catalog_is_a_file(file: str):
    with pytest.raises(ValueError, match="a catalog is a file"):
        catalog_url(f"sqlite:///{file}")


def test_an_option_that_postgres_does_not_know_is_named():
    with pytest.raises(ValueError, match="'foo' is no option of a connection to Postgres"):
        catalog_url("postgresql://me@db/mesh?sslmode=require&foo=bar")
