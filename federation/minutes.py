"""Sums of what sidecars report, by the minute, until the catalog has them."""

from collections.abc import Iterable

from meshfed.catalog.database import stamp
from meshfed.catalog.traffic import Edge, Load, Sums
from meshfed.federation.edges import Counted

MINUTE = 60.0  # seconds
MOST = 1 << 53  # of anything: what a sidecar says may be any number, and a column holds 63 bits
KEPT = 60  # minutes that wait for a catalog that is away

NOTHING = Load(0, 0, 0)

Key = tuple[str, Edge]  # when the minute began, and the edge


class Minutes:
    """One replica's. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._minute = ""  # this one; it never goes back, whatever the clock does
        self._sums: dict[Key, Load] = {}  # of this minute, and what is unwritten of others
        self._unwritten: dict[Key, None] = {}  # in the order in which they moved
        self._flying: dict[Edge, int] = {}  # of all sidecars,
        self._of: dict[object, dict[Edge, int]] = {}  # and of each, as it reported last

    def take(self, who: object, parts: Iterable[Counted], now: float) -> None:
        """What one sidecar counted since it reported last; what it does not mention is at rest."""
        minute = self._turn(now)
        news: dict[Edge, Load] = {}
        for edge, load in parts:
            news[edge] = added(news[edge], load) if edge in news else load
        before = self._of.pop(who, {})
        there = {edge: load.in_flight for edge, load in news.items() if load.in_flight}
        if there:
            self._of[who] = there
        for edge, flying in before.items():
            self._flying[edge] -= flying
            news.setdefault(edge, NOTHING)
        for edge, load in news.items():
            flying = self._flying.pop(edge, 0) + load.in_flight
            if flying:
                self._flying[edge] = flying
            key = (minute, edge)
            was = self._sums.get(key, NOTHING)
            self._sums[key] = added(was, load)._replace(in_flight=min(flying, MOST))
            self._unwritten[key] = None

    def gone(self, who: object, now: float) -> None:
        """It is heard no more; what it had under way ends, or is told by another replica."""
        self.take(who, (), now)

    def unwritten(self) -> Sums:
        """What the catalog lacks, the oldest first."""
        return {key: self._sums[key] for key in self._unwritten}

    def written(self, rows: Sums) -> None:
        """The catalog has these; what moved meanwhile it still lacks."""
        for key, load in rows.items():
            if self._sums.get(key) == load:
                self._unwritten.pop(key, None)
                if key[0] != self._minute:
                    del self._sums[key]

    def forget(self, now: float) -> int:
        """Give up what waited for too long; how many requests that were."""
        oldest = beginning(now - KEPT * MINUTE)
        late = [key for key in self._unwritten if key[0] < oldest]
        for key in late:
            del self._unwritten[key]
        return sum(self._sums.pop(key).requests for key in late)

    def _turn(self, now: float) -> str:
        """The minute of this moment; of those before, what the catalog has is done with."""
        if (minute := beginning(now)) > self._minute:
            self._minute = minute
            self._sums = {key: self._sums[key] for key in self._unwritten}
        return self._minute


def added(one: Load, other: Load) -> Load:
    return Load(
        min(one.requests + other.requests, MOST),
        min(one.failed + other.failed, MOST),
        min(one.in_flight + other.in_flight, MOST),
    )


def beginning(moment: float) -> str:
    """Of the minute of a moment, as the catalog writes it."""
    return stamp(moment // MINUTE * MINUTE)
