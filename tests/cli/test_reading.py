"""What is listed, asked and ordered, and what is said instead."""

import asyncio
import csv
import io
import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshfed.catalog.model import Workload
from meshfed.catalog.reports import Receipt
from meshfed.catalog.store import Catalog
from meshfed.federation.cli.output import Finding, Format, nearest, rendered
from meshfed.federation.cli.reading import LISTINGS, Kind

SCOPE = "rack/hosts.yaml"
Run = Callable[..., Any]  # how it ended: code, out, err, lines


# What a command prints

ROWS = [("bookstore.shop", None, 1)]


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        pytest.param(
            Format.TABLE, "SERVICE         PORTS  WEIGHT\nbookstore.shop         1\n", id="table"
        ),
        pytest.param(
            Format.CSV, "service,ports,weight\nbookstore.shop,,1\n", id="csv with a header"
        ),
        pytest.param(
            Format.YAML, "- service: bookstore.shop\n  ports: null\n  weight: 1\n", id="yaml"
        ),
    ],
)
def test_rows_as(shape: Format, text: str) -> None:
    assert rendered(("service", "ports", "weight"), ROWS, shape) == text


def test_a_name_in_a_table_is_never_taken_for_markup() -> None:
    assert "[red]x[/red]" in rendered(("name",), [("[red]x[/red]",)], Format.TABLE)


@pytest.mark.parametrize("value", ["\x1b[2J\x07", ["\x1b[2J\x07"]], ids=["text", "a list"])
def test_a_value_cannot_speak_to_the_terminal(value: object) -> None:
    text = rendered(("reason",), [(value,)], Format.TABLE)
    assert "\x1b" not in text
    assert "1b[2J" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("\x1b]0;t\x07", r"\x1b]0;t\x07", id="an escape sequence"),
        pytest.param("a\x9b2Jb\x7f", r"a\x9b2Jb\x7f", id="of eight bits, and delete"),
        pytest.param("a\rb\x08", r"a\x0db\x08", id="what moves the cursor"),
        pytest.param("größer → 3", "größer → 3", id="what is no control character"),
    ],
)
def test_a_control_character_in_a_table_is_shown(value: str, shown: str) -> None:
    assert rendered(("reason",), [(value,)], Format.TABLE) == f"REASON\n{shown}\n"


def test_data_is_as_it_is() -> None:
    assert rendered(("a",), [("\x1b\t",)], Format.CSV) == "a\n\x1b\t\n"
    assert json.loads(rendered(("a",), [("\x1b",)], Format.JSON)) == [{"a": "\x1b"}]


def test_a_table_is_folded_rather_than_cut_when_the_terminal_is_narrow() -> None:
    text = rendered(("name",), [("a" * 30,)], Format.TABLE, width=20)
    assert max(map(len, text.splitlines())) <= 20
    assert text.count("a") == 30


def test_a_table_that_nobody_looks_at_has_one_line_for_each_row() -> None:
    assert len(rendered(("name",), [("a" * 300,)], Format.TABLE).splitlines()) == 2


def test_a_finding_is_one_line_whatever_a_driver_says() -> None:
    assert str(Finding("first\n  second")) == "first second"


def test_what_was_probably_meant() -> None:
    assert nearest("store1", ["store-1", "ledger"]) == "did you mean store-1?"
    assert nearest("zzz", ["store-1", "ledger"]) == "known: ledger, store-1"
    assert nearest("zzz", []) == "none is known yet"


# Listing


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_is_listed_in_every_format(
    meshfed: Run, connect: Callable[..., None], kind: Kind
) -> None:
    connect()
    everything = {shape: meshfed("get", kind, "-o", shape) for shape in Format}
    assert {ended.code for ended in everything.values()} == {0}
    listed = json.loads(everything[Format.JSON].out)
    assert [list(row) for row in yaml.safe_load(everything[Format.YAML].out)] == [
        list(row) for row in listed
    ]
    rows = list(csv.DictReader(io.StringIO(everything[Format.CSV].out)))
    assert len(rows) == len(listed)
    if listed:
        assert set(LISTINGS[kind].table) <= set(listed[0])
        assert max(map(len, everything[Format.TABLE].out.splitlines())) <= 100


