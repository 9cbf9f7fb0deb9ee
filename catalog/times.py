"""Moments as the catalog writes them: ISO-8601 text in UTC, which sorts."""

from datetime import UTC, datetime


def stamp(seconds: float) -> str:
    """A moment as the catalog writes it: `2026-11-23T14:05:01.123Z`."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(stamp: str) -> float:
    """The moment of a `stamp`, in seconds since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()
