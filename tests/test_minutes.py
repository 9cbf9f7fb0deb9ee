"""Sums by the minute: nothing is lost, or counted twice, until the catalog has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfed.catalog.traffic import Edge, Load
from meshfed.federation.edges import Counted
from meshfed.federation.minutes import KEPT, MOST, Minutes

NOON = 1795435200.0  # 2026-11-23T12:00:00Z
FIRST, SECOND = "2026-11-23T12:00:00.000Z", "2026-11-23T12:01:00.000Z"
STORE, LEDGER = Edge("buyer.shop", "store.shop"), Edge("buyer.shop", "ledger.shop")


def told(requests: int = 0, failed: int = 0, in_flight: int = 0, edge: Edge = STORE) -> Counted:
    return Counted(edge, Load(requests, failed, in_flight))


@pytest.fixture
def minutes() -> Minutes:
    return Minutes()


def test_reports_of_one_minute_are_added_up(minutes: Minutes) -> None:
    minutes.take("a", [told(5, 1), told(2, edge=LEDGER)], NOON)
    minutes.take("b", [told(7)], NOON + 59)
    assert minutes.unwritten() == {(FIRST, STORE): (12, 1, 0), (FIRST, LEDGER): (2, 0, 0)}


def test_what_is_written_is_no_news_and_the_sum_goes_on(minutes: Minutes) -> None:
    minutes.take("a", [told(5)], NOON)
    minutes.written(minutes.unwritten())
    assert minutes.unwritten() == {}
    minutes.take("a", [told(3)], NOON + 5)
    assert minutes.unwritten() == {(FIRST, STORE): (8, 0, 0)}


def test_what_moves_while_it_is_being_written_is_written_again(minutes: Minutes) -> None:
    minutes.take("a", [told(5)], NOON)
    being = minutes.unwritten()
    minutes.take("a", [told(1)], NOON + 1)
    minutes.written(being)
    assert minutes.unwritten() == {(FIRST, STORE): (6, 0, 0)}


def test_a_minute_that_waits_for_the_catalog_stays_what_it_was(minutes: Minutes) -> None:
    minutes.take("a", [told(5, in_flight=2)], NOON)
    minutes.take("a", [told(1, in_flight=0)], NOON + 60)
    assert minutes.unwritten() == {(FIRST, STORE): (5, 0, 2), (SECOND, STORE): (1, 0, 0)}
    minutes.written(minutes.unwritten())
    assert minutes.unwritten() == {}


def test_a_clock_that_is_set_back_opens_no_minute_again(minutes: Minutes) -> None:
    minutes.take("a", [told(5)], NOON + 60)
    minutes.take("a", [told(1)], NOON)
    assert minutes.unwritten() == {(SECOND, STORE): (6, 0, 0)}


def test_in_flight_is_the_sum_of_what_sidecars_said_last(minutes: Minutes) -> None:
    minutes.take("a", [told(in_flight=3)], NOON)
    minutes.take("b", [told(in_flight=4)], NOON)
    minutes.take("a", [told(in_flight=1)], NOON + 5)
    assert minutes.unwritten() == {(FIRST, STORE): (0, 0, 5)}
    minutes.take("b", [], NOON + 5)  # what is at rest is not mentioned
    assert minutes.unwritten() == {(FIRST, STORE): (0, 0, 1)}
    minutes.gone("a", NOON + 6)
    assert minutes.unwritten() == {(FIRST, STORE): (0, 0, 0)}


def test_two_places_that_are_one_edge_are_added(minutes: Minutes) -> None:
    minutes.take("a", [told(1, in_flight=1), told(2, in_flight=2)], NOON)
    assert minutes.unwritten() == {(FIRST, STORE): (3, 0, 3)}


def test_what_waited_for_an_hour_is_given_up_and_said(minutes: Minutes) -> None:
    minutes.take("a", [told(5)], NOON)
    minutes.take("a", [told(2)], NOON + 60)
    assert minutes.forget(NOON + 60 * KEPT) == 0
    assert minutes.forget(NOON + 60 * (KEPT + 1)) == 5
    assert minutes.unwritten() == {(SECOND, STORE): (2, 0, 0)}


def test_a_number_that_no_column_holds_is_the_largest_that_one_does(minutes: Minutes) -> None:
    for _ in range(2):
        minutes.take("a", [told(2**64 - 1, 2**64 - 1, 2**64 - 1)], NOON)
    assert minutes.unwritten() == {(FIRST, STORE): (MOST, MOST, MOST)}


STEPS = st.one_of(
    st.tuples(st.just("report"), st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 90)),
    st.tuples(st.just("write"), st.booleans()),  # … and whether that came to an end
)


@given(st.lists(STEPS, max_size=40))
def test_the_catalog_ends_with_all_that_was_reported(steps: list[tuple[object, ...]]) -> None:
    minutes, now, catalog, reported = Minutes(), NOON, {}, 0
    for step in [*steps, ("write", True)]:
        match step:
            case ("report", who, int(count), int(seconds)):
                now += seconds
                minutes.take(who, [told(count)], now)
                reported += count
            case (_, bool(answered)):
                rows = minutes.unwritten()
                catalog |= rows  # it may be committed, and nobody hears of it
                if answered:
                    minutes.written(rows)
    assert sum(load.requests for load in catalog.values()) == reported
    assert minutes.unwritten() == {}
