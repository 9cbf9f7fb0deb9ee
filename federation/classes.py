"""Classes of proxies as the catalog knows them: by number, and what each can reach."""

from collections.abc import Mapping
from itertools import count

from meshfed.catalog.reports import Reach, Reaches
from meshfed.catalog.view import ProxyClass


class Classes:
    """Of a thousand proxies that can reach the same, that is written once, under a number."""

    def __init__(self) -> None:
        self._count = count(1)
        self._numbers: dict[ProxyClass, int] = {}
        self._recorded: dict[ProxyClass, Reach] = {}

    def number(self, kind: ProxyClass) -> int:
        if kind not in self._numbers:
            self._numbers[kind] = next(self._count)
        return self._numbers[kind]

    def written(self, reaches: Mapping[ProxyClass, Reach]) -> list[Reaches]:
        """What the catalog lacks of all classes there are, or has of others; marked as written."""
        recorded, self._recorded = self._recorded, dict(reaches)
        news = [
            Reaches(self.number(kind), reach, recorded.get(kind))
            for kind, reach in reaches.items()
            if recorded.get(kind) is not reach
        ]
        gone = self._numbers.keys() - reaches.keys()
        left = (Reaches(self._numbers.pop(kind), frozenset(), recorded.get(kind)) for kind in gone)
        return [*news, *left]

    def lost(self) -> None:
        """What the catalog has is not known."""
        self._recorded = {}
