"""Which configuration and which catalog a command works on."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from meshfed.federation.cli.output import Finding

if TYPE_CHECKING:
    from meshfed.catalog.reader import Answer
    from meshfed.catalog.store import Catalog
    from meshfed.federation.settings import Settings

SQLITE = b"SQLite format 3\0"  # how such a file begins: https://sqlite.org/fileformat.html


def sqlite_file(url: str) -> Path | None:
    """The file behind a SQLite URL; None for another database."""
    from meshfed.catalog import file as files

    file = files.sqlite_file(url)
    return None if file is None else Path(file)


def configured(config: Path | None) -> "Settings":
    """The configuration, or a Finding with a line for each thing wrong in it."""
    from meshfed.federation.settings import Refused, Settings

    try:
        return Settings.read(config, os.environ)
    except Refused as refused:
        raise Finding(*refused.rejected) from refused


def catalog_url(catalog: str | None, config: Path | None, option: str = "--catalog") -> str:
    """The catalog that an option names, else the configuration's."""
    if catalog is None:
        return configured(config).catalog
    from meshfed.federation.fields import catalog_url as parsed

    try:
        return parsed(catalog).under(Path.cwd())
    except ValueError as why:
        raise Finding(f"{option}: {why}") from why


def existing(url: str) -> str:
    """The URL of a catalog that is there: reading must not make an empty one."""
    from meshfed.catalog.file import DIRECTORY

    file = sqlite_file(url)
    if file is None:
        return url
    if file.is_dir():
        raise Finding(f"{file}: {DIRECTORY}")
    if not file.is_file():
        raise Finding(
            f"{file}: there is no catalog here: start `meshfed serve` or run `meshfed migrate`"
            " to make one, or name another with --catalog"
        )
    with file.open("rb") as opened:
        if opened.read(len(SQLITE)) not in (SQLITE, b""):
            raise Finding(f"{file}: not a SQLite database: name a catalog with --catalog")
    return url


def rows(url: str, sql: str, *, seconds: float = 60.0, most: int = 1_000_000) -> "Answer":
    """What the catalog answers to one statement that only reads."""
    from meshfed.catalog.file import Away
    from meshfed.catalog.reader import Refused, query

    try:
        return query(existing(url), sql, seconds=seconds, rows=most)
    except Away as why:
        raise Finding(why) from why
    except Refused as refused:
        raise Finding(unmigrated(url) or refused) from refused


def unmigrated(url: str) -> str:
    """Why an answer may be refused though nothing is wrong with the question."""
    from meshfed.catalog.migrating import pending

    with reachable():
        if pending(url):
            return "the catalog is new, or of an older version: run `meshfed migrate` first"
    return ""


def migrated(url: str) -> None:
    """Raises a Finding unless the catalog has the tables that this version reads."""
    if why := unmigrated(url):
        raise Finding(why)


@contextmanager
def reachable() -> Iterator[None]:
    """Turns a database that is away, another version's, or closed to this role, into a Finding."""
    from sqlalchemy.exc import ProgrammingError

    from meshfed.catalog.store import Away, Unfit

    try:
        yield
    except (Away, Unfit) as why:
        raise Finding(why) from why
    except ProgrammingError as error:
        told = str(error.orig).partition("\n")[0]
        if "permission denied" not in told:
            raise
        remedy = "it needs the tables behind the views: ask as the role that `serve` has"
        raise Finding(f"{told}: {remedy}") from error


@asynccontextmanager
async def opened(url: str) -> AsyncIterator["Catalog"]:
    """The catalog, for a command that writes to it."""
    from meshfed.catalog.store import Catalog

    with reachable(), closing(Catalog(existing(url))) as catalog:
        yield catalog
