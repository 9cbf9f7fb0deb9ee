"""The command line, over real catalogs."""

import asyncio
import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperCommand, TyperGroup

from meshfed.catalog.copy import copied
from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Known,
    Port,
    ProxyState,
    Receipt,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.bootstrap import Unbootstrappable, control_plane, named
from meshfed.federation.certificates import keys
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.keys import Seal
from meshfed.federation.cli.main import app, main
from meshfed.federation.cli.options import GROUPS
from meshfed.federation.cli.output import Finding, Format, nearest, rendered
from meshfed.federation.cli.reading import LISTINGS, Kind
from meshfed.federation.cli.reference import reference

SCOPE = "rack/hosts.yaml"
BOOKSTORE = ServiceName("bookstore", "shop")
STORE = Identity("bookstore", "shop")
COMMANDS = Path(__file__).parent.parent / "docs" / "cli.md"


def workload(name: str = "store-1", address: str = "10.0.0.1", scope: str = SCOPE) -> Workload:
    return Workload(name, "rack", scope, identity=STORE, addresses=(address,))


def endpoint(of: Workload) -> Endpoint:
    (address,) = of.addresses
    return Endpoint(BOOKSTORE, 8080, address, 8080, of.id, "rack", of.scope, identity=of.identity)


def known(*workloads: Workload, doubt: str = "", scope: str = SCOPE) -> Known:
    return Known(
        "rack",
        scope,
        frozenset({Service(BOOKSTORE, (Port(8080, "http"),))}),
        frozenset(workloads),
        frozenset(map(endpoint, workloads)),
        doubt=doubt,
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Run = Callable[..., Ended]


@pytest.fixture
def meshfed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command in an empty folder, with nothing in the environment."""
    for name in [name for name in os.environ if name.startswith("MESHFED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog as a first migration leaves it; migrating once is enough."""
    path = tmp_path_factory.mktemp("catalog") / "meshfed.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def url(new: Path, tmp_path: Path) -> str:
    """A new catalog, where commands look for it without being told."""
    return f"sqlite:///{shutil.copy(new, tmp_path / 'meshfed.db')}"


@pytest.fixture
def shop(url: str) -> str:
    """A catalog that knows two stores."""

    async def fill() -> None:
        with closing(Catalog(url)) as catalog:
            await catalog.configure("shop.example", permissive=False)
            await catalog.believe(
                known(workload(), workload("store-2", "10.0.0.2")), kind="hosts", cause="test"
            )

    asyncio.run(fill())
    return url


def connect(url: str, *proxies: ProxyState, receipts: tuple[Receipt, ...] = ()) -> None:
    async def record() -> None:
        with closing(Catalog(url)) as catalog:
            await catalog.record("replica-1", 2, proxies, (), receipts)

    asyncio.run(record())


def proxy(of: Workload, **fields: object) -> ProxyState:
    return ProxyState(of.id, STORE, of.name, time.time(), **fields)  # type: ignore[arg-type]


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
def test_every_kind_is_listed_in_every_format(meshfed: Run, shop: str, kind: Kind) -> None:
    connect(shop, proxy(workload()))
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
        "select \udcff",
    ],
    ids=ascii,
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


def test_how_proxies_stand_with_each_type(meshfed: Run, shop: str) -> None:
    now = time.time()
    store = workload()
    connect(
        shop,
        proxy(store, state="rejecting", reason="LDS: no"),
        receipts=(
            Receipt(store.id, "CDS", "v1", now, now),
            Receipt(store.id, "LDS", "v2", now, now, rejected="no such filter"),
        ),
    )
    (row,) = json.loads(meshfed("proxy", "status", "-o", "json").out)
    assert (row["CDS"], row["LDS"], row["EDS"]) == ("synced", "rejected", "-")
    one = meshfed("proxy", "status", "store-1")
    assert "no such filter" in one.out
    assert "store-1 is rejecting: LDS: no" in one.err


def test_an_unknown_proxy_is_answered_with_the_nearest(meshfed: Run, shop: str) -> None:
    connect(shop, proxy(workload()))
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


# Backups


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


