"""Whether the catalog can be reached, as those find out who use it; said once each way."""

import structlog

from meshfed.catalog.store import Away
from meshfed.federation.admin.metrics import Metrics

log = structlog.get_logger()


class Presence:
    """One for all: reading may work where writing does not, so each user speaks for itself."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._missed: dict[str, str] = {}  # who → why

    @property
    def trouble(self) -> str:
        return next(iter(self._missed.values()), "")

    def lost(self, who: str, away: Away) -> None:
        if who not in self._missed:
            log.warning("catalog away", who=who, reason=str(away))
        self._missed[who] = str(away)
        self._metrics.away(away=True)

    def found(self, who: str) -> None:
        if who in self._missed:
            log.info("catalog back", who=who)
            self.forget(who)

    def forget(self, who: str) -> None:
        """It asks no more: what it missed would be said for ever."""
        self._missed.pop(who, None)
        self._metrics.away(away=bool(self._missed))