def test_endpoints_as_a_table(meshfed: Run, shop: str) -> None:
    header, first, _ = meshfed("get", "endpoints").out.splitlines()
    assert header.split()[:3] == ["SERVICE", "ADDRESS", "PORT"]
    assert first.split()[:3] == ["bookstore.shop", "10.0.0.1", "8080"]


def test_a_flag_is_true_or_false_whatever_the_database_calls_it(meshfed: Run, shop: str) -> None:
    first, _ = json.loads(meshfed("get", "endpoints", "-o", "json").out)
    assert (first["mtls"], first["stale"]) == (True, False)


@pytest.mark.parametrize("kind", Kind)
def test_an_empty_catalog_says_where_things_come_from(meshfed: Run, url: str, kind: Kind) -> None:
    ended = meshfed("get", kind)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith(f"no {kind} yet: they come from ")
    assert json.loads(meshfed("get", kind, "-o", "json").out) == []


@pytest.mark.parametrize("command", ["get services", "doctor", "migrate"])
def test_a_directory_is_no_catalog(meshfed: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "meshfed.yaml").write_text("catalog: sqlite:///state\n")
    ended = meshfed(*command.split())
    assert ended.code == 1
    assert f"{tmp_path}/state: it is a directory: name a file in it" in ended.lines[-1]


def test_reading_does_not_make_a_catalog(meshfed: Run, tmp_path: Path) -> None:
    ended = meshfed("get", "services")
    assert ended.code == 1
    (line,) = ended.lines
    assert "there is no catalog here" in line
    assert "meshfed serve" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ("get", "services"),
        ("sql", "select 1"),
        ("proxy", "status"),
        ("provider", "pause", "rack"),
        ("backup", "copy"),
    ],
    ids=" ".join,
)
def test_no_command_reads_a_file_that_is_no_catalog(
    meshfed: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "meshfed.db").write_text("not a database, but a page of prose\n" * 100)
    ended = meshfed(*command)
    assert ended.code == 1
    assert len(ended.lines) == 1


def test_a_database_that_is_away_is_one_line(meshfed: Run) -> None:
    ended = meshfed("get", "services", "--catalog", "postgresql+psycopg://me@127.0.0.1:1/mesh")
    assert ended.code == 1
    (line,) = ended.lines
    assert "127.0.0.1" in line


def test_a_catalog_that_lacks_its_tables_says_what_makes_them(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "meshfed.db").touch()
    for command in (("get", "services"), ("sql", "select * from mesh_services")):
        ended = meshfed(*command)
        assert ended.code == 1
        assert ended.lines[0].endswith("run `meshfed migrate` first")


@pytest.mark.parametrize("wrong", ["mysql://localhost/mesh", "meshfed.db", "sqlite://"])
def test_an_address_that_is_no_catalog_is_one_line(meshfed: Run, wrong: str) -> None:
    ended = meshfed("get", "services", "--catalog", wrong)
    assert ended.code == 1
    assert len(ended.lines) == 1


# Asking


def test_sql_answers_in_any_format(meshfed: Run, shop: str) -> None:
    question = "select service, count(*) as endpoints from mesh_endpoints group by 1"
    assert json.loads(meshfed("sql", question, "-o", "json").out) == [
        {"service": "bookstore.shop", "endpoints": 2}
    ]
    assert meshfed("sql", question, "-o", "csv").out == "service,endpoints\nbookstore.shop,2\n"


def test_sql_is_read_from_a_pipe(meshfed: Run, shop: str) -> None:
    ended = meshfed("sql", "-o", "csv", stdin="select count(*) as n from mesh_endpoints\n")
    assert ended.out == "n\n2\n"


def test_two_columns_of_one_name_are_both_told(meshfed: Run, shop: str) -> None:
    assert meshfed("sql", "select 1 as a, 2 as a", "-o", "csv").out == "a,a\n1,2\n"


