"""Whose silence is believed: virtual time, and no catalog."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from meshfed.catalog.leases import Lease, Word
from meshfed.catalog.schema import GONE, MISSED, NEW
from meshfed.federation.join.attendance import Words
from meshfed.federation.join.silence import Ear, Silent
from meshfed.providers.hysteresis import Verdict

LEASE, GONE_AFTER = 30.0, 600.0
NEVER, ENDED, NOW = "2999", "2026-01-01", "2026-12-01"
NOTHING = Silent()


def ear() -> Ear:
    return Ear(timedelta(seconds=LEASE), timedelta(seconds=GONE_AFTER))


class Machines:
    """Machines whose agents come every ten seconds, unless they fell silent."""

    def __init__(self, count: int, listener: Ear | None = None) -> None:
        self.names = [f"m-{n}" for n in range(count)]
        self.until = dict.fromkeys(self.names, "0")
        self.silence = dict.fromkeys(self.names, "")
        self.not_after = dict.fromkeys(self.names, NEVER)
        self.ear = listener or ear()

    def pass_(self, begin: float, end: float, silent: Iterable[str] = ()) -> Sequence[Silent]:
        """What is found in each second; what is believed of someone is so from then on."""
        found = []
        for now in range(int(begin), int(end)):
            for n, name in enumerate(self.names):
                if name not in silent and (now + n) % 10 == 0:
                    self.until[name], self.silence[name] = str(now), ""
            look = self.look(float(now))
            self.silence |= {lease.workload: MISSED for lease in look.missed}
            self.silence |= {lease.workload: GONE for lease in look.gone}
            found.append(look)
        return found

    def look(self, now: float) -> Silent:
        leases = [
            Lease(each, each, self.until[each], self.silence[each], self.not_after[each])
            for each in self.names
        ]
        return self.ear.look(leases, now, NOW)


def missed(found: Sequence[Silent], begin: float) -> dict[str, float]:
    """Who, and when."""
    return {lease.workload: begin + n for n, look in enumerate(found) for lease in look.missed}


def test_one_that_fell_silent_is_missed_within_its_lease_and_nobody_else() -> None:
    machines = Machines(4)
    assert set(machines.pass_(0, 100)) == {NOTHING}
    ((who, when),) = missed(machines.pass_(100, 200, ["m-2"]), 100).items()
    assert who == "m-2"
    assert 120 < when <= 130 + 1


def test_it_is_taken_away_after_ten_minutes_and_forgotten_once_its_certificate_has_ended() -> None:
    machines = Machines(4)
    machines.pass_(0, 100)
    found = machines.pass_(100, 100 + 720, ["m-2"])
    gone = [100 + n for n, look in enumerate(found) if look.gone]
    assert len(gone) == 1
    assert GONE_AFTER - 10 <= gone[0] - 100 <= GONE_AFTER + 1
    assert machines.look(821.0) == NOTHING
    machines.not_after["m-2"] = ENDED
    assert [lease.workload for lease in machines.look(822.0).ended] == ["m-2"]


def test_silence_of_most_at_once_is_not_believed_for_as_long_as_it_lasts() -> None:
    machines = Machines(4)
    machines.pass_(0, 100)
    found = machines.pass_(100, 100 + 720, machines.names)
    assert not any(look.missed or look.gone for look in found)
    assert found[-1].doubt == "4 of 4 agents are silent at once"
    back = machines.pass_(820, 900)
    assert not any(look.missed or look.gone for look in back)
    assert back[-1] == NOTHING


def test_of_four_two_may_go_at_once_and_the_others_one_by_one() -> None:
    machines = Machines(4)
    machines.pass_(0, 100)
    assert set(missed(machines.pass_(100, 200, ["m-0", "m-1"]), 100)) == {"m-0", "m-1"}
    assert set(missed(machines.pass_(200, 300, ["m-0", "m-1", "m-2"]), 200)) == {"m-2"}
    assert set(missed(machines.pass_(300, 400, machines.names), 300)) == {"m-3"}


def test_one_whose_agent_was_never_heard_is_missed_too_and_casts_no_doubt_on_others() -> None:
    machines = Machines(5)
    never = machines.names[:3]
    machines.silence |= dict.fromkeys(never, NEW)
    found = machines.pass_(0, 100, never)
    assert missed(found, 0) == dict.fromkeys(never, LEASE + 1)
    assert not any(look.doubt for look in found)


def test_a_new_leader_hears_for_itself_first() -> None:
    machines = Machines(4)
    machines.pass_(0, 100)
    machines.pass_(100, 125, ["m-2"])
    machines.ear = ear()  # another replica leads now
    ((who, when),) = missed(machines.pass_(125, 200, ["m-2"]), 125).items()
    assert (who, when) == ("m-2", 125 + LEASE + 1)


def test_after_a_pause_in_which_nothing_could_be_read_all_have_their_time_again() -> None:
    machines = Machines(4)
    machines.pass_(0, 100)
    assert machines.look(400.0) == NOTHING  # no agent could be heard meanwhile
    assert set(machines.pass_(401, 500)) == {NOTHING}


def test_a_verdict_turns_after_three_looks_and_back_after_two() -> None:
    held, seen = Verdict(), []
    for why in ("", "a", "a", "", "a", "a", "b", "a", "", "a", "", ""):
        held = held.after(why)
        seen.append(held.why)
    assert seen == ["", "", "", "", "", "", "b", "a", "a", "a", "a", ""]
    assert Verdict().after("down").why == "down"  # the first look decides alone


def test_the_words_of_machines_that_come_no_more_are_not_kept() -> None:
    words, well, ill = Words(30.0), Word("", "", ()), Word("", "no Envoy", ())
    words.add({"gone": ill, "here": ill}, 0.0)
    for now in range(10, 100, 10):
        words.add({"here": well}, float(now))
        assert words.last("here") == well
    assert words.last("gone") is None
    for n in range(1000):
        words.add({f"passing-{n}": well}, 100.0 + n)
        assert len(words) <= 62
    words.add({"here": well}, 0.0)  # the clock was set back
    assert words.last("here") == well
