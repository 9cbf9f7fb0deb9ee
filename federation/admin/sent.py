"""What was sent to proxies, by type, as metrics."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

# Name, and what it says.
FAMILIES = (
    ("meshfed_pushes", "Responses sent to proxies"),
    ("meshfed_pushed_resources", "Resources in those responses"),
    ("meshfed_pushed_bytes", "Bytes of those responses"),
)


class Sent(Collector):
    """Added to for each of thousands of pushes, on the event loop alone, and read now and then.

    Three counters with a lock each took 5 µs, of the 200 that a push has in all.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int, int]] = {}

    def add(self, kind: str, resources: int, size: int) -> None:
        """One response of a type (CDS, EDS, …), with so many resources and bytes."""
        pushes, counted, sized = self._sums.get(kind, (0, 0, 0))
        self._sums[kind] = pushes + 1, counted + resources, sized + size

    def collect(self) -> Iterator[CounterMetricFamily]:
        sums = sorted(self._sums.items())
        for at, (name, documentation) in enumerate(FAMILIES):
            family = CounterMetricFamily(name, documentation, labels=["type"])
            for kind, counted in sums:
                family.add_metric([kind], counted[at])
            yield family
