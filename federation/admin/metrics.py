"""What is measured of the running mesh: `meshfed_*`, with units, and never a label per proxy."""

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from meshfed.federation.admin.sent import Sent

# From half of what one machine does to where somebody should look.
PROPAGATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# From what nobody notices to where `/healthz` says that all hangs.
LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

MOST_NAMED = 20  # objects that a label tells apart
OTHERS = "others"


class Reason(StrEnum):
    """Why a stream was refused or ended by us; a label, so there are few of them."""

    CERTIFICATE = "certificate"  # not one URI and one DNS name of this trust domain, or expired
    WORKLOAD = "workload"  # the catalog knows no such workload
    IDENTITY = "identity"  # the workload is someone else now
    UNREADY = "unready"  # not every source has been observed yet
    TOKEN = "token"  # none was shown, or its platform does not take it
    UNREVIEWED = "unreviewed"  # its platform could not be asked


class Certificates(StrEnum):
    """Whose certificates."""

    CONTROL_PLANE = "control-plane"
    ROOT = "root"
    WORKLOAD = "workload"


class Metrics:
    """Every metric there is, and the moments that move them."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._views = Counter(
            "meshfed_views_built_total",
            "Views of proxy classes that were worked out, mostly because a policy changed",
            registry=registry,
        )
        self._propagation = Histogram(
            "meshfed_propagation_seconds",
            "From the commit of a revision until the last proxy acknowledged it",
            buckets=PROPAGATION,
            registry=registry,
        )
        self._lag = Histogram(
            "meshfed_loop_lag_seconds",
            "How late the event loop was, asked ten times a second",
            buckets=LAG,
            registry=registry,
        )
        self._sent = Sent()
        registry.register(self._sent)
        self._nacks = Counter(
            "meshfed_nacks_total", "Responses that a proxy rejected", ["type"], registry=registry
        )
        self._overdue = Counter(
            "meshfed_answers_overdue_total",
            "Responses that a proxy did not answer in 16 s: what waited for it went ahead",
            ["type"],
            registry=registry,
        )
        self._left_out = Gauge(
            "meshfed_left_out_resources",
            "Resources that no proxy is told, as Envoy would refuse them or what they lead to is"
            " not there, by type and by the service they are of",
            ["type", "object"],
            registry=registry,
        )
        self._refused = Counter(
            "meshfed_streams_refused_total",
            "Streams refused, or ended because the proxy may no longer have them",
            ["reason"],
            registry=registry,
        )
        self._turned_away = Counter(
            "meshfed_connections_refused_total",
            "Connections to an HTTP port that were closed as there was no room for them",
            ["door"],
            registry=registry,
        )
        self._proxies = Gauge(
            "meshfed_connected_proxies", "Proxies connected to this replica", registry=registry
        )
        self._unwell = Gauge(
            "meshfed_unwell_proxies",
            "Proxies connected to this replica that are behind for over 30 s, rejecting, expiring",
            ["state"],
            registry=registry,
        )
        self._resynchronised = Counter(
            "meshfed_proxies_resynchronised_total",
            "Streams of unwell proxies that were begun again",
            registry=registry,
        )
        self._revision = Gauge(
            "meshfed_revision", "The catalog's revision that proxies are told", registry=registry
        )
        self._away = Gauge(
            "meshfed_catalog_away",
            "1 while the catalog's database cannot be reached",
            registry=registry,
        )
        self._leads = Gauge(
            "meshfed_leader",
            "1 while this replica leads: it observes, specifies and prunes",
            registry=registry,
        )
        self._load_reports = Counter(
            "meshfed_load_reports_total", "Reports of load that sidecars sent", registry=registry
        )
        self._requests = Counter(
            "meshfed_reported_requests_total",
            "Requests that ended, as sidecars report them; of TCP, connections that began",
            registry=registry,
        )
        self._failures = Counter(
            "meshfed_reported_failures_total",
            "Those of them that were answered with 5xx, or not at all",
            registry=registry,
        )
        self._lost = Counter(
            "meshfed_lost_requests_total",
            "Those of them that the catalog was away for too long to be told",
            registry=registry,
        )
        self._unknown_loads = Counter(
            "meshfed_unknown_loads_total",
            "Parts of reports about what the mesh never had",
            registry=registry,
        )
        self._provider_age = Gauge(
            "meshfed_provider_age_seconds",
            "Since a provider last answered in full",
            ["provider"],
            registry=registry,
        )
        self._provider_doubts = Gauge(
            "meshfed_provider_doubts",
            "Scopes whose last observation is not believed",
            ["provider"],
            registry=registry,
        )
        self._provider_endpoints = Gauge(
            "meshfed_provider_endpoints",
            "Endpoints known from a provider",
            ["provider"],
            registry=registry,
        )
        self._provider_remaining = Gauge(
            "meshfed_provider_remaining_reads",
            "How much more a platform that counts may be asked now",
            ["provider", "part", "bucket"],
            registry=registry,
        )
        self._certificate_age = Gauge(
            "meshfed_certificate_age_seconds",
            "Since the oldest certificate in use was issued",
            ["of"],
            registry=registry,
        )
        self._certificate_left = Gauge(
            "meshfed_certificate_remaining_seconds",
            "Until the first certificate in use expires",
            ["of"],
            registry=registry,
        )
        Info("meshfed_build", "Which version this is", registry=registry).info(
            {"version": version("meshfed")}
        )
        ProcessCollector(registry=registry)

    def propagated(self, seconds: float) -> None:
        self._propagation.observe(seconds)

    def late(self, seconds: float) -> None:
        """The event loop came to something so long after it was due."""
        self._lag.observe(seconds)

    def pushed(self, kind: str, resources: int, size: int) -> None:
        """One response of a type (CDS, EDS, …) was sent, with so many resources and bytes."""
        self._sent.add(kind, resources, size)

    def viewed(self) -> None:
        """One class's view was worked out."""
        self._views.inc()

    def rejected(self, kind: str) -> None:
        self._nacks.labels(kind).inc()

    def overdue(self, kind: str) -> None:
        self._overdue.labels(kind).inc()

    def left_out(self, counts: Mapping[tuple[str, str], int]) -> None:
        """How many resources of a type (Cluster, …) and object are left out now.

        The first by name are told apart: a mistake in all services must not be a thousand series.
        """
        self._left_out.clear()
        named = set(sorted({of for _, of in counts})[:MOST_NAMED])
        for (kind, of), count in counts.items():
            self._left_out.labels(kind, of if of in named else OTHERS).inc(count)

    def refused(self, reason: Reason) -> None:
        self._refused.labels(reason.value).inc()

    def turned_away(self, door: str) -> None:
        """Of a setting's port; from any thread."""
        self._turned_away.labels(door).inc()

    def connected(self, proxies: int) -> None:
        self._proxies.set(proxies)

    def unwell(self, proxies: Mapping[str, int]) -> None:
        """How many proxies are in each state that is not well."""
        for state, count in proxies.items():
            self._unwell.labels(state).set(count)

    def resynchronised(self) -> None:
        self._resynchronised.inc()

    def reached(self, revision: int) -> None:
        self._revision.set(revision)

    def away(self, *, away: bool) -> None:
        self._away.set(away)

    def reported(self, requests: int, failed: int, *, unknown: int) -> None:
        """One report of load, and how many parts of it are of nothing that is known."""
        self._load_reports.inc()
        self._requests.inc(requests)
        self._failures.inc(failed)
        self._unknown_loads.inc(unknown)

    def lost(self, requests: int) -> None:
        """Reported, and never to be found in the catalog."""
        self._lost.inc(requests)

    def provider(self, name: str, *, last_good: float | None, doubts: int, endpoints: int) -> None:
        """A provider's state; `last_good` in seconds since the epoch, if it ever was."""
        if last_good is not None:
            # Computed at each scrape: a provider that has gone silent must still grow older.
            self._provider_age.labels(name).set_function(partial(self._since, last_good))
        self._provider_doubts.labels(name).set(doubts)
        self._provider_endpoints.labels(name).set(endpoints)

    def remaining(self, name: str, left: Mapping[tuple[str, str], int]) -> None:
        """What a provider's platform said last, by part and bucket."""
        for (part, bucket), reads in left.items():
            self._provider_remaining.labels(name, part, bucket).set(reads)

    def leads(self, *, leads: bool) -> None:
        self._leads.set(leads)

    def unprovided(self) -> None:
        """Another replica observes now, and tells how providers stand."""
        for gauge in (
            self._provider_age,
            self._provider_doubts,
            self._provider_endpoints,
            self._provider_remaining,
        ):
            gauge.clear()

    def certificates(self, of: Certificates, *, issued: float, expires: float) -> None:
        """The oldest one's issue and the first one's expiry, in seconds since the epoch."""
        self._certificate_age.labels(of.value).set_function(partial(self._since, issued))
        self._certificate_left.labels(of.value).set_function(partial(self._until, expires))

    def _since(self, moment: float) -> float:
        return max(0.0, self._clock() - moment)

    def _until(self, moment: float) -> float:
        return moment - self._clock()
