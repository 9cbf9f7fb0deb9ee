"""A moment as people name it, in their own time."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from meshfed.catalog.moment import Named, Unknown, named

NOW = datetime(2026, 11, 23, 14, 30, tzinfo=UTC)  # 15:30 in Berlin, where it is winter


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]  # year, month, day, …


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        pytest.param("17", 17, id="a revision"),
        pytest.param("14:05", utc(2026, 11, 23, 13, 5), id="this day, by the terminal's clock"),
        pytest.param("14:05:09", utc(2026, 11, 23, 13, 5, 9), id="with seconds"),
        pytest.param("16:00", utc(2026, 11, 22, 15, 0), id="what is to come was yesterday"),
        pytest.param("10m ago", utc(2026, 11, 23, 14, 20), id="minutes ago"),
        pytest.param("1d2h30m ago", utc(2026, 11, 22, 12, 0), id="days, hours and minutes ago"),
        pytest.param("2026-11-23T14:05", utc(2026, 11, 23, 13, 5), id="local without a zone"),
        pytest.param("2026-11-23 14:05:09.5", utc(2026, 11, 23, 13, 5, 9, 500_000),
                     id="with a space, and parts of a second"),
        pytest.param("2026-07-01T14:05", utc(2026, 7, 1, 12, 5), id="summer time, that day"),
        pytest.param("2026-11-23T14:05Z", utc(2026, 11, 23, 14, 5), id="UTC"),
        pytest.param("2026-11-23T14:05+05:30", utc(2026, 11, 23, 8, 35), id="another zone"),
        pytest.param("2026-11-23", utc(2026, 11, 22, 23, 0), id="a day begins at midnight"),
    ],
)  # fmt: skip
def test_what_is_meant(text: str, meant: Named) -> None:
    assert named(text, NOW) == meant


@pytest.mark.parametrize(
    "text", ["", "noon", "24:00", "1:2", "ago", "m ago", "-1", "14.05", "１７"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(Unknown, match=r"write"):
        named(text, NOW)


def test_what_is_still_to_come() -> None:
    with pytest.raises(Unknown, match="still to come"):
        named("2026-11-23T14:31Z", NOW)
