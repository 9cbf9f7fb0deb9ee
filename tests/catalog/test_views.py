"""The views say what ARCHITECTURE.md section 7 promises, alike on both databases and on paper."""

import asyncio
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from meshfed.catalog.dictionary import OPENING, QUESTIONS, dictionary
from meshfed.catalog.model import (
    Backend,
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Known,
    ObjectName,
    Platform,
    Port,
    Protocol,
    Rejected,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    Specified,
    TcpRoute,
    TrafficSplit,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.ranges import Ranges
from meshfed.catalog.reader import query
from meshfed.catalog.reports import CertificateState, ProxyState, Reaches, Receipt
from meshfed.catalog.store import Catalog
from meshfed.catalog.traffic import Edge, Load
from meshfed.catalog.viewing import READER
from meshfed.catalog.views import VIEWS

ROOT = Path(__file__).parents[2]
NOON = 1795435200.0  # 2026-11-23T12:00:00Z
BOOKSTORE = ServiceName("bookstore", "shop")
STORE = Identity("bookstore", "shop")
BUYER = Identity("bookbuyer", "shop")
HOST = Workload("store-1", "rack", "rack/a", identity=STORE, addresses=("10.0.0.1",))


def endpoint(address: str, **given: object) -> Endpoint:
    fields: dict[str, object] = {
        "service": BOOKSTORE,
        "port": 80,
        "address": address,
        "target": 8080,
        "workload": HOST.id,
        "provider": "rack",
        "scope": "rack/a",
        "identity": STORE,
    }
    return Endpoint(**fields | given)  # type: ignore[arg-type]  # fields by name


@pytest.fixture(scope="module")
def shop(shared_url: str) -> str:
    """A catalog in which every view has something to say."""
    asyncio.run(open_shop(shared_url))
    return shared_url


async def open_shop(url: str) -> None:
    catalog = Catalog(url, clock=lambda: NOON)
    calls = Edge("bookstore.shop", "bookstore.shop", "v2.shop", "azure", "eu/1")
    await catalog.count("here", {("2026-11-23T13:05:00.000Z", calls): Load(200, 3, 1)})
    gone = endpoint("10.0.0.3", port=5432, target=5432)
    rack = Known(
        "rack",
        "rack/a",
        frozenset({Service(BOOKSTORE, (Port(80, "http"), Port(5432, "sql", Protocol.TCP)))}),
        frozenset({HOST}),
        frozenset({endpoint("10.0.0.1", health=Health.UNHEALTHY), gone,
                   endpoint("fd00::2", interception=Interception.NONE)}),
        doubt="1 of 3 vanished",
        stale=frozenset({gone.key}),
    )  # fmt: skip
    other = endpoint("10.0.0.1", provider="vms", scope="vms/a")
    cloud = endpoint("10.1.0.1", provider="vms", scope="vms/a", platform=Platform.AZURE)
    ranges = Ranges.parse("240.240.0.0/16")
    await catalog.configure("shop.example", permissive=False, virtual_ranges=ranges)
    await catalog.believe(rack, kind="hosts", cause="hosts.yaml changed")
    await catalog.believe(
        Known("vms", "vms/a", endpoints=frozenset({other, cloud})),
        kind="hosts",
        cause="",
        who="ann",
    )
    await catalog.specify(SPECIFIED)
    proxy = ProxyState(HOST.id, STORE, "store-1", NOON, "rejecting", "LDS: no", "1.40.0", 3, kind=1)
    reaches = Reaches(1, frozenset({("bookstore.shop|80", 0, "bookstore.shop", 2, "v1")}))
    receipt = Receipt(HOST.id, "LDS", "v2", NOON, NOON, "no")
    await catalog.record("one", 4, [proxy], [], [receipt], [reaches])
    certificate = CertificateState(STORE, BOOKSTORE, "local", "claimed", "01", NOON, NOON + 86400)
    await catalog.certify([certificate])
    catalog.close()


def rule(kind: str, name: str, *matches: str) -> Rule:
    return Rule(kind, name, matches)


def target(name: str, *rules: Rule) -> TrafficTarget:
    return TrafficTarget(ObjectName("shop", name), STORE, frozenset({BUYER}), rules)


SPECIFIED = Specified(
    "files:policy",
    (
        (target("http", rule("HTTPRouteGroup", "books", "buy")), "a.yaml:1"),
        (target("tcp", rule("TCPRoute", "sql")), "a.yaml:9"),
        (
            RouteGroup(
                ObjectName("shop", "books"),
                (
                    HttpMatch("buy", "/buy", frozenset({"POST", "GET"}), (("x", "y.*"),)),
                    HttpMatch("other"),
                ),
            ),
            "a.yaml:20",
        ),
        (TcpRoute(ObjectName("shop", "sql"), frozenset({5432, 9999})), "a.yaml:30"),
        (
            TrafficSplit(
                ObjectName("shop", "canary"),
                BOOKSTORE,
                (Backend(ServiceName("gone", "shop"), 3), Backend(ServiceName("v2", "shop"), 1)),
            ),
            "a.yaml:40",
        ),
    ),
    ((ObjectName("shop", "bad"), "TrafficSplit", Rejected("b.yaml:3", "spec.service", "empty")),),
)


# The table of ARCHITECTURE.md section 7.
PROMISED = {
    "mesh_services": "service namespace name ports protocol vip platforms endpoints healthy"
    " identities plaintext since revision",
    "mesh_virtual_ips": "service addresses since revision",
    "mesh_endpoints": "service address port reached_at platform provider scope cluster network"
    " region zone weight priority health health_reason identity workload interception mtls stale"
    " doubt conflict since revision",
    "mesh_workloads": "name platform resource_id identity services addresses joined_by joined_at"
    " lease_until proxy state reason",
    "mesh_policies": "kind namespace name source state field reason revision",
    "mesh_access": "source_identity destination_service destination_identity protocol port"
    " methods path headers policy",
    "mesh_splits": "service backend weight share matches policy",
    "mesh_identities": "identity services workloads certificate_not_after",
    "mesh_certificates": "identity service issuer state serial not_before not_after",
    "mesh_proxies": "proxy identity workload replica connected_since state reason envoy_version",
    "mesh_proxy_sync": "proxy type sent_version acked_version sent_at acked_at nack nack_at",
    "mesh_clusters": "proxy cluster service priority endpoints version",
    "mesh_providers": "provider type scope state last_good age_s endpoints doubt reason",
    "mesh_traffic": "minute source_identity service version platform zone requests failed"
    " in_flight",
    "mesh_changes": "revision at what object change provider who cause",
}
PROMISED["mesh_endpoint_history"] = (
    PROMISED["mesh_endpoints"]
    + " valid_from_revision valid_from valid_to_revision valid_to change cause"
)


LIVED = "valid_from_revision valid_from valid_to_revision valid_to change cause"
PROMISED |= {
    "mesh_service_history": f"service ports vip plaintext {LIVED}",
    "mesh_virtual_ip_history": f"service addresses {LIVED}",
    "mesh_workload_history": f"name platform provider scope resource_id identity addresses {LIVED}",
    "mesh_policy_history": f"kind namespace name source state field reason document {LIVED}",
    "mesh_provider_history": "provider type scope state doubt reason valid_from valid_to cause",
}


@pytest.mark.parametrize("view", PROMISED)
def test_a_view_has_exactly_the_promised_columns(shop: str, view: str) -> None:
    assert query(shop, f"select * from {view}").columns == tuple(PROMISED[view].split())


def test_no_view_is_missing() -> None:
    assert {view.name for view in VIEWS} == set(PROMISED)


SAYS = [
    pytest.param(
        "select service, ports, protocol, platforms, endpoints, healthy, identities from"
        " mesh_services",
        [
            (
                "bookstore.shop",
                "80/http, 5432/sql",
                "http, tcp",
                "azure, host",
                4,
                3,
                "bookstore.shop",
            )
        ],
        id="services count their endpoints and list their ports",
    ),
    pytest.param(
        "select reached_at, mtls, stale, conflict from mesh_endpoints order by reached_at",
        [
            ("10.0.0.1:15003", True, False, "vms claims it too"),
            ("10.0.0.3:15003", True, True, ""),
            ("10.1.0.1:15003", True, False, ""),
            ("[fd00::2]:8080", False, False, ""),
        ],
        id="endpoints say what callers dial, and whether that is mutual TLS",
    ),
    pytest.param(
        "select since, revision, valid_to from mesh_endpoint_history where conflict <> ''",
        [("2026-11-23T12:00:00.000Z", 3, None)],
        id="times are ISO-8601 in UTC",
    ),
    pytest.param(
        "select name, services, addresses, proxy is not null, joined_by from mesh_workloads",
        [("store-1", "bookstore.shop", "10.0.0.1", True, None)],
        id="workloads list what they answer for",
    ),
    pytest.param(
        "select name, field, reason from mesh_policies where state = 'rejected'",
        [("bad", "spec.service", "b.yaml:3: empty")],
        id="rejected policies say where and why",
    ),
    pytest.param(
        "select source_identity, protocol, port, methods, path, headers, policy from mesh_access"
        " order by port",
        [
            ("bookbuyer.shop", "http", 80, "GET, POST", "/buy", "x: y.*", "shop/http"),
            ("bookbuyer.shop", "tcp", 5432, "", "", "", "shop/tcp"),
        ],
        id="access is by the ports there are, as their protocols allow",
    ),
    pytest.param(
        "select backend, weight, share from mesh_splits order by 1",
        [("gone.shop", 3, None), ("v2.shop", 1, None)],
        id="backends that do not exist have no share",
    ),
    pytest.param(
        "select * from mesh_identities",
        [("bookstore.shop", "bookstore.shop", "store-1", "2026-11-24T12:00:00.000Z")],
        id="identities list services, workloads and when a certificate ends",
    ),
    pytest.param(
        "select cluster, endpoints, nack from mesh_clusters c join mesh_proxy_sync s"
        " on s.proxy = c.proxy",
        [("bookstore.shop|80", 2, "no")],
        id="proxies say what they were sent and what they answered",
    ),
    pytest.param(
        "select provider, type, state, endpoints, doubt, age_s is null from mesh_providers"
        " order by 1",
        [
            ("files:policy", "specification", "good", 0, "", False),
            ("rack", "hosts", "doubted", 3, "1 of 3 vanished", True),
            ("vms", "hosts", "good", 2, "", False),
        ],
        id="providers say how they fare",
    ),
    pytest.param(
        "select change, who from mesh_changes where provider = 'vms' and what = 'endpoint'",
        [("joined", "ann"), ("joined", "ann")],
        id="changes say who asked",
    ),
    pytest.param(
        "select service, ports, vip, plaintext, valid_from_revision, valid_to, change from"
        " mesh_service_history",
        [
            (
                "bookstore.shop",
                '[[80, "http", "http", null, null], [5432, "sql", "tcp", null, null]]',
                "",
                False,
                2,
                None,
                "joined",
            )
        ],
        id="services have a history, with their ports",
    ),
    pytest.param(
        "select name, provider, scope, identity, change, cause from mesh_workload_history",
        [("store-1", "rack", "rack/a", "bookstore.shop", "joined", "hosts.yaml changed")],
        id="workloads have one",
    ),
    pytest.param(
        "select name, state, change, document from mesh_policy_history where kind = 'TCPRoute'",
        [("sql", "accepted", "joined", "[5432, 9999]")],
        id="policies have one, with what they said",
    ),
    pytest.param(
        "select provider, state, doubt, reason, valid_to from mesh_provider_history order by 1",
        [
            ("files:policy", "good", "", "", None),
            ("rack", "doubted", "1 of 3 vanished", "", None),
            ("vms", "good", "", "", None),
        ],
        id="and providers, with their doubts",
    ),
]


@pytest.mark.parametrize(("sql", "rows"), SAYS)
def test_what_the_views_say(shop: str, sql: str, rows: list[tuple[object, ...]]) -> None:
    assert list(query(shop, sql).rows) == rows


@pytest.mark.parametrize(("question", "sql"), QUESTIONS, ids=[q for q, _ in QUESTIONS])
def test_every_question_of_the_dictionary_is_answered(shop: str, question: str, sql: str) -> None:
    assert query(shop, sql).rows


def plainly(url: str, sql: str) -> int:
    """How many rows the database's own program answers; on Postgres as the reader."""
    if url.startswith("sqlite"):
        command = ["sqlite3", "-readonly", url.removeprefix("sqlite:///"), sql]
    else:
        address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        command = ["psql", "-qAtX", address, "-c", f"set role {READER}", "-c", sql]
        if not shutil.which("psql"):
            with psycopg.connect(address) as connection:
                connection.execute(f"set role {READER}")
                return len(connection.execute(sql.encode()).fetchall())
    if not shutil.which(command[0]):
        pytest.skip("the sqlite3 program is not installed")
    ran = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert ran.returncode == 0, ran.stderr
    return len(ran.stdout.splitlines())


@pytest.mark.parametrize(("question", "sql"), QUESTIONS, ids=[q for q, _ in QUESTIONS])
def test_plain_programs_answer_every_question(shop: str, question: str, sql: str) -> None:
    assert plainly(shop, sql) == len(query(shop, sql).rows)


HOUR = {"sqlite": "SQLite", "postgresql+psycopg": "Postgres"}


def test_an_hour_ago_is_as_the_page_says(shop: str) -> None:
    name = HOUR[make_url(shop).drivername]
    told = re.search(rf"`([^`]+)`\s+for\s+{name}", OPENING)
    assert told
    ((then,),) = query(shop, f"select {told[1]}").rows
    ago = datetime.now(UTC) - datetime.fromisoformat(str(then))
    assert timedelta(minutes=59) < ago < timedelta(minutes=61)


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="the sqlite3 program is not installed")
def test_the_views_need_nothing_but_sqlite3(sqlite_url: str) -> None:
    file = sqlite_url.removeprefix("sqlite:///")
    for view in VIEWS:
        asked = ["sqlite3", "-readonly", file, f"select * from {view.name}"]
        subprocess.run(asked, check=True, capture_output=True, timeout=10)


def test_postgres_knows_every_comment(postgres_database: str) -> None:
    for view in VIEWS:
        asked = (
            "select obj_description(c.oid), a.attname, col_description(c.oid, a.attnum)"
            " from pg_class c join pg_attribute a on a.attrelid = c.oid"
            f" where c.relname = '{view.name}' and a.attnum > 0 order by a.attnum"
        )
        told = query(postgres_database, asked).rows
        wanted = [(view.comment, column.name, column.comment) for column in view.columns]
        assert list(told) == wanted


def test_every_column_has_one_line_of_comment() -> None:
    for view in VIEWS:
        for column in view.columns:
            assert column.comment
            assert "\n" not in column.comment


def test_the_dictionary_on_paper_is_the_one_in_the_code() -> None:
    assert (ROOT / "docs" / "sql.md").read_text() == dictionary(), (
        "run: .venv/bin/python -m meshfed.catalog.dictionary > docs/sql.md"
    )
