"""Proxies that are not well: named, begun again ever more rarely, and forgotten once well."""

from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.care import AT_ONCE, Ailment, Care, Pulse, ailment

NOON = 1_800_000_000.0
DAY = 86_400.0


@pytest.mark.parametrize(
    ("pulse", "state"),
    [
        pytest.param(Pulse(None, "", None), None, id="nothing owed"),
        pytest.param(Pulse((7, NOON - 29), "", None), None, id="owing for 29 s is being busy"),
        pytest.param(Pulse((7, NOON - 31), "", None), "behind", id="owing for 31 s"),
        pytest.param(Pulse((7, NOON - 31), "LDS: no", None), "rejecting", id="rejecting is worse"),
        pytest.param(Pulse(None, "", NOON + 13 * DAY), "expiring", id="a certificate near its end"),
        pytest.param(Pulse(None, "", NOON + 15 * DAY), None, id="a certificate with weeks to go"),
        pytest.param(
            Pulse(None, "", NOON + DAY / 3 - 1, NOON - DAY * 2 / 3 - 1),
            "expiring",
            id="one of a day in its last third",
        ),
        pytest.param(
            Pulse(None, "", NOON + DAY / 3 + 1, NOON - DAY * 2 / 3 + 1),
            None,
            id="one of a day before that",
        ),
    ],
)
def test_what_is_wrong(pulse: Pulse, state: str | None) -> None:
    found = ailment(pulse, NOON)
    assert (found and found.state) == state
    assert found is None or found.reason


def test_a_reason_says_which_revision_and_since_when() -> None:
    found = ailment(Pulse((7, NOON - 31), "", None), NOON)
    assert found is not None
    assert found.reason == "has not acknowledged revision 7, offered at 2027-01-15T07:59:29.000Z"


@dataclass
class Patient:
    """A proxy whose state a test says."""

    id: str = "1"
    ill: Ailment | None = None
    ended: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"store-{self.id}"

    @property
    def well(self) -> bool:
        return self.ill is None

    def examine(self, now: float) -> Ailment | None:
        del now
        return self.ill

    def begin_again(self, why: str) -> None:
        self.ended.append(why)


@dataclass
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


REJECTING = Ailment("rejecting", "LDS: address in use")
BEHIND = Ailment("behind", "has not acknowledged revision 7")


def test_who_rejects_is_begun_again_after_30_s_and_then_ever_more_rarely() -> None:
    clock, patient = Clock(), Patient(ill=REJECTING)
    care = Care(Metrics(CollectorRegistry()), clock)
    moments = []
    for second in range(4000):
        clock.now = NOON + second
        care.look([patient])
        if len(patient.ended) > len(moments):
            moments.append(second)
    assert moments == [30, 90, 210, 450, 930, 1890, 3810]
    assert patient.ended[0] == "begin again: rejecting: LDS: address in use"


def test_who_is_late_has_waited_already() -> None:
    patient = Patient(ill=BEHIND)
    Care(Metrics(CollectorRegistry()), Clock()).look([patient])
    assert len(patient.ended) == 1


def test_a_recovery_is_forgotten_and_the_next_illness_is_a_new_one() -> None:
    clock, patient = Clock(), Patient(ill=BEHIND)
    care = Care(Metrics(CollectorRegistry()), clock)
    care.look([patient])
    patient.ill = None
    care.look([patient])
    patient.ill = BEHIND
    care.look([patient])
    assert len(patient.ended) == 2


def test_a_new_stream_of_a_hopeless_proxy_is_no_recovery() -> None:
    clock, care = Clock(), Care(Metrics(CollectorRegistry()), Clock())
    care.look([Patient(ill=BEHIND)])
    another = Patient(ill=BEHIND)
    care.look([another])
    assert not another.ended
    assert clock.now == NOON


def test_one_stream_that_is_well_does_not_make_a_recovery_of_another() -> None:
    clock, sick, well = Clock(), Patient(ill=BEHIND), Patient()
    care = Care(Metrics(CollectorRegistry()), clock)
    for _ in range(2):
        care.look([sick, well])
    assert len(sick.ended) == 1


def test_not_all_come_back_together() -> None:
    patients = [Patient(str(number), BEHIND) for number in range(AT_ONCE + 5)]
    care = Care(Metrics(CollectorRegistry()), Clock())
    care.look(patients)
    assert sum(len(p.ended) for p in patients) == AT_ONCE


def test_how_many_are_not_well_is_measured() -> None:
    registry = CollectorRegistry()
    care = Care(Metrics(registry), Clock())
    patient = Patient(ill=REJECTING)
    care.look([patient])
    assert registry.get_sample_value("meshfed_unwell_proxies", {"state": "rejecting"}) == 1
    patient.ill = None
    care.look([patient])
    assert registry.get_sample_value("meshfed_unwell_proxies", {"state": "rejecting"}) == 0
