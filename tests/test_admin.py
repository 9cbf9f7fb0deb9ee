"""What an operator asks a running control plane, over real HTTP."""

import asyncio
import io
import json
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
import structlog
from answering import Running, answering
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from meshfed.catalog.model import Identity
from meshfed.catalog.reports import ProxyState
from meshfed.federation.admin import logs
from meshfed.federation.admin.app import app, bound, health, is_local_name, unsettled
from meshfed.federation.admin.aside import Home
from meshfed.federation.admin.metrics import Certificates, Metrics, Reason
from meshfed.federation.propagation import Propagation

NOW = 1_800_000_000.0


def proxy(workload: str = "store-1", behind: int | None = None) -> ProxyState:
    return ProxyState(
        "0123456789abcdef", Identity("bookstore", "shop"), workload, NOW, behind=behind
    )


@asynccontextmanager
async def asking(
    standing: Running, registry: CollectorRegistry | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    async with answering(app(standing, registry or CollectorRegistry(), Home())) as client:
        yield client


async def test_it_is_alive_while_the_loop_answers_even_when_it_is_not_ready() -> None:
    async with asking(Running(reasons=("rack: not observed yet",))) as admin:
        alive, ready = await admin.get("/healthz"), await admin.get("/readyz")
    assert (alive.status_code, alive.text) == (200, "ok\n")
    assert ready.status_code == 503
    assert ready.json() == {
        "ready": False,
        "reasons": ["rack: not observed yet"],
        "degraded": [],
        "replica": "here-1",
        "leader": "there-2",
    }


async def test_what_fails_is_named_though_the_rest_serves() -> None:
    async with asking(Running(doing_without=("rack: hosts.yaml is gone",))) as admin:
        ready = await admin.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["degraded"] == ["rack: hosts.yaml is gone"]


async def test_who_is_elsewhere_reads_health_and_metrics_and_nothing_else() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    async with answering(health(Running(connected=(proxy(),)), registry, Home())) as window:
        alive, ready = await window.get("/healthz"), await window.get("/readyz")
        metrics = await window.get("/metrics")
        others = [
            await window.request(method, path)
            for method, path in (
                ("GET", "/v1/proxies"),
                ("GET", "/v1/revisions/current"),
                ("GET", "/openapi.json"),
                ("POST", "/v1/workloads"),
            )
        ]
        written = [await window.request(verb, "/metrics") for verb in ("POST", "PUT", "DELETE")]
    assert (alive.text, ready.json()["ready"]) == ("ok\n", True)
    assert "meshfed_" in metrics.text
    assert {answer.status_code for answer in others} == {404}
    assert {answer.status_code for answer in written} == {405}
    kinds = {answer.headers["content-type"] for answer in (*others, *written)}
    assert kinds == {"application/problem+json"}


async def test_a_revision_that_everyone_has_is_told_with_its_times() -> None:
    reached = Propagation(7, committed_at=NOW, last_ack_at=NOW + 0.25, proxies=8)
    async with asking(Running(reached=reached)) as admin:
        current = await admin.get("/v1/revisions/current")
        answer = await admin.get("/v1/revisions/7")
    assert current.json() == {"revision": 7}
    assert answer.json() == {
        "revision": 7,
        "committed_at": NOW,
        "last_ack_at": NOW + 0.25,
        "proxies": 8,
        "ms": 250.0,
    }


async def test_a_revision_that_someone_lacks_is_not_found_and_says_so() -> None:
    async with asking(Running(connected=(proxy(), proxy("store-2", behind=7)))) as admin:
        answer = await admin.get("/v1/revisions/7")
    assert answer.status_code == 404
    why = "1 of 2 proxies do not have it yet"
    told = answer.json()
    assert (told["revision"], told["reason"], told["detail"]) == (7, why, why)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "detail"),
    [
        pytest.param("GET", "/v1/nothing", {}, 404, "nothing is at /v1/nothing", id="no page"),
        pytest.param("POST", "/v1/proxies", {}, 405, "POST is not done there", id="no method"),
        pytest.param("GET", "/v1/revisions/7", {}, 404, "not measured", id="no revision"),
        pytest.param("GET", "/v1/revisions/x", {}, 422, "path.revision", id="no number"),
        pytest.param(
            "GET", "/healthz", {"host": "evil.example"}, 421, "host: ", id="no name of us"
        ),
    ],
)
async def test_whoever_is_refused_is_told_why_as_problem_details(
    method: str, path: str, headers: dict[str, str], status: int, detail: str
) -> None:
    async with asking(Running()) as admin:
        refused = await admin.request(method, path, headers=headers)
    told = refused.json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.status_code, told["status"]) == (status, status)
    assert detail in told["detail"]
    assert ("allow" in refused.headers) == (status == 405)


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        pytest.param("", 0.0, id="without being asked to wait it answers at once"),
        pytest.param("?wait=2.5", 2.5, id="it waits as long as it is asked to"),
        pytest.param("?wait=100000", 60.0, id="it never waits longer than a minute"),
    ],
)
async def test_waiting_for_a_revision(asked: str, waited: float) -> None:
    standing = Running()
    async with asking(standing) as admin:
        await admin.get(f"/v1/revisions/7{asked}")
    assert standing.waited == waited


