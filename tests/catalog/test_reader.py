"""Anybody may ask the catalog anything, and change, lock or stall nothing."""

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from meshfed.catalog.model import Endpoint, Known, Port, Service, ServiceName
from meshfed.catalog.reader import Refused, query
from meshfed.catalog.reader_postgres import names
from meshfed.catalog.store import Away, Catalog
from meshfed.catalog.views import VIEWS


@pytest.fixture
async def filled(url: str) -> str:
    await fill(url)
    return url


@pytest.fixture
async def sqlite_filled(sqlite_url: str) -> str:
    await fill(sqlite_url)
    return sqlite_url


@pytest.fixture
async def postgres_filled(postgres_url: str) -> str:
    await fill(postgres_url)
    return postgres_url


async def fill(url: str) -> None:
    web = ServiceName("web", "shop")
    endpoints = (Endpoint(web, 80, f"10.0.0.{n}", 80, "w", "rack", "rack/a") for n in range(40))
    service = Service(web, (Port(80),))
    catalog = Catalog(url)
    await catalog.believe(
        Known("rack", "rack/a", frozenset({service}), endpoints=frozenset(endpoints)),
        kind="hosts",
        cause="",
    )
    await catalog.keep_authority("certificate", b"sealed")
    catalog.close()


def folder(url: str) -> Path:
    return Path(str(make_url(url).database)).parent


ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
MANY = ", ".join(f"mesh_endpoints e{n}" for n in range(8))

GOOD = [
    pytest.param("select count(*) from mesh_endpoints", [(40,)], id="a count"),
    pytest.param("select count(*) from mesh_services; ", [(1,)], id="a semicolon at the end"),
    pytest.param("with s as (select 1 from mesh_services) select * from s", [(1,)], id="with"),
    pytest.param("select '; insert', '%', '\"' -- x", [("; insert", "%", '"')], id="odd strings"),
    pytest.param("select count(*) from mesh_endpoint_history a, mesh_endpoint_history b", [(1600,)],
                 id="history, twice"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "rows"), GOOD)
def test_what_only_reads_is_answered(filled: str, sql: str, rows: list[tuple[Any, ...]]) -> None:
    assert list(query(filled, sql).rows) == rows


def test_an_answer_names_its_columns(filled: str) -> None:
    answer = query(filled, "select name, name as other from mesh_services")
    assert answer.columns == ("name", "other")


