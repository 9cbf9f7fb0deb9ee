"""What people say of a workload's health: it goes before all that providers and agents say."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from meshfed.catalog.model import Health, Word
from meshfed.catalog.plain import Plain


class State(Word):
    """What a workload was told to be, and how its endpoints are called for it."""

    DRAINED = "drained"
    DISABLED = "disabled"


HEALTH = {State.DRAINED: Health.DRAINING, State.DISABLED: Health.UNHEALTHY}


@dataclass(frozen=True, slots=True)
class Override:
    """What one person said of one workload."""

    state: State
    reason: str
    who: str

    @property
    def health(self) -> Health:
        return HEALTH[self.state]

    @property
    def verdict(self) -> str:
        """As `health_reason` has it."""
        by = f"{self.state} by {self.who}"
        return f"{by}: {self.reason}" if self.reason else by


Overrides = Mapping[str, Override]  # by workload

STANDING = Plain("select workload, state, reason, who from overrides")
SAID = Plain(
    "insert into overrides (workload, state, reason, who, at)"
    " values (:workload, :state, :reason, :who, :at) on conflict (workload) do update set"
    " state = excluded.state, reason = excluded.reason, who = excluded.who, at = excluded.at"
)
TAKEN_BACK = Plain("delete from overrides where workload = :workload")


def standing(connection: Connection) -> Overrides:
    """All of them: people speak of few workloads at a time."""
    return {
        workload: Override(State(state), reason, who)
        for workload, state, reason, who in STANDING.rows(connection)
    }


def say(connection: Connection, workload: str, override: Override, at: str) -> None:
    said = {"reason": override.reason, "who": override.who, "at": at}
    SAID.run(connection, workload=workload, state=override.state.value, **said)


def take_back(connection: Connection, workload: str) -> None:
    TAKEN_BACK.run(connection, workload=workload)
