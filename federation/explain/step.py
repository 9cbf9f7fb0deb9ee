"""One step of an explanation: what was looked at, how it stands, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a step stands; only what is failing is a finding."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Step:
    step: str
    state: State
    object: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        told = ": ".join(part for part in (self.step, self.object, self.what) if part)
        return f"{told}; {self.remedy}" if self.remedy else told


COLUMNS = ("step", "state", "object", "what", "remedy")


def ok(step: str, about: object, what: str) -> Step:
    return Step(step, State.OK, str(about), what)


def note(step: str, about: object, what: str, remedy: str = "") -> Step:
    return Step(step, State.NOTE, str(about), what, remedy)


def warning(step: str, about: object, what: str, remedy: str = "") -> Step:
    return Step(step, State.WARNING, str(about), what, remedy)


def failing(step: str, about: object, what: str, remedy: str = "") -> Step:
    return Step(step, State.FAILING, str(about), what, remedy)


def failures(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.state is State.FAILING)


def some(names: Iterable[object], most: int = 5) -> str:
    """Names for a sentence; of many, the first few and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def counted(number: int, what: str) -> str:
    """`1 proxy`, `2 proxies`."""
    if number == 1:
        return f"1 {what}"
    return f"{number} {what[:-1]}ies" if what.endswith("y") else f"{number} {what}s"
