"""How often one address may be refused: whoever guesses or floods has to wait."""

from collections import OrderedDict
from dataclasses import dataclass

from meshfed.federation.gate import neighbourhood

WINDOW = 60.0  # seconds
MOST = 10_000  # addresses at once; beyond them the one that was refused longest ago is forgotten


@dataclass(slots=True)
class Count:
    since: float
    refused: int = 0


class Pace:
    """Refusals by address, in windows of a minute. Times in seconds, of any clock."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: OrderedDict[str, Count] = OrderedDict()

    def exceeded(self, address: str, now: float) -> bool:
        count = self._counts.get(neighbourhood(address))
        return count is not None and now - count.since < WINDOW and count.refused >= self._most

    def refused(self, address: str, now: float) -> int:
        """Count one; how many more this address may have for now, below zero beyond the last."""
        key = neighbourhood(address)
        count = self._counts.get(key)
        if count is None or now - count.since >= WINDOW:
            count = self._counts[key] = Count(now)
        self._counts.move_to_end(key)
        if len(self._counts) > MOST:
            self._counts.popitem(last=False)
        count.refused += 1
        return self._most - count.refused