@pytest.mark.parametrize("asked", ["newest", "7?wait=-1", "7?wait=nan", "7?wait=soon"])
async def test_nonsense_is_refused_with_a_reason(asked: str) -> None:
    async with asking(Running()) as admin:
        answer = await admin.get(f"/v1/revisions/{asked}")
    assert answer.status_code == 422
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("proxies", "newest", "why"),
    [
        pytest.param((), 6, "not committed yet: the newest revision is 6", id="one to come"),
        pytest.param((proxy(behind=3),), 7, "1 of 1 proxies do not have it yet", id="one behind"),
        pytest.param(
            (proxy(behind=8),),
            9,
            "not measured: every proxy has it, from before this control plane started",
            id="one that was reached by an earlier process",
        ),
    ],
)
def test_why_nothing_is_said_of_a_revision(
    proxies: tuple[ProxyState, ...], newest: int, why: str
) -> None:
    assert unsettled(7, newest, proxies) == why


async def test_proxies_are_listed_with_their_states() -> None:
    rejecting = replace(proxy(), state="rejecting", reason="LDS: no such filter")
    async with asking(Running(connected=(rejecting,))) as admin:
        (listed,) = (await admin.get("/v1/proxies")).json()
    assert listed["workload"] == "store-1"
    assert listed["identity"] == "bookstore.shop"
    assert (listed["state"], listed["reason"]) == ("rejecting", "LDS: no such filter")


async def test_the_api_describes_itself() -> None:
    async with asking(Running()) as admin:
        described = (await admin.get("/openapi.json")).json()
    assert {"/healthz", "/readyz", "/metrics", "/v1/revisions/{revision}"} <= set(
        described["paths"]
    )


async def test_a_web_page_that_points_its_name_at_this_machine_reads_nothing() -> None:
    async with asking(Running()) as admin:
        rebound = await admin.get("/v1/proxies", headers={"host": "evil.example:15080"})
        local = await admin.get("/v1/proxies", headers={"host": "localhost:15080"})
    assert rebound.status_code == 421
    assert "use localhost" in rebound.text
    assert local.status_code == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST.:15080", True),
        ("127.0.0.1:15080", True),
        ("10.0.0.7", True),
        ("[::1]:15080", True),
        ("[::1]", True),
        ("evil.example", False),
        ("localhost.evil.example:80", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_which_host_names_can_only_mean_this_machine(host: str, local: bool) -> None:
    assert is_local_name(host) is local


async def test_a_taken_port_is_one_line_that_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            OSError, match=rf"^admin\.listen: cannot listen on {address}: another process has"
        ):
            bound(address)


