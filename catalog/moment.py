"""A moment as people name it, and the revision that the catalog was at then."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select

from meshfed.catalog.database import stamp
from meshfed.catalog.schema import changes, state

Named = int | datetime | None  # a revision, a time, or now

FORMS = "a time (14:05, 2026-11-23T14:05, with Z or +01:00), `10m ago`, or a revision"
CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
LENGTH = re.compile(r"(?=\d)(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")


class Unknown(ValueError):
    """Nothing is known of that moment; one line, with what there is."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and the last revision that was committed by then."""

    revision: int
    at: str  # as the catalog writes times

    def __str__(self) -> str:
        return f"revision {self.revision}, {self.at}"


def named(text: str, now: datetime) -> Named:
    """What is meant by it. Local time is the terminal's. Raises Unknown."""
    words = text.strip()
    if words.isascii() and words.isdigit():
        return int(words)
    if words.endswith(" ago"):
        return now.astimezone(UTC) - length(words.removesuffix(" ago"))
    if clock := CLOCK.fullmatch(words):
        return _latest(clock, text, now)
    try:
        # Without a zone it is the local one, summer time or not as it was on that day.
        moment = datetime.fromisoformat(words).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Unknown(f"{text!r} is no moment: write {FORMS}") from error
    if moment > now:
        raise Unknown(f"{words} is still to come")
    return moment


def begun(text: str, now: datetime) -> datetime:
    """Since when: `1h` and `1h ago` are the same; a moment too, but no revision. Raises Unknown."""
    if LENGTH.fullmatch(text.strip()):
        return now.astimezone(UTC) - length(text)
    moment = named(text, now)
    if not isinstance(moment, datetime):
        raise Unknown(f"{text!r} is no time: write 10m, 1h30m, 14:05 or 2026-11-23T14:05")
    return moment


def length(text: str) -> timedelta:
    """`1h`, `90m`, `2d`. Raises Unknown."""
    found = LENGTH.fullmatch(text.strip())
    if not found:
        raise Unknown(f"{text!r} is no length of time: write 10m, 1h30m or 2d")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _latest(clock: re.Match[str], text: str, now: datetime) -> datetime:
    """When the clock last showed this."""
    hour, minute, second = (int(part or 0) for part in clock.groups())
    try:
        today = now.astimezone().replace(
            hour=hour, minute=minute, second=second, microsecond=0, tzinfo=None
        )
    except ValueError as error:
        raise Unknown(f"{text!r} is no moment: write {FORMS}") from error
    if today.astimezone(UTC) > now:
        today -= timedelta(days=1)
    return today.astimezone(UTC)


def found(connection: Connection, asked: Named) -> Moment:
    """The catalog's word on a moment. Raises Unknown, before the first revision and after now."""
    columns = (state.c.revision, state.c.at, state.c.horizon, state.c.horizon_at)
    now = connection.execute(select(*columns)).one()
    if not now.revision:
        raise Unknown("the catalog is at its beginning: nothing has happened yet")
    if asked is None:
        return Moment(now.revision, now.at)
    if isinstance(asked, int):
        return _of_revision(connection, asked, now.revision, now.horizon, now.horizon_at)
    return _of_time(connection, stamp(asked.timestamp()), now.horizon, now.horizon_at)


def _of_revision(
    connection: Connection, asked: int, newest: int, horizon: int, since: str
) -> Moment:
    if asked > newest:
        raise Unknown(f"revision {asked} is still to come: the newest is {newest}")
    if asked < horizon:
        raise Unknown(pruned(f"revision {asked}", horizon, since))
    if asked < 1:
        raise Unknown("revisions begin with 1")
    if asked == horizon:
        return Moment(horizon, since)
    its = select(changes.c.at).where(changes.c.revision == asked).order_by(changes.c.id).limit(1)
    at = connection.execute(its).scalar()
    if at is None:
        raise Unknown(f"revision {asked} left no trace: name its time instead")
    return Moment(asked, at)


def _of_time(connection: Connection, asked: str, horizon: int, since: str) -> Moment:
    if asked < since:
        raise Unknown(pruned(asked, horizon, since))
    last = select(changes.c.revision).where(changes.c.at <= asked)
    last = last.order_by(changes.c.at.desc(), changes.c.id.desc()).limit(1)
    revision = connection.execute(last).scalar() or horizon
    if not revision:
        first = connection.execute(select(changes.c.at).order_by(changes.c.at).limit(1)).scalar()
        raise Unknown(f"nothing was known at {asked}: the first revision is of {first}")
    return Moment(max(revision, horizon), asked)


def pruned(asked: str, horizon: int, since: str) -> str:
    return (
        f"{asked} is beyond what is kept: history begins with revision {horizon}, of {since}"
        " (`history.retain` in the configuration)"
    )
