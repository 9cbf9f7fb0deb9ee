"""A catalog whose password is a token of Entra's: a real Postgres, and an authority of our own."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from postgres import Postgres, started

from meshfed.catalog import entra
from meshfed.catalog.database import database_url
from meshfed.catalog.follow import deaf
from meshfed.catalog.reader import query
from meshfed.catalog.store import Away, Catalog, migrate
from meshfed.demo.arm.server import ENVIRONMENT, SECRET, Server
from meshfed.federation.fields import catalog_url

HBA = "local all postgres trust\nlocal all meshfed password\n"
AZURE = "postgresql+psycopg://meshfed@a.postgres.database.azure.com/mesh"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with started() as one:
        (one.folder / "pg_hba.conf").write_text(HBA)
        one.server.psql("create role meshfed login")
        one.server.psql("create database mesh owner meshfed")
        one.server.psql("select pg_reload_conf()")
        yield one


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Entra, and a pod that AKS prepared."""
    server = Server(tmp_path)
    server.begin()
    (tmp_path / "token").write_text(SECRET)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(entra.FEDERATED, str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.cloud["ca"])
    monkeypatch.setattr(entra, "SCOPE", f"{server.url}/.default")
    entra._credential.cache_clear()
    yield server
    entra._credential().close()
    entra._credential.cache_clear()
    server.end()


def url(postgres: Postgres) -> str:
    return f"postgresql+psycopg://meshfed@/mesh?host={postgres.folder}&auth=entra"


async def test_who_connects_shows_a_token_which_is_asked_for_once(
    postgres: Postgres, authority: Server
) -> None:
    postgres.server.psql("alter role meshfed password 'token-1'")
    migrate(url(postgres))
    with closing(Catalog(url(postgres))) as catalog:
        assert await catalog.read()
        assert await deaf(database_url(url(postgres))) == ""
    answer = query(url(postgres), "select count(*) from mesh_endpoints")
    assert list(answer.rows) == [(0,)]
    assert authority.given == 1


def test_without_a_token_the_catalog_is_away_and_says_why(
    postgres: Postgres, authority: Server
) -> None:
    authority.refused = True
    with pytest.raises(Away, match=r"no token of Entra's: .*AADSTS7000222"):
        migrate(url(postgres))
    authority.refused = False
    postgres.server.psql("alter role meshfed password 'token-1'")
    migrate(url(postgres))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("?auth=entra", "sslmode=verify-full"),
        ("?auth=entra&sslmode=require", "sslmode=verify-full"),
        ("?auth=magic&sslmode=verify-full", "auth is entra, or is not there"),
    ],
)
def test_a_token_is_shown_to_nobody_who_did_not_prove_who_it_is(query: str, why: str) -> None:
    for read in (catalog_url, database_url):
        with pytest.raises(ValueError, match=why):
            read(AZURE + query)


def test_there_is_a_password_or_a_token() -> None:
    given = AZURE.replace("meshfed@", "meshfed:secret@") + "?auth=entra&sslmode=verify-full"
    with pytest.raises(ValueError, match="instead of a password") as refused:
        catalog_url(given)
    assert "secret" not in str(refused.value)
