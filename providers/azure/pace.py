"""How fast a subscription is asked: as configured, and slower when Azure has little left for us."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

LITTLE = 0.2  # of what a bucket holds when it is full; with less than that, it goes slower
SLOWEST = 10.0  # times the configured interval
LONGEST = 300.0  # seconds after many failures, unless the interval is longer
BREATH = (
    0.5  # seconds after a call, with little left: eight at once are then 16/s, and 25/s come back
)
EARLY = 6  # looks that are asked for between two regular ones

# What buckets hold when they are full; of another, the most that was ever left is taken.
FULL = {
    "subscription-reads": 250,
    "subscription-global-reads": 3750,
    "tenant-reads": 250,
    "microsoft.compute/highcostgetsubscriptionmaximum": 900,
    "microsoft.compute/highcostget3min": 140,
    "microsoft.compute/highcostget30min": 700,
}
REMAINING = "x-ms-ratelimit-remaining-"
OF_RESOURCES = f"{REMAINING}resource"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take; in seconds."""

    refresh: float
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random  # so that not all subscriptions are asked at once


@dataclass(frozen=True, slots=True)
class Bucket:
    left: int
    full: int

    @property
    def share(self) -> float:
        return self.left / self.full if self.full else 1.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left for us in a subscription, as it was said last."""

    buckets: Mapping[str, Bucket] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the bucket that is emptiest."""
        return min((each.share for each in self.buckets.values()), default=1.0)

    def heard(self, headers: Mapping[str, str]) -> "Budget":
        said = dict(remaining(headers))
        full = {name: max(self._full(name), left) for name, left in said.items()}
        return Budget({**self.buckets, **{n: Bucket(left, full[n]) for n, left in said.items()}})

    def _full(self, name: str) -> int:
        known = self.buckets.get(name)
        return known.full if known else FULL.get(name.lower(), 0)


def remaining(headers: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """`…-subscription-reads: 249`, and `…-resource: Microsoft.Compute/HighCostGet3Min;139,…`."""
    for header, text in headers.items():
        name = header.lower()
        if not name.startswith(REMAINING):
            continue
        said = text.split(",") if name == OF_RESOURCES else [f"{name[len(REMAINING) :]};{text}"]
        for each in said:
            bucket, _, left = each.strip().rpartition(";")
            if bucket and left.isascii() and left.isdigit():
                yield bucket, int(left)


@dataclass(frozen=True, slots=True)
class Turn:
    """When a subscription is asked next: after so many seconds, and not before some of them."""

    after: float
    least: float  # though somebody asks for it earlier


def turn(pace: Pace, budget: Budget, failures: int, paused: float) -> Turn:
    """How long a subscription rests after a look.

    An answer that was refused for a time is not asked for before that: the time would begin anew.
    """
    regular = pace.refresh * slower(budget.share) * (0.9 + 0.2 * pace.chance())
    longest = max(pace.refresh, LONGEST)
    backoff = min(longest, pace.refresh * 2.0 ** min(failures - 1, 20)) if failures else 0.0
    after = max(paused, backoff, regular)
    hurried = not failures and budget.share >= LITTLE
    return Turn(after, max(paused, pace.refresh / EARLY if hurried else after))


def breath(share: float) -> float:
    """How long to wait after a call, with so much left: a list may have more pages than that."""
    return BREATH * slower(share) if share < LITTLE else 0.0


def slower(share: float) -> float:
    """How many times slower, with so much left."""
    return 1.0 if share >= LITTLE else LITTLE / max(share, LITTLE / SLOWEST)