def test_a_file_that_is_no_backup_is_one_line(
    meshfed: Run, tmp_path: Path, passphrase: str
) -> None:
    (tmp_path / "monday").write_text("shopping list")
    ended = meshfed("restore", "monday")
    assert ended.code == 1
    assert len(ended.lines) == 1
    assert meshfed("restore", "tuesday").lines == ["tuesday: No such file or directory"]


# Setting up a proxy


def test_a_proxy_is_set_up_from_the_catalog_alone(
    meshfed: Run, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHFED_MESH__TRUST_DOMAIN", "shop.example")
    ended = meshfed("proxy", "bootstrap", "store-1", "--xds", "mesh.example:15128")
    assert ended.code == 0, ended.err
    written = [Path(line) for line in ended.out.splitlines()]
    assert {path.name for path in written} >= {"envoy.yaml", "key.pem", "certificate.pem"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    envoy = (tmp_path / "store-1" / "envoy.yaml").read_text()
    assert "mesh.example" in envoy
    assert yaml.safe_load(envoy)["node"]["id"] == workload().id
    assert f"--config-path {tmp_path}/store-1/envoy.yaml" in ended.err
    before = (tmp_path / "store-1" / "certificate.pem").read_text()
    assert meshfed("proxy", "bootstrap", "store-1").code == 0
    assert (tmp_path / "store-1" / "certificate.pem").read_text() != before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(("store1",), "no workload store1; did you mean store-1?", id="misspelt"),
        pytest.param(
            ("store-1", "--xds", "here"), "--xds: 'here' is not host:port", id="no address"
        ),
    ],
)
def test_a_proxy_that_cannot_be_set_up_is_one_line(
    meshfed: Run, shop: str, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    ended = meshfed("proxy", "bootstrap", *arguments)
    assert (ended.code, ended.lines) == (1, [why])
    assert not (tmp_path / "store-1").exists()


def test_two_workloads_of_one_name_are_told_apart_by_id() -> None:
    here, there = workload(), workload(scope="rack/others.yaml")
    with pytest.raises(Unbootstrappable, match=rf"2 workloads.*{here.id} \(rack/hosts\.yaml\)"):
        named("store-1", [here, there])
    assert named(there.id, [here, there]) is there


@pytest.mark.parametrize(
    ("listen", "addresses", "found_at"),
    [
        pytest.param("10.1.1.1:15128", ("10.0.0.1",), "10.1.1.1:15128", id="one address"),
        pytest.param("0.0.0.0:15128", ("127.0.1.11",), "127.0.0.1:15128", id="on this machine"),
        pytest.param("0.0.0.0:15128", ("::1", "127.0.0.1"), "127.0.0.1:15128", id="IPv4 only"),
        pytest.param("[::]:15128", ("127.0.1.11",), "127.0.0.1:15128", id="both families"),
        pytest.param("0.0.0.0:15128", (), f"{socket.getfqdn()}:15128", id="no address: by name"),
    ],
)
def test_where_a_proxy_finds_the_control_plane(
    listen: str, addresses: tuple[str, ...], found_at: str
) -> None:
    assert control_plane(listen, addresses) == found_at


# Checking files


def test_files_are_checked_together_and_each_mistake_is_a_line(
    meshfed: Run, tmp_path: Path
) -> None:
    (tmp_path / "meshfed.yaml").write_text(
        "providers:\n  - {name: rack, type: hosts, path: hosts.yaml}\n"
    )
    hosts = tmp_path / "hosts.yaml"
    host = "{name: a, address: 10.0.0.1, service: shop.shop, port: 80, identity: shop.shop}"
    hosts.write_text(f"hosts:\n  - {host}\n")
    right = meshfed("validate")
    assert (right.code, right.err) == (0, "")
    assert right.out.splitlines() == [
        "meshfed.yaml: a configuration, and right",
        "hosts.yaml: a host list, and right",
    ]
    hosts.write_text(f"hosts:\n  - {host}\n  - {{name: b, adress: 10.0.0.2}}\n")
    wrong = meshfed("validate", "meshfed.yaml")
    assert (wrong.code, wrong.out) == (1, "")
    assert all(line.startswith("hosts.yaml:3: ") for line in wrong.lines)


def test_a_pipe_is_checked(meshfed: Run) -> None:
    ended = meshfed("validate", "-", stdin="mesh: {trust_domian: shop.example}\n")
    assert ended.code == 1
    assert re.match(r"stdin:1: mesh.trust_domian: unknown; did you mean trust_domain", ended.err)


def test_checking_nothing_is_not_success(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert meshfed("validate", "empty").code == 1
    assert meshfed("validate").code == 2


# The command as a process


def test_a_full_disk_is_one_line(shop: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "meshfed.federation.cli.main", "get", "services"],
            cwd=tmp_path,
            text=True,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (ended.returncode, ended.stderr) == (1, "stdout: No space left on device\n")


def start(*arguments: object, folder: Path, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "meshfed.federation.cli.main", *map(str, arguments)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from meshfed.federation.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'sqlalchemy', 'fastapi', 'pydantic', 'cryptography', 'envoy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_reader_that_has_seen_enough_ends_it_quietly(shop: str, tmp_path: Path) -> None:
    many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) "
    with start("sql", many + "select i from n", "-o", "json", folder=tmp_path) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.readline()
        command.stdout.close()
        assert command.stderr.read() == ""
    assert command.returncode == 0


def test_watching_prints_again_when_something_changed_until_ctrl_c(
    shop: str, tmp_path: Path
) -> None:
    with start("get", "workloads", "-w", "-o", "csv", folder=tmp_path) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        lines = iter(command.stdout.readline, "")
        assert next(lines).startswith("name,")
        assert [next(lines).partition(",")[0] for _ in range(2)] == ["store-1", "store-2"]

        async def one_leaves() -> None:
            with closing(Catalog(shop)) as catalog:
                await catalog.believe(known(workload()), kind="hosts", cause="one left")

        asyncio.run(one_leaves())
        assert next(lines).startswith("name,")
        assert next(lines).startswith("store-1,")
        command.send_signal(signal.SIGINT)
        assert command.stderr.read() == ""
    assert command.returncode == 130


# Usage


@pytest.mark.parametrize(
    "arguments",
    [("gett",), ("get", "things"), ("get",), ("get", "services", "-o", "xml"), ("sql", "a", "b")],
    ids=" ".join,
)
def test_what_is_no_command_is_usage(meshfed: Run, arguments: tuple[str, ...]) -> None:
    ended = meshfed(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage" in ended.err


def test_a_misspelt_command_is_answered_with_the_nearest(meshfed: Run) -> None:
    assert "Did you mean 'get'" in meshfed("gett").err


def test_a_wrong_configuration_is_one_line_for_each_mistake(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "meshfed.yaml").write_text("mesh: {trust_domain: shop.example}\ncatalogue: x\n")
    ended = meshfed("get", "services")
    assert ended.code == 1
    (line,) = ended.lines
    assert re.match(r".*meshfed\.yaml:2: catalogue: unknown; did you mean catalog\?", line)


def commands(prefix: str = "meshfed", within: object = None) -> Iterator[tuple[str, TyperCommand]]:
    group = within or typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(f"{prefix} {name}", command)
        else:
            assert isinstance(command, TyperCommand)
            yield f"{prefix} {name}", command


@pytest.mark.parametrize(
    ("name", "command"), [pytest.param(*each, id=each[0]) for each in commands()]
)
def test_every_help_shows_an_example_of_the_command(name: str, command: TyperCommand) -> None:
    assert f"Example: {name}" in (command.help or "")


def test_help_has_the_groups_in_their_order(meshfed: Run) -> None:
    said = meshfed("--help").out
    found = [group for group in GROUPS if f"─ {group} ─" in said]
    assert found == ["Run", "See", "Explain", "Maintain"]
    assert [said.index(f"─ {group} ─") for group in found] == sorted(
        said.index(f"─ {group} ─") for group in found
    )


def test_the_page_about_the_command_line_is_what_the_commands_say() -> None:
    assert COMMANDS.read_text() == reference(), (
        "python -m meshfed.federation.cli.reference > docs/cli.md"
    )
