"""One sidecar's load reports (LRS v3) as a state machine, without a socket in sight.

What Envoy 1.40 does, found by running it: it counts for the clusters that the last response names,
from then on, whether they exist yet or not; it reports when the interval is over, which each
response begins anew; and what a report has said is counted from zero, also when nobody received it.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from google.protobuf.duration_pb2 import Duration

from meshfed.catalog.model import ServiceName
from meshfed.catalog.reach import THROUGH

INTERVAL = 10  # seconds between two reports: each takes some tenths of a millisecond of CPU


class Calls(NamedTuple):
    """What became of the calls to one locality of a cluster since the report before."""

    cluster: str
    region: str
    zone: str
    name: str  # the platform, or the name by which the locality is weighed (endpoints.py)
    succeeded: int
    failed: int
    begun: int
    in_flight: int  # now


class Called(NamedTuple):
    """What a cluster's name says of those who are called through it."""

    service: ServiceName  # that was asked for
    backend: ServiceName | None  # of its split; None: the service itself
    port: int

    @property
    def answering(self) -> ServiceName:
        return self.backend or self.service


@lru_cache(maxsize=1 << 16)
def called(cluster: str) -> Called | None:
    """None where it is no service of the mesh: see reach.Target."""
    names, _, rest = cluster.partition("|")
    service, through, backend = names.partition(THROUGH)
    try:
        split = ServiceName.parse(backend) if through else None
        return Called(ServiceName.parse(service), split, int(rest.partition("|")[0]))
    except ValueError:
        return None


def calls(report: LoadStatsRequest) -> list[Calls]:
    return [
        Calls(
            cluster.cluster_name,
            where.region,
            where.zone,
            where.sub_zone,
            each.total_successful_requests,
            each.total_error_requests,
            each.total_issued_requests,
            each.total_requests_in_progress,
        )
        for cluster in report.cluster_stats
        for each in cluster.upstream_locality_stats
        for where in [each.locality]
    ]


class Reporting:
    """Tell it what is expected and that a report came; send what `outgoing` says after each.

    `now` is any clock that does not jump.
    """

    def __init__(self, now: float) -> None:
        self._expected: Collection[str] | None = None  # None: unknown here, so all there are
        self._asked: frozenset[str] | None = None
        self._answered = False
        self._reported = now

    def expect(self, clusters: Collection[str] | None) -> None:
        self._expected = clusters

    def receive(self, now: float) -> None:
        self._reported = now

    def outgoing(self, now: float) -> LoadStatsResponse | None:
        """What to count from now on, if that is news; a cluster that is gone needs no word.

        Answers put the next report off: when it is due they wait for it, or none would ever come.
        """
        if not self._news() or (self._answered and now - self._reported > INTERVAL):
            return None
        self._answered = True
        response = LoadStatsResponse(load_reporting_interval=Duration(seconds=INTERVAL))
        self._asked = None if self._expected is None else frozenset(self._expected)
        response.send_all_clusters = self._asked is None
        response.clusters.extend(sorted(self._asked or ()))
        return response

    def _news(self) -> bool:
        if not self._answered or (self._expected is None) != (self._asked is None):
            return True
        return self._asked is not None and not self._asked.issuperset(self._expected or ())
