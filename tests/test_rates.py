"""What is measured agrees with what was done: real Envoys, a load of known rates, known errors."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import live
import promql
import pytest
import pytest_asyncio
import yaml
from applications import echo, listening, read_request

from meshfed.catalog.reader import query
from meshfed.federation.cli.top import since
from meshfed.federation.demo.control import until
from meshfed.xds.loads import INTERVAL
from meshfed.xds.measured import METRICS_PORT, PATH

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRAFANA = Path(__file__).parent.parent / "deploy" / "grafana"
CALLER, A, B = "127.0.13.1", "127.0.13.2", "127.0.13.3"
WEB, SQL, LOCAL = 14301, 14302, 13316

HOSTS = f"""\
services:
  shop.kpi:   {{ports: {{http: {{number: 8080, target: {WEB}}}}}}}
  shop-a.kpi: {{ports: {{http: {{number: 8080, target: {WEB}}}}}}}
  shop-b.kpi: {{ports: {{http: {{number: 8080, target: {WEB}}}}}}}
  sql.kpi:    {{ports: {{sql: {{number: 3306, target: {SQL}, local: {LOCAL}}}}}, protocol: tcp}}
hosts:
  - {{name: caller, identity: caller.kpi, address: {CALLER}, bind: {CALLER}, application: {CALLER}}}
  - {{name: a, identity: a.kpi, service: [shop-a.kpi, sql.kpi], platform: vm, locality: eu/1,
     address: {A}, bind: {A}, application: {A}}}
  - {{name: b, identity: b.kpi, service: shop-b.kpi, locality: eu/2,
     address: {B}, bind: {B}, application: {B}}}
