"""Whether hosts without an agent are well, as the control plane finds by asking them."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import uniform

from meshfed.providers.asking import UNREACHED, ask
from meshfed.providers.hysteresis import Verdict
from meshfed.providers.probe import Probe, reason

PERIOD = 10.0  # seconds between two looks at one application,
JITTER = 0.2  # give or take: thousands are not asked in the same moment
AT_ONCE = 500  # that are asked at the same time
SETTLE = 1.0  # seconds between two looks at what came of it
FIRST = 5.0  # seconds in which all should have been asked once

Target = tuple[str, Probe]  # an address, and what is asked there
Place = tuple[str, int]  # an address, and an application's port there


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of one application."""

    verdict: Verdict = field(default_factory=Verdict)
    last: str = ""  # why it was not well when it was asked last

    def after(self, why: str) -> "Held":
        return Held(self.verdict.after(why), why)


@dataclass(frozen=True, slots=True)
class Believed:
    """Who is not well, and why; and why others are not believed to be so."""

    failing: Mapping[Target, str] = field(default_factory=dict)
    doubt: str = ""


def recalled(target: Target, reasons: Mapping[Place, str]) -> str:
    """Why it was not well, if that was found by the same probe; else nothing."""
    address, probe = target
    said, mark = reasons.get((address, probe.port), ""), reason(probe, "")
    return said.removeprefix(mark) if said.startswith(mark) else ""


def believed(held: Mapping[Target, Held], before: Believed) -> Believed:
    """When most of those that were well fall silent at once, it is rather that they cannot be
    asked: they would hear from here that there is nobody to call. Who answers is believed.
    """
    standing: defaultdict[str, set[Target]] = defaultdict(set)  # by host
    for target in held.keys() - before.failing.keys():
        standing[target[0]].add(target)
    silent = [
        targets
        for targets in standing.values()
        if all(held[target].last in UNREACHED for target in targets)
    ]
    failing = {target: each.verdict.why for target, each in held.items() if each.verdict.why}
    if len(standing) < 2 or 2 * len(silent) <= len(standing):
        return Believed(failing)
    doubted = frozenset[Target]().union(*silent)
    kept = {target: why for target, why in failing.items() if target not in doubted}
    return Believed(kept, f"{len(silent)} of {len(standing)} hosts do not answer probes at once")


class Probing:
    """Asks again and again, and holds a verdict on each: by turns that hysteresis gives."""

    def __init__(self, wake: asyncio.Event) -> None:
        """`wake` is set when there is another verdict."""
        self._wake = wake
        self._held: dict[Target, Held] = {}
        self._asking: dict[Target, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._unasked: set[Target] = set()
        self._all = asyncio.Event()  # were asked once
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._recalled: dict[Place, str] = {}  # why it was not well, until it is watched
        self.believed = Believed()

    def recall(self, reasons: Mapping[Place, str]) -> None:
        """Who was not well, when another asked; before anything is watched."""
        self._recalled = dict(reasons)

    def watch(self, targets: Iterable[Target]) -> None:
        """These are asked from now on, and no others."""
        wanted = frozenset(targets)
        if wanted == self._held.keys():
            return
        self._unasked = (self._unasked & wanted) | (wanted - self._held.keys())
        self._held = {target: self._held.get(target) or self._begun(target) for target in wanted}
        self._changed.set()

    def _begun(self, target: Target) -> Held:
        if not (why := recalled(target, self._recalled)):
            return Held()
        del self._recalled[target[0], target[1].port]
        self.believed = replace(self.believed, failing={**self.believed.failing, target: why})
        return Held(Verdict(why, known=True), why)

    async def looked(self) -> None:
        """Until all were asked once, if that takes no longer than it should."""
        if self._unasked:
            self._all.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST):
                    await self._all.wait()
            self._settle()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settling())
            while True:
                for gone in self._asking.keys() - self._held.keys():
                    self._asking.pop(gone).cancel()
                for new in self._held.keys() - self._asking.keys():
                    self._asking[new] = tasks.create_task(self._follow(new))
                await self._changed.wait()
                self._changed.clear()

    async def _follow(self, target: Target) -> None:
        address, probe = target
        while True:
            async with self._turns:
                why = await ask(probe, address)
            if target in self._held:
                self._held[target] = self._held[target].after(why)
            self._unasked.discard(target)
            if not self._unasked:
                self._all.set()
            await asyncio.sleep(PERIOD * uniform(1 - JITTER, 1 + JITTER))

    async def _settling(self) -> None:
        while True:
            await asyncio.sleep(SETTLE)
            self._settle()

    def _settle(self) -> None:
        now = believed(self._held, self.believed)
        if now != self.believed:
            self.believed = now
            self._wake.set()