ON_BOTH = [
    "insert into state (id) values (2)",
    "update state set revision = 99",
    "delete from endpoints",
    "drop view mesh_endpoints",
    "create table x (y int)",
    "commit; insert into state (id) values (2)",
    "select 1; delete from endpoints",
    "with gone as (delete from endpoints returning 1) select * from gone",
    "begin",
    "rollback",
    "vacuum",
    "analyze",
    "select * from authority",
    "with mesh_services as (select * from authority) select * from mesh_services",
    'with mesh_services("a)", "b") as (select token, hash from tokens) select * from mesh_services',
    "with mesh_services(a /* ) */) as (select name from policies) select * from mesh_services",
    "with mesh_services(a -- )\n) as (select hash from tokens) select * from mesh_services",
    "with [mesh_services] as (select hash from tokens) select * from mesh_services",
    "select sealed_key from authority, mesh_services",
    "",
    ";",
    "no sql at all",
    "select \0",
]
ON_SQLITE = [
    "attach 'other.db' as other",
    "vacuum into 'copy.db'",
    "pragma journal_mode = delete",
    "pragma writable_schema = on",
    "pragma user_version = 7",
    "pragma wal_checkpoint(truncate)",
    "select load_extension('x')",
    "select fts3_tokenizer('simple')",
    "select sqlite_log(1, 'x')",
    "select rtreecheck('endpoints')",
    "select * from sqlite_dbpage",
    "detach main",
    "savepoint x",
    "select count(*) from authority",
    "with mesh_services as (select * from certificates) select * from mesh_services",
    'with "Mesh_Services"/* */(a)--\n as not materialized (select 1) select * from "Mesh_Services"',
    "create virtual table x using fts5(y)",
    "select * from pragma_table_info('state')",
    "update sqlite_master set sql = ''",
    "create temp table x (y int)",
    "reindex",
    "select zeroblob(1000000000)",
    "select",
    "explain delete from endpoints",
    "select * from endpoints",
]
ON_POSTGRES = [
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_xact_lock(1)",
    'select "pg_advisory_lock"(1)',
    "select PG_Advisory_Lock(1)",
    "select pg_catalog.pg_advisory_lock(1)",
    'select U&"pg\\005fadvisory_lock"(1)',
    "select pg_terminate_backend(pid) from pg_stat_activity",
    "select pg_cancel_backend(pid) from pg_stat_activity",
    "select pg_sleep(60)",
    "select set_config('role', 'postgres', true)",
    "select set_config('transaction_read_only', 'off', true), 1",
    "select query_to_xml('select set_config(''role'', ''postgres'', true)', true, true, '')",
    "select pg_notify('meshfed', '1')",
    "select txid_current()",
    "select pg_current_xact_id()",
    "select pg_sleep_for('1 minute')",
    'select pg_catalog."pg_sleep"(60)',
    "select setval('changes_id_seq', 1)",
    "select lo_get(1)",
    "select pg_advisory_unlock_all()",
    "select pg_stat_reset()",
    "select pg_promote()",
    "select pg_switch_wal()",
    "select pg_export_snapshot()",
    "select pg_log_backend_memory_contexts(1)",
    "select ts_rewrite('a'::tsquery, 'select set_config(''role'', ''postgres'', true)')",
    "select rolpassword from pg_authid",
    "fetch all from asked",
    "close all",
    "explain analyze select 1",
    "notify meshfed",
    "call x()",
    "select nextval('changes_id_seq')",
    "select lo_create(0)",
    "select lo_import('/etc/passwd')",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select pg_reload_conf()",
    "select pg_logical_emit_message(false, 'a', 'b')",
    "select * from ts_stat('select pg_advisory_lock(1)::text::tsvector')",
    "copy endpoints to '/tmp/stolen'",
    "copy (select 1) to program 'touch /tmp/stolen'",
    "select * from mesh_services for update",
    "select * into x from mesh_services",
    "lock table state",
    "set role postgres",
    "reset role",
    "listen meshfed",
    "do $$ begin perform 1; end $$",
    "select * from endpoints",
    "select 1 into x",
    "select 1) to stdout",
    "prepare transaction 'x'",
]
ATTACKS = [
    *(pytest.param("sqlite", sql, id=f"sqlite: {sql[:60]}") for sql in ON_BOTH + ON_SQLITE),
    *(pytest.param("postgres", sql, id=f"postgres: {sql[:60]}") for sql in ON_BOTH + ON_POSTGRES),
]


