"""What connected proxies have answered: receipts for the catalog, and revisions that all have."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from meshfed.catalog.reports import Receipt
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.propagation import Ledger, Propagation

PAUSE = 0.2  # seconds without an answer: to begin telling a thousand holds the loop for half of it
LONGEST = 1.0  # seconds that whoever lets pushes go first waits


class Account:
    """One for all proxies of this replica."""

    def __init__(self, revision: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ledger = Ledger(revision)
        self._receipts: dict[tuple[str, str], Receipt] = {}  # the last one is all that counts
        self._progress = asyncio.Event()  # another one after each time that it was set
        self._answers = 0

    @property
    def evaluated(self) -> int:
        return self._ledger.evaluated

    def evaluate(self, committed: Mapping[int, float], offered: int, now: float) -> None:
        """These revisions are in every world they concern; `offered` proxies owe the newest."""
        self._tell(self._ledger.evaluate(committed, offered, now))

    def owe(self, revision: int) -> None:
        self._ledger.owe(revision)

    def paid(self, revisions: Iterable[int], at: float) -> None:
        self._tell(self._ledger.paid(revisions, at))

    def answered(self, receipt: Receipt) -> None:
        self._receipts[receipt.proxy, receipt.type] = receipt
        self._answers += 1
        if receipt.rejected:
            self._metrics.rejected(receipt.type)

    def overdue(self, kind: str) -> None:
        self._metrics.overdue(kind)

    def unwritten(self) -> tuple[Receipt, ...]:
        return tuple(self._receipts.values())

    def written(self, receipts: Iterable[Receipt]) -> None:
        """The catalog has these; what came meanwhile stays."""
        for receipt in receipts:
            if self._receipts.get((receipt.proxy, receipt.type)) is receipt:
                del self._receipts[receipt.proxy, receipt.type]

    async def rested(self) -> None:
        """Once every proxy has everything, or none has answered for a while."""
        until = time.monotonic() + LONGEST
        while self._ledger.settled < self.evaluated and time.monotonic() < until:
            answers = self._answers
            await self.settled(self.evaluated, PAUSE)
            if self._answers == answers:
                return

    async def settled(self, revision: int, seconds: float) -> Propagation | None:
        """Once every proxy has it, or None after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while revision > self._ledger.settled:
                    await self._progress.wait()
        return self._ledger.propagation(revision)

    def _tell(self, settled: Iterable[Propagation]) -> None:
        any_settled = False
        for propagation in settled:
            any_settled = True
            if propagation.proxies:
                self._metrics.propagated(propagation.ms / 1000)
        if any_settled:
            self._progress.set()
            self._progress = asyncio.Event()
