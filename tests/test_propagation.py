"""When every proxy has a revision."""

from meshfed.federation.propagation import Ledger


def owed(revision: int, proxies: int) -> Ledger:
    ledger = Ledger()
    for _ in range(proxies):
        ledger.owe(revision)
    return ledger


def test_a_revision_that_concerns_nobody_is_settled_at_once() -> None:
    (settled,) = Ledger().evaluate({1: 10.0}, proxies=0, now=10.25)
    assert (settled.revision, settled.ms, settled.proxies) == (1, 250.0, 0)


def test_the_last_acknowledgement_settles_a_revision() -> None:
    ledger = owed(1, proxies=2)
    assert ledger.evaluate({1: 10.0}, proxies=2, now=10.0) == ()
    assert ledger.paid([1], at=10.5) == ()
    (settled,) = ledger.paid([1], at=11.0)
    assert settled.last_ack_at == 11.0
    assert ledger.propagation(1) is settled


def test_a_skipped_revision_is_settled_with_the_newer_one_that_brought_it() -> None:
    ledger = owed(8, proxies=1)
    ledger.evaluate({6: 1.0, 7: 2.0, 8: 3.0}, proxies=1, now=3.0)
    settled = ledger.paid([8], at=4.0)
    assert [(p.revision, p.ms) for p in settled] == [(6, 3000.0), (7, 2000.0), (8, 1000.0)]


def test_a_newer_revision_waits_for_an_older_one() -> None:
    ledger = owed(1, proxies=1)
    ledger.evaluate({1: 1.0}, proxies=1, now=1.0)
    assert ledger.evaluate({2: 2.0}, proxies=0, now=2.0) == ()
    assert [p.revision for p in ledger.paid([1], at=5.0)] == [1, 2]


def test_after_a_restart_the_catalogs_revision_stands() -> None:
    ledger = Ledger(7)
    assert (ledger.evaluated, ledger.settled, ledger.propagation(7)) == (7, 7, None)
    (settled,) = ledger.evaluate({8: 1.0}, proxies=0, now=1.0)
    assert settled.revision == 8


def test_one_that_takes_nothing_for_hours_is_settled_in_the_end() -> None:
    ledger = Ledger()
    for revision in range(1, 5_001):
        ledger.owe(revision)
        ledger.owe(revision)
        ledger.evaluate({revision: 1.0}, proxies=2, now=1.0)
        assert ledger.paid([revision], at=2.0) == ()
    settled = ledger.paid(range(1, 5_001), at=3.0)
    assert [p.revision for p in settled] == list(range(1, 5_001))
    assert ledger.settled == 5_000
    assert ledger.propagation(4_000) is None  # the newest thousand are remembered
    assert ledger.propagation(4_001) is settled[4_000]