async def test_serving_leaves_signals_to_those_who_handle_them() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with asking(Running()) as admin:
        await admin.get("/healthz")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_what_is_measured_is_scraped() -> None:
    registry = CollectorRegistry()
    clock = iter([NOW + 30, NOW + 31, NOW + 32, NOW + 33])
    metrics = Metrics(registry, clock=lambda: next(clock))
    metrics.propagated(0.004)
    metrics.pushed("CDS", 3, 1500)
    metrics.pushed("CDS", 1, 500)
    metrics.rejected("LDS")
    metrics.refused(Reason.WORKLOAD)
    metrics.connected(8)
    metrics.reached(12)
    metrics.away(away=True)
    metrics.provider("rack", last_good=NOW, doubts=1, endpoints=6)
    metrics.certificates(Certificates.WORKLOAD, issued=NOW - 60, expires=NOW + 86_400)
    async with asking(Running(), registry) as admin:
        scraped = await admin.get("/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(scraped.text)
        for sample in family.samples
    }
    assert samples["meshfed_propagation_seconds_count",] == 1
    assert samples["meshfed_propagation_seconds_bucket", "0.005"] == 1
    assert samples["meshfed_pushes_total", "CDS"] == 2
    assert samples["meshfed_pushed_resources_total", "CDS"] == 4
    assert samples["meshfed_pushed_bytes_total", "CDS"] == 2000
    assert samples["meshfed_nacks_total", "LDS"] == 1
    assert samples["meshfed_streams_refused_total", "workload"] == 1
    assert samples["meshfed_connected_proxies",] == 8
    assert samples["meshfed_revision",] == 12
    assert samples["meshfed_catalog_away",] == 1
    assert samples["meshfed_provider_age_seconds", "rack"] >= 30
    assert samples["meshfed_provider_doubts", "rack"] == 1
    assert samples["meshfed_provider_endpoints", "rack"] == 6
    assert samples["meshfed_certificate_age_seconds", "workload"] >= 90
    assert 0 < samples["meshfed_certificate_remaining_seconds", "workload"] < 86_400


def test_a_silent_provider_grows_older_between_scrapes() -> None:
    registry = CollectorRegistry()
    now = NOW
    Metrics(registry, clock=lambda: now).provider("rack", last_good=NOW, doubts=0, endpoints=0)
    now = NOW + 5
    assert registry.get_sample_value("meshfed_provider_age_seconds", {"provider": "rack"}) == 5


def test_a_provider_that_never_answered_has_no_age() -> None:
    registry = CollectorRegistry()
    Metrics(registry).provider("rack", last_good=None, doubts=1, endpoints=0)
    sample = registry.get_sample_value
    assert sample("meshfed_provider_age_seconds", {"provider": "rack"}) is None
    assert sample("meshfed_provider_doubts", {"provider": "rack"}) == 1


def test_no_metric_has_a_label_that_grows_with_the_mesh() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    labels = {
        label
        for collector in registry._collector_to_names
        for label in getattr(collector, "_labelnames", ())
    }
    # `object` names what is at fault, and 20 of those at most: see the next test.
    bounded = {"type", "reason", "provider", "of", "state", "part", "bucket", "object", "door"}
    assert labels <= bounded


def test_a_mistake_in_every_service_is_no_thousand_series() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.left_out({("Listener", f"s{n:04}.shop"): 1 for n in range(1000)})
    found = {
        sample.labels["object"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "meshfed_left_out_resources"
    }
    assert len(found) == 21
    assert (found["s0000.shop"], found["others"]) == (1, 980)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    structlog.reset_defaults()
    root.level, root.handlers[:] = before


def test_an_event_is_one_line_of_json_with_its_fields(lines: io.StringIO) -> None:
    structlog.get_logger().info("observation doubted", scope="rack/hosts.yaml", removed=4)
    (line,) = lines.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("at")
    assert event == {
        "event": "observation doubted",
        "level": "info",
        "scope": "rack/hosts.yaml",
        "removed": 4,
    }


def test_an_exception_stays_on_its_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        structlog.get_logger().exception("unexpected")
    (line,) = lines.getvalue().splitlines()
    assert "ValueError: two" in json.loads(line)["exception"]


def test_warnings_of_libraries_are_events_too(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("Started server process [1]")
    logging.getLogger("asyncio").warning("Executing %s took %s seconds", "task", 0.2)
    (line,) = lines.getvalue().splitlines()
    event = json.loads(line)
    assert (event["logger"], event["level"]) == ("asyncio", "warning")
    assert event["event"] == "Executing task took 0.2 seconds"


def test_on_a_terminal_events_are_for_eyes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root = logging.getLogger()
    before = root.level, root.handlers[:]
    screen = Terminal()
    logs.configure(screen)
    structlog.get_logger().info("serving", xds="0.0.0.0:15128")
    structlog.reset_defaults()
    root.level, root.handlers[:] = before
    assert "serving" in screen.getvalue()
    assert "0.0.0.0:15128" in screen.getvalue()
    assert "{" not in screen.getvalue()


async def test_small_answers_are_not_kept_back() -> None:
    """As Nagle's algorithm would, until what was sent before is acknowledged: 40 ms."""
    kept = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        kept.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = bound("127.0.0.1:0")
    async with await asyncio.start_server(connected, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await kept == 1
        writer.close()