"""
SPLIT = """\
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata: {name: shop, namespace: kpi}
spec: {service: shop, backends: [{service: shop-a, weight: 75}, {service: shop-b, weight: 25}]}
"""

RATE, SECONDS = 100, 3  # requests a second, and for how long
ONE_BAD_IN = 10
DIRECT = 40  # requests to a backend by its own name
CLOSE = 0.02

Edge = tuple[str, str]  # service and version


class Shop:
    """An HTTP server that fails when it is asked to, and counts."""

    def __init__(self) -> None:
        self.answered: Counter[bool] = Counter()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            good = request.path != "/bad"
            if "asked-for" in request.headers:
                self.answered[good] += 1
            status = b"200 OK" if good else b"500 Broken"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()


@dataclass
class Done:
    """What the load was, and everything that was measured of it."""

    mesh: live.Mesh
    truth: dict[Edge, tuple[int, int]] = field(default_factory=dict)  # requests, and failed
    scrapes: list[promql.Scrape] = field(default_factory=list)
    top: list[dict[str, object]] = field(default_factory=list)
    top_seconds: tuple[float, float] = (0.0, 0.0)  # of which its rates are, at least and at most

    @property
    def url(self) -> str:
        return f"sqlite:///{self.mesh.folder}/meshfed.db"

    def traffic(self) -> dict[Edge, tuple[int, int]]:
        asked = (
            "select service, version, sum(requests), sum(failed) from mesh_traffic"
            " where source_identity = 'caller.kpi' group by service, version"
        )
        return {(row[0], row[1]): (row[2], row[3]) for row in query(self.url, asked).rows}

    async def scrape(self) -> None:
        pages = [await metrics(address) for address in (CALLER, A, B)]
        _, own = await self.mesh.control.get("/metrics")
        self.scrapes.append(promql.Scrape.of(time.time(), *pages, own))

    def asked(self, expr: str) -> promql.Vector:
        return promql.Between(*self.scrapes).answer(expr)


async def metrics(address: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        got = await client.get(f"http://{address}:{METRICS_PORT}{PATH}")
        assert got.status_code == 200
        return got.text


async def load(sidecar: live.Sidecar) -> None:
    """RATE requests a second whatever the answers take, each hundredth of a second one."""
    async with sidecar.http() as client, asyncio.TaskGroup() as tasks:
        began = time.monotonic()
        for n in range(RATE * SECONDS):
            path = "/bad" if n % ONE_BAD_IN == 0 else "/"
            headers = {"host": "shop.kpi", "asked-for": "shop"}
            tasks.create_task(client.get(path, headers=headers))
            await asyncio.sleep(max(0.0, began + (n + 1) / RATE - time.monotonic()))
        for _ in range(DIRECT):
            await client.get("/", headers={"host": "shop-a.kpi"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def done(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Done]:
    folder = tmp_path_factory.mktemp("rates")
    shops = {"shop-a.kpi": Shop(), "shop-b.kpi": Shop()}
    async with AsyncExitStack() as stack:
        for address, shop in zip((A, B), shops.values(), strict=True):
            await stack.enter_async_context(listening(shop, address, WEB))
        await stack.enter_async_context(listening(echo, A, SQL))
        mesh = live.Mesh(folder, HOSTS, {"split.yaml": SPLIT})
        mesh.permit(everything=True)
        stack.callback(mesh.end)
        await mesh.serve()
        await mesh.start("caller", "a", "b")
        done = Done(mesh)
        await done.scrape()
        await load(mesh.sidecars["caller"])
        for _ in range(3):
            assert await live.answer(b"hello", CALLER, LOCAL) == b"hello"
        for version, shop in shops.items():
            done.truth["shop.kpi", version] = (shop.answered.total(), shop.answered[False])
        done.truth["shop-a.kpi", ""] = (DIRECT, 0)
        done.truth["sql.kpi", ""] = (3, 0)

        async def told() -> bool:
            sums = done.traffic()
            return sum(n for n, _ in sums.values()) >= sum(n for n, _ in done.truth.values())

        await until("the last report of what was done", told)
        await done.scrape()
        await asked_for_once(done)
        yield done


async def asked_for_once(done: Done) -> None:
    main = (sys.executable, "-m", "meshfed.federation.cli.main")
    asked = datetime.now(UTC)
    ran = await asyncio.create_subprocess_exec(
        *(*main, "top", "-o", "json", "--catalog", done.url), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await ran.communicate()
    at = datetime.now(UTC)
    if since(at) != since(asked):  # a minute ended meanwhile, and nobody knows if before its look
        await asked_for_once(done)
    else:
        done.top = json.loads(out)
        done.top_seconds = (asked - since(at)).total_seconds(), (at - since(at)).total_seconds()


async def test_the_load_was_what_it_should_be(done: Done) -> None:
    shop = [counts for (service, _), counts in done.truth.items() if service == "shop.kpi"]
    assert sum(n for n, _ in shop) == RATE * SECONDS
    assert sum(failed for _, failed in shop) == RATE * SECONDS / ONE_BAD_IN
    assert all(n > 0 for n, _ in shop)


async def test_the_view_has_each_call_once_by_service_and_version(done: Done) -> None:
    assert done.traffic() == done.truth


async def test_the_view_says_where_it_was_answered(done: Done) -> None:
    asked = "select distinct service, version, platform, zone from mesh_traffic order by 1, 2"
    assert query(done.url, asked).rows == (
        ("shop-a.kpi", "", "vm", "eu/1"),
        ("shop.kpi", "shop-a.kpi", "vm", "eu/1"),
        ("shop.kpi", "shop-b.kpi", "host", "eu/2"),
        ("sql.kpi", "", "vm", "eu/1"),
    )


async def test_the_view_has_all_that_ended_as_ended(done: Done) -> None:
    """In its newest minute: when an earlier one was over, something may have been under way."""
    newest = (
        "select t.* from mesh_traffic t where in_flight <> 0 and minute = (select max(u.minute)"
        " from mesh_traffic u where u.source_identity = t.source_identity"
        " and u.service = t.service and u.version = t.version)"
    )
    assert query(done.url, newest).rows == ()


# The dashboard


def panels() -> dict[str, list[str]]:
    """The queries of each panel, by its title."""
    made = json.loads((GRAFANA / "meshfed.json").read_text())
    drawn = [each for each in made["panels"] if each["type"] != "row"]
    return {each["title"]: [target["expr"] for target in each["targets"]] for each in drawn}


def alerts() -> dict[str, str]:
    groups = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


EVERY = {**panels(), **{name: [expr] for name, expr in alerts().items()}}
# A kind of response of which there was none has no series yet.
NOTHING_YET = {"meshfed_nacks_total"}


def by_edge(found: promql.Vector, source: str = "caller.kpi") -> dict[Edge, float]:
    """What the dashboard draws a line for, apart from TCP and from edges without a call."""
    named = {tuple(sorted(where)): value for where, value in found.items() if value == value}
    edges: dict[Edge, float] = {}
    for where, value in named.items():
        labels = dict(where)
        if labels["identity"] == source and value:
            edges[labels["service"], labels.get("version", "")] = value
    return edges


@pytest.mark.parametrize("title", EVERY)
async def test_every_query_is_of_metrics_that_there_are(done: Done, title: str) -> None:
    for expr in EVERY[title]:
        for selector in promql.selectors(expr):
            assert selector.name in done.scrapes[1].names, f"{selector} is measured by nobody"
            assert done.scrapes[1].select(selector) or selector.name in NOTHING_YET, selector


async def test_the_dashboard_agrees_with_what_was_done(done: Done) -> None:
    seconds = done.scrapes[1].at - done.scrapes[0].at
    (requests,), (failed,), (success,) = (
        panels()[title] for title in ("Requests per second", "Failed per second", "Success")
    )
    of = {edge: counts for edge, counts in done.truth.items() if edge[0] != "sql.kpi"}
    drawn = {edge: seconds * each for edge, each in by_edge(done.asked(requests)).items()}
    assert drawn == pytest.approx({edge: n for edge, (n, _) in of.items()}, rel=CLOSE)
    drawn = {edge: seconds * each for edge, each in by_edge(done.asked(failed)).items()}
    assert drawn == pytest.approx({edge: bad for edge, (_, bad) in of.items() if bad}, rel=CLOSE)
    drawn = by_edge(done.asked(success))
    assert drawn == pytest.approx({edge: 1 - bad / n for edge, (n, bad) in of.items()}, rel=CLOSE)


async def test_the_control_plane_agrees_with_what_was_done(done: Done) -> None:
    seconds = done.scrapes[1].at - done.scrapes[0].at
    requests, failed, reports = (
        sum(done.asked(expr).values()) * seconds for expr in panels()["Calls reported per second"]
    )
    assert requests == pytest.approx(sum(n for n, _ in done.truth.values()), rel=CLOSE)
    assert failed == pytest.approx(sum(bad for _, bad in done.truth.values()), rel=CLOSE)
    assert reports >= 1


async def test_top_agrees_with_what_was_done(done: Done) -> None:
    told = {(row["service"], row["version"]): row for row in done.top}
    assert told.keys() == done.truth.keys()
    for edge, (requests, failed) in done.truth.items():
        rate, margin = float(str(told[edge]["requests_per_second"])), max(1, CLOSE * requests)
        least, most = (rate * seconds for seconds in done.top_seconds)
        assert least - margin <= requests <= most + margin  # printed with two digits
        success = 100 * (1 - failed / requests)
        assert told[edge]["success_percent"] == pytest.approx(success, rel=CLOSE)


# Port 15010


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/stats"),
        ("GET", "/config_dump"),
        ("GET", "/certs"),
        ("POST", "/quitquitquit"),
        ("POST", PATH),
        ("GET", f"{PATH}/"),
        ("GET", f"{PATH}/../../config_dump"),
        ("GET", f"{PATH}%2f..%2f..%2fconfig_dump"),
        ("GET", f"/{PATH}"),
    ],
)
async def test_nothing_else_of_the_admin_interface_is_shown(done: Done, method: str, path: str):
    said = f"{method} {path} HTTP/1.1\r\nhost: {CALLER}\r\nconnection: close\r\n\r\n"
    got = await live.answer(said.encode(), CALLER, METRICS_PORT)
    assert got.startswith(b"HTTP/1.1 404 "), got
    done.mesh.sidecars["caller"].process.running()


async def test_it_is_bound_as_the_mesh_s_own_port_is(done: Done) -> None:
    for address in (CALLER, A, B):  # three on one machine
        assert "envoy_server_live" in await metrics(address)
    assert await live.refuses("127.0.0.1", METRICS_PORT)


# The control plane comes and goes: the last of these tests, for it is the same mesh


@pytest.mark.soak
async def test_a_control_plane_that_was_away_counts_nothing_twice(done: Done) -> None:
    """What is lost is what sidecars told nobody: they try every 5 s, and forget it each time."""
    moments: list[float] = []  # when each call was made

    async def call(seconds: float) -> None:
        async with done.mesh.sidecars["caller"].http() as client:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await client.get("/", headers={"host": "shop-b.kpi"})
                moments.append(time.monotonic())
                await asyncio.sleep(0.01)

    await call(7)
    ended = time.monotonic()
    done.mesh.process.end()
    await asyncio.gather(done.mesh.serve(), call(1))
    served = time.monotonic()
    await call(7)
    await asyncio.sleep(25)  # an attempt, a report, and nothing after it
    counted, _ = done.traffic()["shop-b.kpi", ""]
    first_attempt = ended + 5 > served
    lost = 0 if first_attempt else sum(ended - INTERVAL <= at <= served for at in moments)
    assert len(moments) - lost <= counted <= len(moments)
