"""What was measured, and how it is told: medians, 95th and 99th percentiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured again and again, in milliseconds."""

    what: str
    milliseconds: tuple[float, ...]
    how: str

    @property
    def median(self) -> float:
        return median(self.milliseconds)

    @property
    def p95(self) -> float:
        return percentile(self.milliseconds, 0.95)

    @property
    def p99(self) -> float:
        return percentile(self.milliseconds, 0.99)

    def __str__(self) -> str:
        most = shown(max(self.milliseconds))
        return f"{self.what}: p50 {shown(self.median)}, p99 {shown(self.p99)}, at most {most}"


def percentile(samples: Sequence[float], part: float) -> float:
    """The nearest rank: with fewer than 20 samples p95 is the worst, and p99 of 100."""
    return sorted(samples)[math.ceil(part * len(samples)) - 1]


def told(figure: Figure) -> Json:
    return {
        "what": figure.what,
        "median_ms": round(figure.median, 3),
        "p95_ms": round(figure.p95, 3),
        "p99_ms": round(figure.p99, 3),
        "times": len(figure.milliseconds),
        "how": figure.how,
    }


def shown(milliseconds: float) -> str:
    """Three significant digits, as far as they mean something."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.{max(0, 2 - int(math.log10(max(milliseconds, 0.01))))}f} ms"
