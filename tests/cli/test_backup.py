"""Backups: everything comes back, and nothing is overwritten."""

import asyncio
import gzip
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshfed.catalog.copy import copied
from meshfed.catalog.store import Catalog
from meshfed.federation.certificates import keys
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.keys import Seal

Run = Callable[..., Any]  # how it ended: code, out, err, lines


@pytest.fixture
def passphrase(meshfed: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MESHFED_PASSPHRASE", "correct horse")
    return "correct horse"


def everything(url: str) -> list[str]:
    """Every row of a catalog, as it is copied."""
    return gzip.decompress(copied(url)).decode().splitlines()


def seal(url: str, folder: Path) -> None:
    """Give the catalog an authority, as the first start does."""

    async def open_authority() -> None:
        with closing(Catalog(url)) as catalog:
            await LocalAuthority.open(
                trust_domain="shop.example", safe=catalog, seal=Seal(folder / "meshfed.key")
            )

    asyncio.run(open_authority())


def test_a_backup_brings_back_every_row_and_the_key(
    meshfed: Run, shop: str, tmp_path: Path, passphrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(shop, tmp_path)
    key = (tmp_path / "meshfed.key").read_text()
    before = everything(shop)
    assert meshfed("backup", "monday").out == "monday\n"
    archive = tmp_path / "monday"
    assert archive.stat().st_mode & 0o777 == 0o600
    for file in tmp_path.glob("meshfed.*"):
        file.unlink()
    (tmp_path / "phrase").write_text(f"{passphrase}\n")
    monkeypatch.delenv("MESHFED_PASSPHRASE")
    assert meshfed("restore", "monday", "--passphrase-file", "phrase").code == 0
    assert everything(shop) == before
    assert (tmp_path / "meshfed.key").read_text() == key
    seal(shop, tmp_path)  # opens what stands


def test_a_backup_shows_nothing_without_its_passphrase(
    meshfed: Run, shop: str, tmp_path: Path, passphrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshfed("backup", "monday")
    assert b"bookstore" not in (tmp_path / "monday").read_bytes()
    monkeypatch.setenv("MESHFED_PASSPHRASE", "wrong")
    ended = meshfed("restore", "monday", "--catalog", "sqlite:///other.db")
    assert ended.code == 1
    assert ended.lines == ["monday: the passphrase does not open this backup"]
    assert not (tmp_path / "other.db").exists()


def test_a_backup_without_a_passphrase_is_refused(meshfed: Run, shop: str, tmp_path: Path) -> None:
    ended = meshfed("backup", "monday")
    assert ended.code == 1
    assert ended.lines == ["no passphrase: set MESHFED_PASSPHRASE or name a --passphrase-file"]
    assert not (tmp_path / "monday").exists()


def test_a_backup_that_nobody_could_start_from_is_not_made(
    meshfed: Run, shop: str, tmp_path: Path, passphrase: str
) -> None:
    seal(shop, tmp_path)
    (tmp_path / "meshfed.key").rename(tmp_path / "elsewhere.key")
    ended = meshfed("backup", "monday")
    assert ended.code == 1
    (line,) = ended.lines
    why = "meshfed.key: the key that opens this catalog's authority is not there: name its"
    assert line.startswith(f"{tmp_path}/{why}")
    assert not (tmp_path / "monday").exists()


def test_what_is_in_use_is_not_overwritten(
    meshfed: Run, shop: str, tmp_path: Path, passphrase: str
) -> None:
    seal(shop, tmp_path)
    meshfed("backup", "monday")
    before = everything(shop)
    full = meshfed("restore", "monday")
    assert full.code == 1
    assert "not empty" in full.err
    assert everything(shop) == before

    other = keys.written(keys.Key(b"k" * 32, ""))
    (tmp_path / "meshfed.key").write_text(other)
    foreign = meshfed("restore", "monday", "--catalog", "sqlite:///other.db")
    assert foreign.code == 1
    assert "another key is here" in foreign.err
    assert (tmp_path / "meshfed.key").read_text() == other
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("monday", "monday: there already: name a new file, or move this one away"),
        ("dangling", "dangling: there already: name a new file, or move this one away"),
        (".", ".: a folder: name the file to write"),
        ("", ".: a folder: name the file to write"),
        ("nowhere/monday", "nowhere/monday: No such file or directory"),
    ],
)
def test_a_backup_overwrites_nothing(
    meshfed: Run, shop: str, tmp_path: Path, passphrase: str, name: str, said: str
) -> None:
    (tmp_path / "monday").write_text("the only good one")
    (tmp_path / "dangling").symlink_to("elsewhere")
    ended = meshfed("backup", name)
    assert (ended.code, ended.lines) == (1, [said])
    assert (tmp_path / "monday").read_text() == "the only good one"
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_is_no_backup_is_one_line(
    meshfed: Run, tmp_path: Path, passphrase: str
) -> None:
    (tmp_path / "monday").write_text("shopping list")
    ended = meshfed("restore", "monday")
    assert ended.code == 1
    assert len(ended.lines) == 1
    assert meshfed("restore", "tuesday").lines == ["tuesday: No such file or directory"]