@pytest.fixture(scope="module")
def attacked(
    sqlite_template: Path, postgres_database: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """One catalog each for all attacks: none of them may leave a trace."""
    file = tmp_path_factory.mktemp("attacked") / "catalog.db"
    file.write_bytes(sqlite_template.read_bytes())
    return {"sqlite": f"sqlite:///{file}", "postgres": postgres_database}


@pytest.mark.parametrize(("kind", "sql"), ATTACKS)
def test_what_does_more_is_refused(attacked: dict[str, str], kind: str, sql: str) -> None:
    url = attacked[kind]
    before = trace(url)
    with pytest.raises(Refused) as refused:
        query(url, sql, seconds=2.0)
    assert "\n" not in str(refused.value)
    assert trace(url) == before


@pytest.mark.parametrize("made", ["json_each", "json_tree"])
def test_a_table_that_a_function_makes_is_refused_with_what_does_it(
    attacked: dict[str, str], made: str
) -> None:
    with pytest.raises(Refused) as refused:
        query(attacked["sqlite"], f"select p.value from mesh_services s, {made}(s.ports) p")
    assert str(refused.value) == (
        f"{made} is a table of SQLite's own: only the mesh_… views are read;"
        " json_extract(column, '$.key') takes a value out of JSON"
    )
    taken = query(attacked["sqlite"], "select json_extract('{\"a\": [1, 2]}', '$.a[1]')")
    assert taken.rows == ((2,),)


def trace(url: str) -> object:
    """What an attack would leave behind: files beside it, or transactions, locks and tables."""
    if url.startswith("sqlite"):
        there = sorted(
            p.name for p in folder(url).iterdir() if not p.name.endswith(("-shm", "-wal"))
        )
        return there, (folder(url) / "catalog.db").read_bytes()
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as look:
        return look.execute(
            "select (select string_agg(s::text || s.xmin || s.ctid, '') from state s),"
            " (select count(*) from endpoints), (select last_value from changes_id_seq),"
            " (select count(*) from pg_locks where locktype = 'advisory'),"
            " (select count(*) from pg_class), (select count(*) from pg_largeobject_metadata)"
        ).fetchone()


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param(ENDLESS, id="an endless recursion"),
        pytest.param(f"select count(*) from {MANY}", id="a join without an end"),
        pytest.param(f"select e0.address from {MANY} order by e0.weight, e7.weight limit 1",
                     id="a sort of it"),
    ],
)  # fmt: skip
def test_what_has_no_end_ends_within_its_time(filled: str, sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(Refused, match=r"more than 0\.3 s"):
        query(filled, sql, seconds=0.3)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "sql",
    [
        "select instr(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || 'b')",
        "select replace(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || 'b', '')",
        "select trim(hex(zeroblob(4000000)), hex(zeroblob(2000000)))",
        "select printf('%.*c', 2000000000, 'x')",
        "select format('%2000000000d', 1)",
    ],
)
def test_one_call_that_would_take_hours_is_not_begun(sqlite_filled: str, sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(Refused, match="would take too long"):
        query(sqlite_filled, sql, seconds=0.3)
    assert time.monotonic() - began < 2


def test_the_same_functions_of_little_are_what_they_are(sqlite_filled: str) -> None:
    asked = "select instr('abc', 'c'), replace('abc', 'b', null), trim('xax', 'x'), trim(' a ')"
    assert query(sqlite_filled, f"{asked}, printf('%05.1f %s', 2.5, 'a')").rows == (
        (3, None, "a", "a", "002.5 a"),
    )


def test_a_postgres_that_does_not_heed_is_left_alone(postgres_filled: str) -> None:
    """It looks at nothing while it searches; this search takes about six seconds."""
    search = "select position('b' || repeat('a', 120000) in repeat('a', 240000))"
    began = time.monotonic()
    with pytest.raises(Refused, match=r"more than 0\.2 s, and was left alone"):
        query(postgres_filled, search, seconds=0.2)
    assert time.monotonic() - began < 4


def test_too_many_rows_are_refused_rather_than_left_out(filled: str) -> None:
    with pytest.raises(Refused, match="more than 39 rows"):
        query(filled, "select * from mesh_endpoints", rows=39)
    assert len(query(filled, "select * from mesh_endpoints", rows=40).rows) == 40


def test_too_many_bytes_are_refused(filled: str) -> None:
    big = "printf('%7000000d', 1)" if filled.startswith("sqlite") else "repeat('x', 7000000)"
    with pytest.raises(Refused, match="more than 64 MB"):
        query(filled, f"select {big} from mesh_endpoints", seconds=20.0)


async def test_reading_goes_on_while_the_catalog_is_written(filled: str) -> None:
    catalog = Catalog(filled)
    for weight in range(1, 4):
        web = Endpoint(ServiceName("web", "shop"), 80, "::1", 80, "w", "a", "a/a", weight=weight)
        await catalog.believe(Known("a", "a/a", endpoints=frozenset({web})), kind="", cause="")
        assert query(filled, "select weight from mesh_endpoints where provider = 'a'").rows == (
            (weight,),
        )
    catalog.close()


def test_a_mistake_is_not_taken_for_a_database_that_is_away(attacked: dict[str, str]) -> None:
    for url in attacked.values():
        with pytest.raises(Refused, match=r"no such column: ports|\"ports\" does not exist"):
            query(url, "select ports")


@pytest.mark.parametrize(
    "nowhere", ["sqlite:////nowhere/at/all.db", "postgresql://nobody@127.0.0.1:9/nothing"]
)
def test_a_database_that_is_not_there_is_away(nowhere: str) -> None:
    with pytest.raises(Away):
        query(nowhere, "select 1")


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(Away):
        query(f"sqlite:///{tmp_path}/none.db", "select 1")
    assert list(tmp_path.iterdir()) == []


def test_no_column_is_called_like_a_function_with_effects(postgres_filled: str) -> None:
    for view in VIEWS:
        columns = ", ".join(column.name for column in view.columns)
        query(postgres_filled, f"select {columns} from {view.name}")


def test_a_role_without_rights_reads_all_the_same(postgres_filled: str) -> None:
    address = make_url(postgres_filled)
    admin_url = address.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("drop role if exists plain")
        admin.execute("create role plain login")
        admin.execute("grant select on mesh_services to plain")
        try:
            plain = address.set(username="plain").render_as_string(hide_password=False)
            assert query(plain, "select name from mesh_services").rows == (("web",),)
            with pytest.raises(Refused, match="permission denied"):
                query(plain, "select * from mesh_endpoints")
        finally:
            admin.execute("revoke all on mesh_services from plain")
            admin.execute("drop role plain")


def test_every_word_that_could_name_a_function_is_found() -> None:
    assert names('select PG_Sleep(1), "Odd ""one" from x') >= {"pg_sleep", 'Odd "one', "x"}
