"""Classes of proxies as the catalog knows them: by number, and what each can reach."""

from collections.abc import Mapping
from itertools import count

from meshfed.catalog.reports import Reach, Reaches
from meshfed.catalog.view import ProxyClass

NOTHING: Reach = frozenset()


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
        recorded = self._recorded
        left = self._numbers.keys() - reaches.keys()
        for kind in [kind for kind in left if recorded.get(kind) == NOTHING]:
            del self._numbers[kind]  # not before that stands: nobody else would take its rows away
        gone = {kind: NOTHING for kind in self._numbers if kind not in reaches}
        self._recorded = {**reaches, **gone}
        return [
            Reaches(self.number(kind), reach, recorded.get(kind))
            for kind, reach in self._recorded.items()
            if recorded.get(kind) is not reach
        ]

    def lost(self) -> None:
        """What the catalog has is not known."""
        self._recorded = {}
