"""What is believed of a platform that suddenly says less."""

from dataclasses import replace

import pytest
from msgspec import structs

from meshfed.catalog.model import (
    Endpoint,
    Evidence,
    Known,
    Observation,
    Rejected,
    ServiceName,
    Workload,
)
from meshfed.federation.admit import Admitted, Fleet, Trial, admit

SHOP = ServiceName("bookstore", "shop")


def endpoint(number: int, weight: int = 1) -> Endpoint:
    return Endpoint(
        SHOP, 8080, f"10.0.0.{number}", 8080, f"w{number}", "rack", "rack/a", weight=weight
    )


def endpoints(*numbers: int) -> frozenset[Endpoint]:
    return frozenset(map(endpoint, numbers))


def known(*numbers: int, doubt: str = "") -> Known:
    return Known("rack", "rack/a", endpoints=endpoints(*numbers), doubt=doubt)


def listed(*numbers: int) -> Observation:
    return Observation("rack/a", endpoints=endpoints(*numbers))


def addresses(admitted: Admitted) -> set[int]:
    return {int(e.address.rpartition(".")[2]) for e in admitted.known.endpoints}


@pytest.mark.parametrize(
    ("before", "seen", "after", "doubted"),
    [
        pytest.param((), (), set(), False, id="nothing known, nothing seen"),
        pytest.param((), (1, 2), {1, 2}, False, id="a first answer is believed"),
        pytest.param((1, 2), (1, 2, 3), {1, 2, 3}, False, id="additions are believed"),
        pytest.param((1,), (), {1}, True, id="an empty answer is not believed"),
        pytest.param((1, 2, 3, 4), (1,), {1, 2, 3, 4}, True, id="three of four gone is doubted"),
        pytest.param(
            (1, 2, 3, 4), (1, 9), {1, 2, 3, 4, 9}, True, id="what is new stands meanwhile"
        ),
        pytest.param((1, 2, 3, 4), (1, 2, 3), {1, 2, 3}, False, id="one of four is believed"),
        pytest.param((1, 2, 3), (1, 2), {1, 2, 3}, True, id="a third of the provider is doubted"),
    ],
)
def test_a_list_that_lost_too_much_is_doubted(
    before: tuple[int, ...], seen: tuple[int, ...], after: set[int], doubted: bool
) -> None:
    admitted = admit(known(*before), listed(*seen))
    assert addresses(admitted) == after
    assert bool(admitted.known.doubt) is doubted
    assert (admitted.trial is not None) is doubted


def test_what_is_kept_though_unseen_is_marked_stale() -> None:
    admitted = admit(known(1, 2), listed())
    assert admitted.known.doubt == "all 2 endpoints vanished at once"
    assert admitted.known.stale == {endpoint(1).key, endpoint(2).key}


def test_a_changed_weight_is_no_absence() -> None:
    heavier = Observation("rack/a", endpoints=frozenset({endpoint(1, weight=5)}))
    admitted = admit(known(1), heavier)
    assert not admitted.known.doubt
    assert {e.weight for e in admitted.known.endpoints} == {5}


def test_many_small_losses_in_one_pass_are_doubted_together() -> None:
    ten = known(*range(1, 11))
    assert not admit(ten, listed(*range(1, 9)), fleet=Fleet(90, 20)).known.doubt
    admitted = admit(ten, listed(*range(1, 9)), fleet=Fleet(90, 29))
    assert admitted.known.doubt == "31 of the provider's 100 endpoints vanished"


def test_a_deletion_that_someone_stated_is_believed() -> None:
    seen = Observation("rack/a", endpoints=endpoints(1), evidence=Evidence.STATED)
    assert addresses(admit(known(1, 2, 3, 4), seen)) == {1}


