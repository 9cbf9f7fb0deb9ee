"""What Azure announces of this machine: it drains before it is taken, and says that it has.

https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol

import structlog

from meshfed.federation.backoff import doubled
from meshfed.federation.join.imds import PATIENCE, Silent, ask

TAG = Path("/sys/class/dmi/id/chassis_asset_tag")
AZURE = "7783-7084-3265-9085-8269-3286-77"  # what it says on every machine of Azure
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
COMPUTE = "/metadata/instance/compute?api-version=2021-02-01"
ENDING = ("Preempt", "Terminate", "Reboot", "Redeploy")  # Freeze: seconds, and it goes on
POLL = 1.0  # seconds, as the page recommends
WAKING = (
    150.0  # seconds for the first answer: the service starts when it is asked, in up to two minutes
)
LONGEST = 60.0  # seconds between two attempts at a service that does not answer
SETTLE = 2.0  # seconds for callers to hear that it takes no new calls
WHO = "events"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Event:
    """One that will happen, or is happening, to some machines."""

    id: str
    type: str
    machines: tuple[str, ...]
    started: bool
    not_before: str = ""

    @property
    def reason(self) -> str:
        when = f", not before {self.not_before}" if self.not_before else ""
        return f"Azure announces {self.type}{when}"


def events(document: Mapping[str, object]) -> tuple[Event, ...]:
    """Raises Silent."""
    listed = document.get("Events")
    if not isinstance(listed, list):
        raise Silent("no document of scheduled events: it lists none")
    try:
        return tuple(
            Event(
                str(each["EventId"]),
                str(each["EventType"]),
                tuple(map(str, each["Resources"])),
                each["EventStatus"] == "Started",
                moment(str(each.get("NotBefore") or "")),
            )
            for each in listed
        )
    except (KeyError, TypeError) as error:
        raise Silent(f"no document of scheduled events: {error}") from error


def moment(written: str) -> str:
    """`Mon, 19 Sep 2016 18:29:47 GMT` as the mesh writes times; else as it stands.

    Without a zone it is UTC, as Azure has it.
    """
    try:
        found = parsedate_to_datetime(written)
        there = found.astimezone(UTC) if found.tzinfo else found
    except (ValueError, OverflowError):
        return written
    return there.strftime("%Y-%m-%dT%H:%M:%SZ")


def ending(every: Iterable[Event], machine: str) -> tuple[Event, ...]:
    """Those that end this machine. All machines of a set are told of all of them."""
    return tuple(
        event
        for event in every
        if event.type in ENDING and machine.lower() in map(str.lower, event.machines)
    )


def ours(event: Event) -> bool:
    """Whether this machine alone says when it may begin: for others nobody here can speak."""
    return len(event.machines) == 1 and not event.started


def azure(tag: Path = TAG) -> bool:
    """Whether this is a machine of Azure."""
    try:
        return tag.read_text().strip() == AZURE
    except OSError:
        return False


class Drains(Protocol):
    """Who tells the mesh, as `Reporting`."""

    def undrain(self, who: str) -> None: ...
    async def drained(self, who: str, why: str) -> bool: ...


class Watching:
    """Polls, drains while something is announced, and lets it begin once nothing is under way."""

    def __init__(
        self,
        imds: str,
        reporting: Drains,
        busy: Callable[[], Awaitable[bool]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._imds = imds
        self._reporting = reporting
        self._busy = busy
        self._clock = clock
        self._machine = ""
        self._awake = False
        self._why = ""  # as it was told last
        self._heard: float | None = None  # when the mesh was told why
        self._approved: set[str] = set()

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                await self._look()
            except Silent as silent:
                if not failures:
                    log.warning("scheduled events unknown", reason=str(silent))
                failures += 1
                await asyncio.sleep(doubled(POLL, failures, LONGEST))
                continue
            if failures:
                log.info("scheduled events known again")
            failures = 0
            await asyncio.sleep(POLL)

    async def _look(self) -> None:
        """Raises Silent."""
        if not self._machine:
            self._machine = str((await self._asked(COMPUTE)).get("name", ""))
        found = ending(events(await self._asked(EVENTS)), self._machine)
        self._awake = True
        if not found:
            self._over()
            return
        why = found[0].reason
        if self._heard is None or why != self._why:
            await self._drain(why)
        elif self._clock() - self._heard >= SETTLE and not await self._busy():
            for event in found:
                if ours(event) and event.id not in self._approved:
                    await self._approve(event)

    async def _drain(self, why: str) -> None:
        if why != self._why:
            log.info("draining", reason=why)
        self._why = why
        if await self._reporting.drained(WHO, why):
            self._heard = self._clock()

    def _over(self) -> None:
        """It has happened, or was called off."""
        if self._why:
            log.info("draining no more", reason=self._why)
            self._reporting.undrain(WHO)
        self._why, self._heard = "", None
        self._approved.clear()

    async def _approve(self, event: Event) -> None:
        """It need not wait for its time. Raises Silent."""
        said = {"StartRequests": [{"EventId": event.id}]}
        await self._asked(EVENTS, said)
        self._approved.add(event.id)
        log.info("drained", reason=event.reason)

    async def _asked(
        self, path: str, said: Mapping[str, object] | None = None
    ) -> Mapping[str, object]:
        """Raises Silent."""
        patience = PATIENCE if self._awake else WAKING
        return await asyncio.to_thread(ask, self._imds, path, said, patience)
