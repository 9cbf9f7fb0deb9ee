"""Which connected proxies are not well, why, and when each is to start its stream afresh."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Literal, Protocol

import structlog

from meshfed.catalog.database import stamp
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.backoff import doubled

LATE = 30.0  # seconds that a proxy may owe an acknowledgement: warming takes up to 15
SOON = timedelta(days=14).total_seconds()  # before the end of one that lives for months
REMEDY = "run `meshfed proxy bootstrap`, or on a machine that joined `meshfed agent`"
FIRST, LONGEST = 30.0, 3600.0  # seconds until a proxy's stream is begun again, doubling
AT_ONCE = 10  # streams in one look: were it our own fault, all would come back together

Sick = Literal["behind", "rejecting", "expiring"]
SICK: tuple[Sick, ...] = ("behind", "rejecting", "expiring")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ailment:
    """What is wrong with a proxy, in the words of `mesh_proxies`."""

    state: Sick
    reason: str


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is known of a proxy's stream at one moment. Times in seconds since the epoch."""

    owed: tuple[int, float] | None  # the oldest revision not acknowledged, and when it was offered
    rejected: str  # the proxy's words
    not_after: float | None  # the end of its certificate
    not_before: float | None = None

    @property
    def expiring(self) -> float:
        """From when on its certificate should have been renewed, as far as it has an end."""
        if self.not_after is None:
            return inf
        life = SOON * 3 if self.not_before is None else self.not_after - self.not_before
        return self.not_after - min(SOON, life / 3)


def ailment(pulse: Pulse, now: float) -> Ailment | None:
    """The worst first; none for a proxy that is well, or merely busy."""
    if pulse.rejected:
        return Ailment("rejecting", pulse.rejected)
    if pulse.owed and now - pulse.owed[1] > LATE:
        revision, since = pulse.owed
        why = f"has not acknowledged revision {revision}, offered at {stamp(since)}"
        return Ailment("behind", why)
    if pulse.not_after is not None and now > pulse.expiring:
        why = f"its certificate ends at {stamp(pulse.not_after)}: {REMEDY}"
        return Ailment("expiring", why)
    return None


@dataclass(frozen=True, slots=True)
class Visit:
    """How often a proxy was begun again, and when that is due once more."""

    count: int
    due: float

    def again(self, now: float) -> "Visit":
        return Visit(self.count + 1, now + doubled(FIRST, self.count + 2, LONGEST))


class Patient(Protocol):
    """A proxy's stream, as its Subscriber."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def well(self) -> bool:
        """It owes nothing, and nothing is wrong with it."""
        ...

    def examine(self, now: float) -> Ailment | None: ...
    def begin_again(self, why: str) -> None: ...


class Care:
    """Begins the streams of proxies again that do not recover by themselves.

    What was lost on the way is sent again; what was rejected is tried again, as a taken port may be
    free now; and a certificate that was renewed meanwhile is shown. What has become of a proxy
    outlives its stream here, so that a hopeless one is troubled ever more rarely.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._clock = clock
        self._visits: dict[str, Visit] = {}

    def look(self, patients: Iterable[Patient]) -> None:
        now = self._clock()
        sick: Counter[Sick] = Counter()
        due: list[tuple[Patient, Ailment]] = []
        well, unwell = set[str](), set[str]()  # a gRPC process may have a stream of either kind
        for patient in patients:
            found = patient.examine(now)
            (well if found is None and patient.well else unwell).add(patient.id)
            if found is None:
                continue
            sick[found.state] += 1
            visit = self._visits.setdefault(patient.id, first(found, now))
            if now >= visit.due:
                due.append((patient, found))
        for recovered in well - unwell:
            self._visits.pop(recovered, None)
        self._metrics.unwell({state: sick[state] for state in SICK})
        for patient, found in due[:AT_ONCE]:
            self._visits[patient.id] = self._visits[patient.id].again(now)
            self._metrics.resynchronised()
            log.warning(
                "proxy begun again", workload=patient.name, state=found.state, reason=found.reason
            )
            patient.begin_again(f"begin again: {found.state}: {found.reason}")


def first(found: Ailment, now: float) -> Visit:
    """Who is late has waited already."""
    return Visit(0, now if found.state == "behind" else now + FIRST)