def test_a_fault_changes_nothing_until_an_operator_accepts_it() -> None:
    fault = Observation("rack/a", evidence=Evidence.FAULT, fault="the file has vanished")
    admitted = admit(known(1, 2), fault, now=1e9)
    assert addresses(admitted) == {1, 2}
    assert admitted.known.doubt == "the file has vanished"
    assert addresses(admit(admitted.known, fault, accepted=True)) == set()


def test_what_is_wrong_with_the_entries_of_a_faulty_list_is_told() -> None:
    wrong = Rejected("hosts.yaml:2", "hosts[0].port", "missing")
    fault = Observation("rack/a", evidence=Evidence.FAULT, fault="none is sound", rejected=(wrong,))
    assert admit(known(1), fault).known.rejected == (wrong,)


def test_any_absence_after_a_fault_is_doubted() -> None:
    shaken = known(*range(1, 9), doubt="503 from the API")
    admitted = admit(shaken, listed(*range(1, 8)))
    assert admitted.known.doubt == "1 of 8 endpoints are missing after: 503 from the API"
    again = admit(admitted.known, listed(*range(1, 8)), trial=admitted.trial, now=1)
    assert again.known.doubt == admitted.known.doubt


def test_an_absence_from_a_list_that_says_it_is_partial_is_doubted() -> None:
    partial = replace(listed(*range(1, 8)), fault="DNS does not answer for store-8")
    admitted = admit(known(*range(1, 9)), partial)
    assert (
        admitted.known.doubt
        == "1 of 8 endpoints are missing after: DNS does not answer for store-8"
    )


def test_a_partial_list_is_never_believed_for_being_repeated() -> None:
    partial = replace(listed(), fault="DNS does not answer")
    state = admit(known(1, 2), partial, now=0)
    for now in (10, 20, 30, 300):
        state = admit(state.known, partial, trial=state.trial, now=now)
    assert addresses(state) == {1, 2}


def test_three_agreeing_answers_over_half_a_minute_are_believed() -> None:
    state = admit(known(1, 2), listed(), now=0)
    for now, believed in ((1, False), (3, False), (29, False), (30, True)):
        state = admit(state.known, listed(), trial=state.trial, now=now)
        assert (addresses(state) == set()) is believed
    assert state.trial is None
    assert not state.known.doubt


def test_an_answer_that_disagrees_starts_the_trial_anew() -> None:
    state = admit(known(1, 2, 3, 4), listed(), now=0)
    state = admit(state.known, listed(1), trial=state.trial, now=40)
    assert state.trial == Trial(frozenset(endpoint(n).key for n in (2, 3, 4)), 40)


def test_a_kept_endpoint_keeps_its_workload() -> None:
    workload = Workload("store-1", "rack", "rack/a")
    kept = endpoint(1)
    before = Known("rack", "rack/a", workloads=frozenset({workload}), endpoints=frozenset({kept}))
    assert admit(before, listed()).known.workloads == {workload}


def test_what_is_as_it_was_is_the_object_that_is_known() -> None:
    before = known(1, 2, 3)
    changed = replace(listed(1, 2), endpoints=endpoints(1, 2) | {endpoint(3, weight=9)})
    after = admit(before, changed).known
    assert after.endpoints == changed.endpoints
    assert {id(e) for e in after.endpoints} & {id(e) for e in before.endpoints} == {
        id(e) for e in before.endpoints if e.address != endpoint(3).address
    }
    assert admit(before, listed(1, 2, 3)).known.endpoints is before.endpoints


def test_one_of_two_endpoints_at_an_address_may_be_missing() -> None:
    beside = structs.replace(endpoint(1), target=9090)
    before = Known("rack", "rack/a", endpoints=endpoints(1, 2, 3) | {beside})
    admitted = admit(before, listed(2, 3), fleet=Fleet(endpoints=2))
    assert admitted.known.stale == {endpoint(1).key, beside.key}
    admitted = admit(before, listed(1, 2, 3), fleet=Fleet(endpoints=9))
    assert admitted.known.endpoints == endpoints(1, 2, 3)
