"""Machines that joined and are not heard any more: what the leader makes of their silence."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from meshfed.catalog.database import stamp
from meshfed.catalog.leases import Lease, Leases
from meshfed.catalog.schema import GONE, MISSED, NEW
from meshfed.catalog.store import Away, Catalog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Silent:
    """What has become of leases since the look before."""

    missed: tuple[Lease, ...] = ()
    gone: tuple[Lease, ...] = ()
    ended: tuple[Lease, ...] = ()
    doubt: str = ""


class Ear:
    """Who is not heard. Clocks of hosts differ: only news of each counts, by this clock.

    Whoever was not listening believes in nobody's silence: what is not heard counts from the first
    look, and from the first after a pause. Nor is it believed of most at once, for then it is
    rather the control plane that cannot be reached: hosts would go on calling each other well,
    and hear at the end of it that nobody is there. At that end all have their time again.
    """

    def __init__(self, lease: timedelta, gone: timedelta) -> None:
        self._lease = lease.total_seconds()
        self._gone = gone.total_seconds()
        self._heard: dict[str, tuple[str, float]] = {}  # workload → its lease, first seen when
        self._looked = float("-inf")
        self._doubted = False

    def look(self, leases: Sequence[Lease], now: float, wall: str) -> Silent:
        """`now` by a clock that nobody sets, `wall` as `stamp` writes it."""
        before = {} if now - self._looked > self._lease / 2 else self._heard
        self._looked = now
        self._heard = {
            each.workload: _heard(before.get(each.workload), each.until, now) for each in leases
        }
        standing = [each for each in leases if not each.silence]
        still = [each for each in standing if self._silence(each, now) > self._lease / 2]
        doubted, self._doubted = self._doubted, len(standing) > 1 and 2 * len(still) > len(standing)
        if self._doubted:
            return Silent(doubt=f"{len(still)} of {len(standing)} agents are silent at once")
        if doubted:
            self._heard = {each.workload: (each.until, now) for each in leases}
        return Silent(
            missed=tuple(
                each
                for each in leases
                if each.silence in ("", NEW) and self._silence(each, now) > self._lease
            ),
            gone=tuple(
                each
                for each in leases
                if each.silence == MISSED and self._silence(each, now) > self._gone
            ),
            ended=tuple(
                each for each in leases if each.silence == GONE and "" < each.not_after < wall
            ),
        )

    def _silence(self, lease: Lease, now: float) -> float:
        return now - self._heard[lease.workload][1]


def _heard(before: tuple[str, float] | None, until: str, now: float) -> tuple[str, float]:
    return before if before and before[0] == until else (until, now)


async def listen(
    led: Catalog,
    lease: timedelta,
    gone: timedelta,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """For ever, in the term that this catalog is of."""
    leases, ear = Leases(led), Ear(lease, gone)
    rest = min(1.0, lease.total_seconds() / 10)
    doubt = ""
    while True:
        await asyncio.sleep(rest)
        try:
            found = ear.look(await leases.every(), clock(), stamp(time.time()))
            await _tell(leases, found, lease)
        except Away:  # which others say, who cannot wait
            continue
        if found.doubt and not doubt:
            log.warning("silence doubted", reason=found.doubt)
        elif doubt and not found.doubt:
            log.info("doubt settled", reason=doubt)
        doubt = found.doubt


async def _tell(leases: Leases, found: Silent, lease: timedelta) -> None:
    """Raises Away."""
    if found.missed:
        why = f"its agent said nothing for {lease.total_seconds():g} s"
        await leases.miss(found.missed, why)
        for each in found.missed:
            log.warning("agent silent", workload=each.name, until=each.until)
    if found.gone:
        await leases.bury(found.gone)
        for each in found.gone:
            log.warning("machine gone", workload=each.name, until=each.until)
    if found.ended:
        await leases.forget(found.ended)
        for each in found.ended:
            log.warning("machine forgotten", workload=each.name, not_after=each.not_after)
