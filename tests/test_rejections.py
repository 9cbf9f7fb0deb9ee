"""What a proxy rejects, and what it is not told because it would: in logs, metrics and rows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from publishing import BUYING, DOMAIN, KNOWN, LEDGER, SELLING, Published, offered, opened, peer
from structlog.testing import capture_logs

from meshfed.catalog.model import Endpoint, Mesh, Port, Protocol, Service, ServiceName
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.certificates.authority import LocalAuthority, root
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.publish import Publisher
from meshfed.federation.worlds import Worlds
from meshfed.xds.objects import objects
from meshfed.xds.resource import Type
from meshfed.xds.soundness import LeftOut
from meshfed.xds.subscription import Past

CLUSTER = "ledger.shop|3306"
WORDS = f"Error adding/updating cluster(s) {CLUSTER}: no such policy"


@pytest.mark.parametrize(
    ("names", "words", "told"),
    [
        pytest.param(["ledger.shop|3306|ab12"], "", ("ledger.shop",), id="a cluster"),
        pytest.param(["validation/ledger.shop|3306"], "", ("ledger.shop",), id="a secret"),
        pytest.param(["inbound|ledger.shop|3306"], "", ("ledger.shop",), id="a filter chain"),
        pytest.param(["outbound"], "", ("outbound",), id="a listener of many services"),
        pytest.param(
            ["outbound"], "in virtual host ledger.shop|80: no", ("ledger.shop",), id="by its words"
        ),
        pytest.param([], "no", (), id="nothing is known"),
    ],
)
def test_a_rejection_is_about_services(names, words, told):
    assert objects(names, words) == told


class Measured(Published):
    """One whose metrics a test can read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def measured(tmp_path: Path) -> AsyncIterator[Measured]:
    made = Measured(tmp_path)
    yield made
    made.catalog.close()


@pytest.fixture
async def publisher(measured: Measured) -> AsyncIterator[Publisher]:
    made = await measured.open()
    await made.begin()
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_rejection_is_a_metric_a_log_line_with_the_service_and_a_row(
    measured: Measured, publisher: Publisher
) -> None:
    caller = await publisher.open(peer(BUYING))
    with capture_logs() as lines:
        caller.receipt("CDS", "v2", 1.0, 2.0, WORDS, (CLUSTER,))
    assert lines == [
        {
            "log_level": "warning",
            "event": "configuration rejected",
            "workload": "buyer-1",
            "type": "CDS",
            "objects": ["ledger.shop"],
            "reason": WORDS,
        }
    ]
    assert measured.value("meshfed_nacks_total", type="CDS") == 1
    async with asyncio.timeout(5):
        # Receipts move no revision, so nothing tells when they were written.
        while (  # noqa: ASYNC110
            measured.rows("select type, nack from mesh_proxy_sync") != [("CDS", WORDS)]
        ):
            await asyncio.sleep(0.02)


async def test_words_that_name_another_type_are_no_rejection_of_it(publisher: Publisher) -> None:
    caller = await publisher.open(peer(BUYING))
    caller.receipt("CDS", "v2", 1.0, 2.0, "no; LDS: also named")
    assert caller.state().reason == "CDS: no, LDS: also named"
    caller.receipt("RDS", "v2", 1.0, 2.0, "nor such;; ")
    assert caller.state().reason == "CDS: no, LDS: also named; RDS: nor such;, "


