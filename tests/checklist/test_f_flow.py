"""One response of a type at a time, and the latest wins. A test is named for its rule: F1, …"""

from transcripts import BOTH, FOREIGN, ONE_OF_EACH, Delta, Sotw, quiet, world

from meshfed.xds.subscription import GATE


@BOTH
def test_f1_one_response_of_a_type_is_under_way_and_the_latest_wins(dialect):
    client = quiet(dialect(world(1, EDS="a b")))
    assert client.is_told(world(2, EDS="a:2 b")) == ["EDS a"]
    assert client.is_told(world(3, EDS="a:3 b:3")) == []
    assert client.is_told(world(4, EDS="a:4 b")) == []
    assert client.accepts("EDS") == ["EDS a"]
    assert client.settled == 2
    assert client.accepts("EDS") == []
    assert client.settled == 4


@BOTH
def test_f2_endpoints_never_wait_for_clusters(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    client.is_told(world(2, CDS="c:2", EDS="c", SDS="s", LDS="l", RDS="r"))
    client.accepts("EDS")
    assert client.is_told(world(3, CDS="c:3", EDS="c:3", SDS="s", LDS="l", RDS="r")) == ["EDS c"]


@BOTH
def test_f3_a_client_that_never_answers_is_told_the_newest_after_a_while(dialect):
    client = quiet(dialect(world(1, EDS="a")))
    assert client.is_told(world(2, EDS="a:2")) == ["EDS a"]
    assert client.is_told(world(3, EDS="a:3")) == []
    assert client.waits(GATE) == ["EDS a"]
    assert client.stream.deadline() is None


def test_f3_a_client_that_never_answers_costs_no_memory():
    client = quiet(Delta(world(0, EDS="a")))
    for revision in range(1, 50):
        client.now += GATE
        assert client.is_told(world(revision, EDS=f"a:{revision}")) == ["EDS a"]
    client.accepts("EDS")
    assert client.settled == 49


def test_f3_an_answer_to_a_later_response_stands_for_those_before():
    client = quiet(Sotw(world(1, EDS="a b")))
    client.is_told(world(2, EDS="a:2 b"))
    client.now += GATE
    client.is_told(world(3, EDS="a:2 b:3"))
    client.accepts("EDS")
    assert client.settled == 3


@BOTH
def test_f2_each_type_has_a_gate_of_its_own(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    everything = world(2, CDS="c", EDS="c:2", SDS="s", LDS="l:2", RDS="r:2")
    assert client.is_told(everything) == ["EDS c", "LDS l", "RDS r"]
    newer = world(3, CDS="c", EDS="c:3", SDS="s", LDS="l:3", RDS="r:3")
    assert client.is_told(newer) == []
    assert client.accepts("RDS") == ["RDS r"]
    assert client.rejects("LDS", "listener(s) l: no") == ["LDS l"]
    assert client.accepts("EDS") == ["EDS c"]


@BOTH
def test_f3_an_answer_that_is_overdue_is_counted_once(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    client.is_told(world(2, CDS="c", EDS="c", SDS="s", LDS="l:2", RDS="r"))
    client.waits(GATE - 1)
    assert client.stream.overdue == []
    client.waits(1)
    client.waits(GATE)
    assert client.stream.overdue == ["LDS"]
    assert client.accepts("LDS") == []
    client.waits(GATE)
    assert client.stream.overdue == ["LDS"]


def test_f3_an_unknown_type_that_is_not_answered_is_not_counted():
    client = Delta(ONE_OF_EACH)
    client.asks(FOREIGN, "x")
    client.waits(GATE)
    assert client.stream.overdue == []
