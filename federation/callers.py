"""Through which clusters each proxy of this replica calls, for whoever takes in what it reports."""

from collections import defaultdict
from collections.abc import Callable, Collection


class Callers:
    def __init__(self) -> None:
        self._called: dict[str, Collection[str]] = {}  # by workload
        self._watched: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)

    def called(self, workload: str) -> Collection[str] | None:
        """The clusters through which its proxy calls; None where it is connected elsewhere."""
        return self._called.get(workload)

    def call(self, workload: str, clusters: Collection[str]) -> None:
        """Make these its clusters; who watches hears of it when they are others."""
        if self._called.get(workload) is not clusters:
            self._called[workload] = clusters
            for moved in self._watched.get(workload, ()):
                moved()

    def forget(self, workload: str) -> None:
        self._called.pop(workload, None)

    def watch(self, workload: str, moved: Callable[[], None]) -> None:
        """`moved` is called when its clusters are others."""
        self._watched[workload].add(moved)

    def unwatch(self, workload: str, moved: Callable[[], None]) -> None:
        self._watched[workload].discard(moved)
        if not self._watched[workload]:
            del self._watched[workload]
