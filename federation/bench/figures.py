"""What was measured, and how it is told: medians, 99th percentiles, and ratios to the floor."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from meshfed.federation.bench.crowd import Happened

Json = dict[str, object]


def percentile(samples: Sequence[float], part: float) -> float:
    """The nearest rank: with fewer than 20 samples p95 is the worst, and p99 of 100."""
    return sorted(samples)[max(0, math.ceil(part * len(samples)) - 1)]


@dataclass(frozen=True, slots=True)
class Bare:
    """What gRPC alone took for the same bytes, to as many streams."""

    seconds: float  # until the last had answered
    cpu: float  # seconds
    pushes: int


@dataclass(frozen=True, slots=True)
class Round:
    """One change, from its commit on. Seconds."""

    acks: Sequence[float]  # after the commit each proxy had all of it, ascending
    cpu: float  # of the control plane, until the last had
    happened: Happened
    floor: Bare | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """One scenario, as often as it was repeated, and what else was measured of it."""

    name: str
    rounds: Sequence[Round]
    peak_kb: int  # of memory, of the control plane
    more: Json = field(default_factory=dict)

    def json(self) -> Json:
        rounds = self.rounds
        pushes = sum(each.happened.pushes for each in rounds)
        resources: Counter[str] = Counter()
        for each in rounds:
            resources.update(each.happened.resources())
        return {
            "name": self.name,
            "times": len(rounds),
            "first_ack_ms": spread(r.acks[0] for r in rounds if r.acks),
            "p50_ack_ms": spread(percentile(r.acks, 0.5) for r in rounds if r.acks),
            "p99_ack_ms": spread(percentile(r.acks, 0.99) for r in rounds if r.acks),
            "last_ack_ms": spread(r.acks[-1] for r in rounds if r.acks),
            **self._floored(),
            "cpu_us_per_push": per(1e6 * sum(r.cpu for r in rounds), pushes),
            "pushes": pushes,
            "bytes_sent": sum(each.happened.bytes for each in rounds),
            "resources_sent": sum(resources.values()),
            "resources_by_type": dict(sorted(resources.items())),
            "streams_lost": sum(len(each.happened.lost) for each in rounds),
            "peak_rss_kb": self.peak_kb,
            **self.more,
        }

    def _floored(self) -> Json:
        pairs = [(r, r.floor) for r in self.rounds if r.floor and r.acks]
        if not pairs:
            return {}
        floors = [floor.seconds for _, floor in pairs]
        lasts = [each.acks[-1] for each, _ in pairs]
        cpu = 1e6 * sum(floor.cpu for _, floor in pairs)
        bare = per(cpu, sum(floor.pushes for _, floor in pairs))
        pushes = sum(each.happened.pushes for each, _ in pairs)
        ours = per(1e6 * sum(each.cpu for each, _ in pairs), pushes)
        return {
            "floor_ms": round(1000 * median(floors), 2),
            "ratio": per(median(lasts), median(floors)),
            "ratio_p99": per(percentile(lasts, 0.99), percentile(floors, 0.99)),
            "floor_cpu_us_per_push": bare,
            "cpu_ratio": per(ours or 0.0, bare or 0.0),
        }


def spread(seconds: Iterable[float]) -> Json:
    """In milliseconds, over the repetitions."""
    taken = [1000 * each for each in seconds]
    if not taken:
        return {}
    return {"p50": round(median(taken), 2), "p99": round(percentile(taken, 0.99), 2)}


def lagged(before: Counter[float], after: Counter[float]) -> Json:
    """How late the loop was at most in half and in 99 % of all looks: bounds of a histogram."""
    return spread((after - before).elements())


def per(whole: float, parts: float) -> float | None:
    return round(whole / parts, 2) if parts else None
