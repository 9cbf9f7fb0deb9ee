"""Which revisions every connected proxy has, and how long that took."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

REMEMBERED = 1000  # revisions; older answers are in the catalog


@dataclass(frozen=True, slots=True)
class Propagation:
    """A revision that every proxy connected at the time has acknowledged. Times since the epoch."""

    revision: int
    committed_at: float
    last_ack_at: float
    proxies: int  # that it changed something for

    @property
    def ms(self) -> float:
        return max(self.last_ack_at - self.committed_at, 0.0) * 1000


class Ledger:
    """What this replica's proxies still owe an acknowledgement for, revision by revision."""

    def __init__(self, revision: int = 0) -> None:
        """Every world is made from what the catalog had at this revision already."""
        self.evaluated = revision
        self.settled = revision  # the newest that every proxy has
        # Ascending, as only the newest is ever offered: while one proxy rejects for hours these
        # grow, and every answer of every other proxy looks at the first of them.
        self._owed: Counter[int] = Counter()  # revision → proxies that have not acknowledged it
        # → committed at, proxies, and the revision that brought it to them
        self._open: dict[int, tuple[float, int, int]] = {}
        self._remembered: dict[int, Propagation] = {}  # ascending

    def evaluate(
        self, committed: Mapping[int, float], proxies: int, now: float
    ) -> tuple[Propagation, ...]:
        """These revisions (→ commit time, ascending) are in every world that they concern.

        `proxies` were offered one, and owe it already. Returns what is settled by that.
        """
        self.evaluated = max(committed, default=self.evaluated)
        for revision, committed_at in committed.items():
            self._open[revision] = (committed_at, proxies, self.evaluated)
        return self._sweep(now)

    def owe(self, revision: int) -> None:
        """One proxy was offered a world of this revision."""
        self._owed[revision] += 1

    def paid(self, revisions: Iterable[int], at: float) -> tuple[Propagation, ...]:
        """One proxy has acknowledged revisions that it owed, or is gone."""
        news = False
        for revision in revisions:
            self._owed[revision] -= 1
            if self._owed[revision] <= 0:
                del self._owed[revision]
                news = True
        return self._sweep(at) if news else ()

    def propagation(self, revision: int) -> Propagation | None:
        return self._remembered.get(revision)

    def _sweep(self, at: float) -> tuple[Propagation, ...]:
        first_owed = next(iter(self._owed), self.evaluated + 1)
        done = []
        while self._open:
            revision, (committed_at, proxies, brought_by) = next(iter(self._open.items()))
            if brought_by >= first_owed:
                break
            del self._open[revision]
            done.append(Propagation(revision, committed_at, at, proxies))
        for propagation in done[-REMEMBERED:]:
            self._remembered[propagation.revision] = propagation
            self.settled = propagation.revision
        while len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return tuple(done)
