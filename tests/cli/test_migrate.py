"""`meshfed migrate` says what it will do, does it, and says what it did."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshfed.catalog.migrating import meanings
from meshfed.catalog.reader import query

Run = Callable[..., Any]  # how it ended: code, out, err, lines


def test_a_new_catalog_is_announced_and_made(meshfed: Run, tmp_path: Path) -> None:
    announced = meshfed("migrate", "--dry-run")
    assert announced.code == 0
    assert announced.lines == ["nothing was changed"]
    assert not (tmp_path / "meshfed.db").exists()
    done = meshfed("migrate")
    assert done.out == announced.out
    first, *_ = done.out.splitlines()
    assert first == "nothing → 0001: The catalog's first tables."
    assert done.lines == [f"done: the catalog's schema is {max(meanings())}"]
    again = meshfed("migrate")
    assert (again.out, again.lines) == ("", ["nothing to do: the catalog is up to date"])


def test_a_migration_is_undone(meshfed: Run, shop: str) -> None:
    announced = meshfed("migrate", "--to-revision", "0001", "--dry-run").out
    assert announced.splitlines()[-1].startswith("0002 → 0001: undoes: How providers stood")
    undone = meshfed("migrate", "--to-revision", "0001")
    assert undone.out == announced
    assert undone.lines == ["done: the catalog's schema is 0001"]
    asked = "select count(*) from mesh_changes where what = 'endpoint'"
    assert query(shop, asked).rows == ((2,),)
    assert meshfed("history", "bookstore.shop").lines == [
        "the catalog is new, or of an older version: run `meshfed migrate` first"
    ]
    assert meshfed("migrate", "--to-revision", "0001").lines == [
        "nothing to do: the catalog is at 0001"
    ]
    assert meshfed("migrate").code == 0
    assert meshfed("history", "bookstore.shop").code == 0


def test_a_catalog_moves_with_its_history(meshfed: Run, shop: str, tmp_path: Path) -> None:
    moved = meshfed("migrate", "--to", "sqlite:///new.db")
    assert moved.code == 0
    assert "2 endpoints" in moved.out
    assert moved.lines[-1].startswith("done: all is copied, and counted: ")
    for command in (("get", "endpoints"), ("history", "bookstore.shop"), ("diff", "--from", "1")):
        there = meshfed(*command, "--catalog", "sqlite:///new.db", "-o", "json")
        assert json.loads(there.out) == json.loads(meshfed(*command, "-o", "json").out)
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "sqlite:///meshfed.db"), "--to: this is the catalog itself"),
        (("--to", "elsewhere"), "--to: must be sqlite:///FILE or "),
        (("--to", "sqlite:////nowhere/at/all.db"), "/nowhere/at/all.db: unable to open"),
        (("--to", "sqlite:///notes.txt"), "notes.txt: file is not a database"),
        (("--to-revision", "7777"), "'7777' is no schema of this version: it knows 0001, 0002"),
        (("--reader", "ann"), "SQLite has no roles: who may read the file may read the catalog"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    meshfed: Run, shop: str, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "notes.txt").write_text("to be kept: this is no database at all\n")
    ended = meshfed("migrate", *arguments)
    assert ended.code == 1
    (line,) = ended.lines
    assert said in line


OPEN = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("select * from state")
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("arguments", [("--to-revision", "0001"), ("--to", "sqlite:///new.db")])
def test_what_another_process_has_open_is_left_alone(
    meshfed: Run, shop: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", OPEN, tmp_path / "meshfed.db"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        other.stdout.readline()
        ended = meshfed("migrate", *arguments)
        other.communicate()
    said = f"process {other.pid} has this catalog open: stop `meshfed serve` first"
    assert (ended.code, ended.lines) == (1, [said])
    assert not (tmp_path / "new.db").exists()
    assert meshfed("migrate", *arguments).code == 0


@pytest.mark.parametrize(
    "arguments",
    [("--to", "sqlite:///a.db", "--reader", "ann"), ("--dry-run", "--reader", "ann")],
    ids=" ".join,
)
def test_what_does_not_go_together_is_usage(meshfed: Run, arguments: tuple[str, ...]) -> None:
    assert meshfed("migrate", *arguments).code == 2
