"""What connected proxies have answered: receipts for the catalog, and revisions that all have."""

import asyncio
from collections.abc import Iterable, Mapping

from meshfed.catalog.model import Receipt
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.propagation import Ledger, Propagation


class Account:
    """One for all proxies of this replica."""

    def __init__(self, revision: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ledger = Ledger(revision)
        self._receipts: dict[tuple[str, str], Receipt] = {}  # the last one is all that counts
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}

    @property
    def evaluated(self) -> int:
        return self._ledger.evaluated

    def begin(self, revision: int) -> None:
        """The catalog's revision at the start; there may not be another for days."""
        self._ledger.begin(revision)

    def evaluate(self, committed: Mapping[int, float], offered: int, now: float) -> None:
        """These revisions are in every world they concern; `offered` proxies owe the newest."""
        self._tell(self._ledger.evaluate(committed, offered, now))

    def owe(self, revision: int) -> None:
        self._ledger.owe(revision)

    def paid(self, revisions: Iterable[int], at: float) -> None:
        for revision in revisions:
            self._tell(self._ledger.paid(revision, at))

    def answered(self, receipt: Receipt) -> None:
        self._receipts[receipt.proxy, receipt.type] = receipt
        if receipt.rejected:
            self._metrics.rejected(receipt.type)

    def unwritten(self) -> tuple[Receipt, ...]:
        return tuple(self._receipts.values())

    def written(self, receipts: Iterable[Receipt]) -> None:
        """The catalog has these; what came meanwhile stays."""
        for receipt in receipts:
            if self._receipts.get((receipt.proxy, receipt.type)) is receipt:
                del self._receipts[receipt.proxy, receipt.type]

    async def settled(self, revision: int, seconds: float) -> Propagation | None:
        """Once every proxy has it, or None after so many seconds."""
        if revision > self._ledger.settled:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(revision, []).append(waiting)
            await asyncio.wait({waiting}, timeout=seconds)
        return self._ledger.propagation(revision)

    def _tell(self, settled: Iterable[Propagation]) -> None:
        for propagation in settled:
            if propagation.proxies:
                self._metrics.propagated(propagation.ms / 1000)
        for revision in [one for one in self._waiting if one <= self._ledger.settled]:
            for waiting in self._waiting.pop(revision):
                waiting.set_result(None)