@pytest.mark.parametrize(
    "statement",
    [
        "select * from mesh_endpoint",
        "selct 1",
        "delete from endpoints",
        "attach database 'x.db' as x",
        "vacuum into 'x.db'",
    ],
)
def test_bad_sql_is_one_line_and_changes_nothing(
    meshfed: Run, shop: str, tmp_path: Path, statement: str
) -> None:
    ended = meshfed("sql", statement)
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.lines) == 1
    assert not (tmp_path / "x.db").exists()


def test_sql_without_a_statement_lists_the_views(meshfed: Run, url: str) -> None:
    listed = json.loads(meshfed("sql", "-o", "json").out)
    assert {"mesh_services", "mesh_endpoints", "mesh_changes"} <= {row["view"] for row in listed}
    assert all(row["about"] for row in listed)


# Proxies


def test_how_proxies_stand_with_each_type(
    meshfed: Run, store: Workload, connect: Callable[..., None]
) -> None:
    now = time.time()
    connect(
        Receipt(store.id, "CDS", "v1", now, now),
        Receipt(store.id, "LDS", "v2", now, now, rejected="no such filter"),
        state="rejecting",
        reason="LDS: no",
    )
    (row,) = json.loads(meshfed("proxy", "status", "-o", "json").out)
    assert (row["CDS"], row["LDS"], row["EDS"]) == ("synced", "rejected", "-")
    one = meshfed("proxy", "status", "store-1")
    assert "no such filter" in one.out
    assert "store-1 is rejecting: LDS: no" in one.err


def test_an_unknown_proxy_is_answered_with_the_nearest(
    meshfed: Run, connect: Callable[..., None]
) -> None:
    connect()
    ended = meshfed("proxy", "status", "store1")
    assert (ended.code, ended.lines) == (1, ["no proxy store1: did you mean store-1 or store-2?"])


def test_a_workload_without_a_proxy_says_how_it_gets_one(meshfed: Run, shop: str) -> None:
    ended = meshfed("proxy", "status", "store-2")
    assert ended.code == 1
    assert ended.err.startswith("store-2 has no proxy that is connected")


# Providers


def test_a_provider_is_paused_and_resumed(meshfed: Run, shop: str) -> None:
    assert meshfed("provider", "pause", "rack").code == 0
    paused = json.loads(meshfed("get", "providers", "-o", "json").out)
    assert {row["state"] for row in paused} == {"paused"}
    assert meshfed("provider", "resume", "rack").code == 0
    resumed = json.loads(meshfed("get", "providers", "-o", "json").out)
    assert "paused" not in {row["state"] for row in resumed}


def test_accepting_is_an_order_in_the_catalog(meshfed: Run, shop: str) -> None:
    assert meshfed("provider", "accept", SCOPE).code == 0

    async def ordered() -> frozenset[str]:
        with closing(Catalog(shop)) as catalog:
            return (await catalog.orders("rack")).accepted

    assert asyncio.run(ordered()) == {SCOPE}


@pytest.mark.parametrize("command", ["accept", "pause", "resume"])
def test_an_unknown_provider_is_answered_with_the_known_ones(
    meshfed: Run, shop: str, command: str
) -> None:
    ended = meshfed("provider", command, "rakc")
    assert ended.code == 1
    (line,) = ended.lines
    assert "rack" in line


@pytest.mark.parametrize("port", [8080, 15003], ids=["the application's", "the sidecar's"])
def test_why_takes_a_port_that_is_there(meshfed: Run, shop: str, port: int) -> None:
    said = (meshfed("why", f"10.0.0.1{end}", "-o", "json").out for end in (f":{port}", ""))
    asked, whole = (json.loads(re.sub(r"\d+ s ago", "just now", each)) for each in said)
    assert asked == whole != []


def test_why_of_a_port_that_nobody_has_names_those_there_are(meshfed: Run, shop: str) -> None:
    ended = meshfed("why", "10.0.0.1:9999")
    assert (ended.code, ended.out) == (1, "")
    assert ended.lines == ["nothing here is called 10.0.0.1:9999: at 10.0.0.1 there is port 8080"]
