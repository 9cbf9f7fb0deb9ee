"""What a sidecar is asked to count, and what its reports and the names of its clusters mean."""

import pytest
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest

from meshfed.catalog.model import ServiceName
from meshfed.xds.loads import INTERVAL, Called, Calls, Reporting, called, calls

SHOP, SHOP_A = ServiceName("shop", "kpi"), ServiceName("shop-a", "kpi")


@pytest.mark.parametrize(
    ("cluster", "meaning"),
    [
        pytest.param("shop.kpi|80", Called(SHOP, None, 80), id="a service"),
        pytest.param("shop.kpi|80|0123456789abcdef", Called(SHOP, None, 80), id="its variant"),
        pytest.param("shop.kpi>shop-a.kpi|80", Called(SHOP, SHOP_A, 80), id="a split's backend"),
        pytest.param("shop.kpi>shop-a.kpi|80|0f", Called(SHOP, SHOP_A, 80), id="and its variant"),
        *(
            pytest.param(name, None, id=name or "nothing")
            for name in ("", "xds", "tunnel", "passthrough", "local|shop.kpi|80", "shop.kpi",
                         "shop.kpi|", "shop.kpi|http", "shop.kpi>|80", ">shop.kpi|80", "A.kpi|80")
        ),
    ],
)  # fmt: skip
def test_a_cluster_s_name_says_who_is_called_through_it(cluster: str, meaning: Called) -> None:
    assert called(cluster) == meaning


def test_a_report_is_a_line_for_each_locality() -> None:
    report = LoadStatsRequest()
    cluster = report.cluster_stats.add(cluster_name="shop.kpi|80")
    for zone, count in (("1", 5), ("2", 7)):
        each = cluster.upstream_locality_stats.add(
            total_successful_requests=count,
            total_error_requests=1,
            total_issued_requests=count + 2,
            total_requests_in_progress=1,
        )
        each.locality.region, each.locality.zone, each.locality.sub_zone = "eu", zone, "vm"
    assert calls(report) == [
        Calls("shop.kpi|80", "eu", "1", "vm", 5, 1, 7, 1),
        Calls("shop.kpi|80", "eu", "2", "vm", 7, 1, 9, 1),
    ]


class Conversation:
    """A sidecar's, with a clock that the test moves."""

    def __init__(self, *expected: str) -> None:
        self.now = 100.0
        self.state = Reporting(self.now)
        self.state.expect(expected or None)

    def asked(self) -> list[str] | str | None:
        """The clusters it is asked to count for now; None: it is told nothing."""
        answer = self.state.outgoing(self.now)
        if answer is None:
            return None
        assert answer.load_reporting_interval.seconds == INTERVAL
        assert not answer.report_endpoint_granularity
        return "all" if answer.send_all_clusters else list(answer.clusters)

    def reports(self, after: float = INTERVAL) -> None:
        self.now += after
        self.state.receive(self.now)


def test_it_is_told_once_what_to_count() -> None:
    sidecar = Conversation("b|80", "a|80")
    assert sidecar.asked() == ["a|80", "b|80"]
    sidecar.reports()
    assert sidecar.asked() is None


def test_where_its_clusters_are_not_known_it_counts_for_all_until_they_are() -> None:
    sidecar = Conversation()
    assert sidecar.asked() == "all"
    sidecar.state.expect(["a|80"])
    assert sidecar.asked() == ["a|80"]
    sidecar.state.expect(None)  # connected to another replica now
    assert sidecar.asked() == "all"


def test_a_cluster_is_counted_for_from_its_first_request_on() -> None:
    sidecar = Conversation("a|80")
    assert sidecar.asked() == ["a|80"]
    sidecar.now += 1
    sidecar.state.expect(["a|80", "b|80"])
    assert sidecar.asked() == ["a|80", "b|80"]  # before it is there, and not at the next report


def test_a_cluster_that_is_gone_needs_no_word_and_may_come_back() -> None:
    sidecar = Conversation("a|80", "b|80")
    assert sidecar.asked() == ["a|80", "b|80"]
    sidecar.state.expect(["a|80"])
    assert sidecar.asked() is None
    sidecar.state.expect(["b|80", "a|80"])
    assert sidecar.asked() is None


def test_a_mesh_that_never_rests_does_not_keep_it_from_reporting() -> None:
    """Each answer begins the interval anew, so a report comes after two intervals at most."""
    sidecar = Conversation("a|0")
    sidecar.asked()
    due = sidecar.now + INTERVAL
    for n in range(200):
        sidecar.now += 0.1
        sidecar.state.expect([f"a|{m}" for m in range(n + 2)])
        if sidecar.asked():
            due = sidecar.now + INTERVAL
        if sidecar.now >= due:
            break
    assert sidecar.now - 100 <= 2 * INTERVAL + 0.2
    sidecar.reports(0)
    assert len(sidecar.asked() or ()) > 2 * INTERVAL  # then it is told at once