async def test_an_answer_that_is_overdue_is_a_metric_and_a_log_line(
    measured: Measured, publisher: Publisher
) -> None:
    caller = await publisher.open(peer(BUYING))
    with capture_logs() as lines:
        caller.overdue("LDS")
    assert [(line["event"], line["type"]) for line in lines] == [("no answer in time", "LDS")]
    assert measured.value("meshfed_answers_overdue_total", type="LDS") == 1


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [
        pytest.param(CLUSTER, "", ("rejecting", f"CDS: {WORDS}"), id="as it stands"),
        pytest.param(CLUSTER, "old", ("behind", ""), id="and is another now"),
        pytest.param("gone", "old", ("behind", ""), id="and is gone"),
    ],
)
async def test_n4_what_a_proxy_rejected_is_known_of_it_when_it_comes_back(
    publisher: Publisher, name: str, version: str, told: tuple[str, str]
) -> None:
    first = await publisher.open(peer(BUYING))
    version = version or first.world.of(Type.CLUSTER)[name].version
    first.memory[Type.CLUSTER] = past = _rejecting(name, version)
    first.close()
    second = await publisher.open(peer(BUYING))
    assert second.memory[Type.CLUSTER] is past
    assert (second.state().state, second.state().reason) == told
    assert (await publisher.open(peer(SELLING))).memory == {}


async def test_n4_a_proxy_that_is_begun_again_is_sent_it_once_more(publisher: Publisher) -> None:
    first = await publisher.open(peer(BUYING))
    first.memory[Type.CLUSTER] = past = _rejecting(CLUSTER, "bad")
    first.begin_again("rejecting")
    assert past.rejected == {}


def _rejecting(name: str, version: str) -> Past:
    return Past(rejected={name: frozenset({version})}, words=WORDS)


# Where the sidecar itself listens.
TAKEN = replace(
    KNOWN,
    services=frozenset({Service(LEDGER, (Port(3306, protocol=Protocol.TCP, local=15001),))}),
)


async def test_what_is_left_out_is_a_log_line_with_the_service_and_a_metric_until_it_is_mended(
    measured: Measured, publisher: Publisher
) -> None:
    left_out = {"type": "Listener", "object": "ledger.shop"}
    caller = await opened(publisher, peer(BUYING))
    with capture_logs() as lines:
        await measured.catalog.believe(TAKEN, kind="test", cause="")
        await offered(caller)
    assert [line for line in lines if line["event"] == "left out"] == [
        {
            "log_level": "warning",
            "event": "left out",
            "type": "Listener",
            "name": "local|ledger.shop|3306",
            "object": "ledger.shop",
            "reason": "outbound has its address",
        }
    ]
    assert measured.value("meshfed_left_out_resources", **left_out) == 1
    assert CLUSTER in caller.world.of(Type.CLUSTER)
    await measured.catalog.believe(KNOWN, kind="test", cause="")
    await offered(caller)
    assert measured.value("meshfed_left_out_resources", **left_out) == 0


def test_a_service_that_a_view_leaves_out_is_named_too() -> None:
    twin = ServiceName("twin", "shop")
    ports = (Port(3306, protocol=Protocol.TCP, local=13306),)
    here = ("10.0.0.1", 3306, SELLING.id, "rack", "rack/list")
    there = {
        name: (Endpoint(name, 3306, *here, identity=SELLING.identity),) for name in (LEDGER, twin)
    }
    mesh = Mesh(
        DOMAIN,
        permissive=True,
        services={name: Service(name, ports) for name in there},
        workloads={BUYING.id: BUYING, SELLING.id: SELLING},
        endpoints=there,
    )
    issuer = LocalAuthority(*root(DOMAIN, datetime.now(UTC)))
    worlds = Worlds(mesh, Custody(issuer, DOMAIN, timedelta(hours=1)))
    worlds.of(worlds.kind(BUYING))
    why = "local port 13306 leads to ledger.shop already: choose another"
    assert worlds.left_out() == {LeftOut("Service", "twin.shop", why)}


async def test_what_is_left_out_is_said_when_the_first_proxy_comes_that_is_not_told_it(
    measured: Measured,
) -> None:
    publisher = await measured.open()
    await measured.catalog.believe(TAKEN, kind="test", cause="")
    await publisher.begin()
    with capture_logs() as lines:
        await publisher.open(peer(BUYING))
        await publisher.open(peer(BUYING))
    assert [line["name"] for line in lines if line["event"] == "left out"] == [
        "local|ledger.shop|3306"
    ]
