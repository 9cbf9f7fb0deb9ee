"""Whether to believe an observation."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from msgspec import Struct

from meshfed.catalog.model import Endpoint, Evidence, Known, Observation

V = TypeVar("V")

Key = tuple[str, int, str, int]

MOST_OF_A_SCOPE = 0.5  # a list may lose this much of one scope …
FEW = 3  # … or fewer than this many endpoints,
MOST_OF_A_PROVIDER = 0.3  # and this much of the provider's whole, in one pass
ANSWERS = 3  # a doubted list is believed after this many agreeing answers
SECONDS = 30.0  # over at least this long

AFTER = "are missing after: "


@dataclass(frozen=True, slots=True)
class Fleet:
    """The provider's other scopes in this pass: what they held, and what of it is gone."""

    endpoints: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """A doubt under examination: the same keys missing, in how many answers, since when."""

    gone: frozenset[Key]
    since: float
    answers: int = 1

    def believed(self, now: float) -> bool:
        return self.answers >= ANSWERS and now - self.since >= SECONDS


class Admitted(Struct, frozen=True):
    """What is believed now; a trial means: look again."""

    known: Known
    trial: Trial | None = None


def admit(
    known: Known,
    seen: Observation,
    *,
    fleet: Fleet = Fleet(),
    trial: Trial | None = None,
    now: float = 0.0,
    accepted: bool = False,
) -> Admitted:
    """Prefer what was known over a list that lost too much of it (ARCHITECTURE.md, section 4).

    `now` is in seconds, of any clock that only goes forward. `accepted`: an operator has said that
    what is seen is true.
    """
    seen = replace(
        seen,
        services=recognised(known.services, seen.services),
        workloads=recognised(known.workloads, seen.workloads),
        endpoints=recognised(known.endpoints, seen.endpoints),
    )
    if accepted or (seen.evidence is not Evidence.FAULT and not known.endpoints):
        return Admitted(_believed(known, seen))
    if seen.evidence is Evidence.FAULT:
        # Nothing was read, so nothing is known to be gone; only a person can say otherwise.
        stale = _keys(known.endpoints)
        return Admitted(
            replace(known, doubt=seen.fault, stale=stale, rejected=seen.rejected), trial
        )
    if seen.evidence is Evidence.STATED:
        return Admitted(_believed(known, seen))
    gone = vanished(known.endpoints, seen.endpoints)
    why = doubt(known, seen, gone, fleet)
    if not why:
        return Admitted(_believed(known, seen))
    if seen.fault:
        # What could not be read is no answer, however often it is repeated; the provider goes on.
        return Admitted(_kept(known, seen, gone, why))
    trial = _continued(trial, gone, now)
    if trial.believed(now):
        return Admitted(_believed(known, seen))
    return Admitted(_kept(known, seen, gone, why), trial)


def recognised(known: frozenset[V], seen: frozenset[V]) -> frozenset[V]:
    """What is seen, and of what is as it was the objects that are known.

    Values are compared here once; whoever compares them again finds them to be the same objects.
    """
    if not known:
        return seen
    different = known ^ seen
    return (known - different) | (different & seen) if different else known


def vanished(before: frozenset[Endpoint], after: frozenset[Endpoint]) -> frozenset[Key]:
    """The keys that are missing afterwards."""
    different = before - after
    if not different:
        return frozenset()
    addresses = {endpoint.address for endpoint in different}
    return _keys(different) - _keys(e for e in after if e.address in addresses)


def doubt(known: Known, seen: Observation, gone: frozenset[Key], fleet: Fleet) -> str:
    """Why these absences from a list are not believed at once; empty when they are."""
    lost, had = len(gone), len(known.endpoints)
    if not lost:
        return ""
    if lost == had:
        return f"all {had} endpoints vanished at once"
    if lost >= FEW and lost > MOST_OF_A_SCOPE * had:
        return f"{lost} of {had} endpoints vanished at once"
    if lost + fleet.gone > MOST_OF_A_PROVIDER * (had + fleet.endpoints):
        return f"{lost + fleet.gone} of the provider's {had + fleet.endpoints} endpoints vanished"
    if trouble := seen.fault or known.doubt.rpartition(AFTER)[2]:
        return f"{lost} of {had} endpoints {AFTER}{trouble}"
    return ""


def _continued(trial: Trial | None, gone: frozenset[Key], now: float) -> Trial:
    if trial is None or trial.gone != gone:
        return Trial(gone, now)
    return replace(trial, answers=trial.answers + 1)


def _believed(known: Known, seen: Observation) -> Known:
    return Known(
        provider=known.provider,
        scope=known.scope,
        services=seen.services,
        workloads=seen.workloads,
        endpoints=seen.endpoints,
        rejected=seen.rejected,
    )


def _kept(known: Known, seen: Observation, gone: frozenset[Key], why: str) -> Known:
    """What is seen, and what is missing from it with all that it needs to go on answering."""
    kept = frozenset(e for e in known.endpoints if e.key in gone)
    declared = {service.name for service in seen.services}
    present = {workload.id for workload in seen.workloads}
    return Known(
        provider=known.provider,
        scope=known.scope,
        services=seen.services | {s for s in known.services if s.name not in declared},
        workloads=seen.workloads | {w for w in known.workloads if w.id not in present},
        endpoints=seen.endpoints | kept,
        doubt=why,
        stale=gone,
        rejected=seen.rejected,
    )


def _keys(endpoints: Iterable[Endpoint]) -> frozenset[Key]:
    return frozenset(endpoint.key for endpoint in endpoints)
