"""Make before break, as transcripts. A test is named for its rule: O1, O2, …"""

from transcripts import BOTH, ONE_OF_EACH, Delta, Sotw, quiet, thing, world

from meshfed.xds.subscription import GATE


@BOTH
def test_o1_a_route_moves_only_after_its_new_cluster_is_warm_and_the_old_goes_last(dialect):
    client = quiet(dialect(world(1, CDS="x", EDS="x", LDS="l", RDS="r:x")))
    assert client.is_told(world(2, CDS="y", EDS="y", LDS="l", RDS="r:y")) == [
        "CDS y" if dialect is Delta else "CDS x y"
    ]
    assert client.asks("EDS", "y" if dialect is Delta else "x y") == ["EDS y"]
    assert client.accepts("EDS") == []
    assert client.accepts("CDS") == ["RDS r"]
    assert client.settled == 1
    assert client.accepts("RDS") == ["CDS -x" if dialect is Delta else "CDS y"]
    if dialect is Delta:
        assert client.asks("EDS", drops="x") == []
    else:
        assert client.asks("EDS", "y") == []
    assert client.accepts("CDS") == []
    assert client.settled == 2


def test_o2_sotw_has_the_old_beside_the_new_until_routes_have_moved():
    client = quiet(Sotw(world(1, CDS="x", EDS="x", LDS="l", RDS="r:x")))
    moved = world(2, CDS="y", EDS="y", LDS="l", RDS="r:y")
    assert client.is_told(moved) == ["CDS x y"]
    assert client.accepts("CDS") == ["RDS r"]
    assert client.is_told(world(3, CDS="y z", EDS="y z", LDS="l", RDS="r:y")) == ["CDS x y z"]
    assert client.accepts("RDS") == []
    assert client.accepts("CDS") == ["CDS y z"]


def test_o2_a_sotw_client_that_comes_back_keeps_what_its_old_routes_lead_to():
    client = quiet(Sotw(world(1, CDS="x", LDS="l", RDS="r:x")))
    again = client.comes_back(world(2, CDS="y", LDS="l", RDS="r:y"), CDS="x")
    assert again.heard == ["CDS x y"]
    assert again.accepts("CDS") == []
    assert again.asks("LDS", "") == ["LDS l"]
    assert again.asks("RDS", "r") == ["RDS r"]
    assert again.accepts("LDS") == []
    assert again.accepts("RDS") == ["CDS y"]
    again.accepts("CDS")
    assert again.settled == 2


def test_o2_a_sotw_client_that_comes_back_for_less_has_no_more():
    client = quiet(Sotw(world(1, CDS="x y")))
    again = Sotw(world(2, CDS="x"), client.memory)
    again.last = dict(client.last)
    assert again.asks("CDS", "x") == ["CDS x"]
    again.accepts("CDS")
    assert again.settled == 2


@BOTH
def test_o4_routes_wait_for_warm_clusters_but_not_for_ever(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    moved = world(2, CDS="c:2", EDS="c", SDS="s", LDS="l:2", RDS="r:2")
    assert client.is_told(moved) == ["CDS c", "EDS c"]
    assert client.accepts("EDS") == []
    assert client.stream.deadline() == client.now + GATE
    assert client.waits(GATE - 1) == []
    assert client.waits(1) == ["LDS l", "RDS r"]
    assert client.settled == 1


@BOTH
def test_o5_routes_that_a_listener_will_ask_for_do_not_wait_for_its_acknowledgement(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    both = world(2, CDS="c", EDS="c", SDS="s", LDS="l:2", RDS="r:2 r2")
    assert client.is_told(both) == ["LDS l", "RDS r"]
    if dialect is Delta:
        assert client.asks("RDS", "r2") == []
        assert client.accepts("RDS") == ["RDS r2"]
    else:  # acknowledges and asks in one
        assert client.asks("RDS", "r r2") == ["RDS r2"]
    assert client.settled == 1
    assert client.accepts("LDS") == []


@BOTH
def test_o5_a_changed_listener_with_routes_that_are_known_needs_no_others(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    assert client.is_told(world(2, CDS="c", EDS="c", SDS="s", LDS="l:2", RDS="r")) == ["LDS l"]


@BOTH
def test_o6_endpoints_follow_a_changed_cluster_at_once_although_they_are_the_same(dialect):
    client = quiet(dialect(world(1, CDS="a b", EDS="a b")))
    assert client.is_told(world(2, CDS="a:2 b", EDS="a b")) == [
        "CDS a" + " b" * (dialect is Sotw),
        "EDS a",
    ]


@BOTH
def test_o6_endpoints_follow_under_the_name_that_the_cluster_gives_them(dialect):
    client = quiet(dialect(world(1, CDS="a", EDS="a a-hosts")))
    assert client.is_told(world(2, CDS="a:moved", EDS="a a-hosts")) == ["CDS a", "EDS a-hosts"]


@BOTH
def test_o6_a_changed_cluster_without_endpoints_of_its_own_needs_none(dialect):
    client = quiet(dialect(world(1, CDS="a:static", EDS="a")))
    assert client.is_told(world(2, CDS="a:fixed", EDS="a")) == ["CDS a"]


@BOTH
def test_o7_secrets_go_before_the_endpoints_that_need_them(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    changed = world(2, CDS="c", EDS="c:2", SDS="s:2", LDS="l", RDS="r")
    assert client.is_told(changed) == ["SDS s", "EDS c"]


@BOTH
def test_o7_endpoints_wait_for_secrets_that_wait_themselves(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    assert client.is_told(world(2, CDS="c", EDS="c", SDS="s:2", LDS="l", RDS="r")) == ["SDS s"]
    assert client.is_told(world(3, CDS="c", EDS="c:3", SDS="s:3", LDS="l", RDS="r")) == []
    assert client.accepts("SDS") == ["SDS s", "EDS c"]


@BOTH
def test_o8_what_was_asked_before_a_push_counts_in_it(dialect):
    client = quiet(dialect(world(1, EDS="a b")))
    client.stream.offer(world(2, EDS="a:2 b:2 c"))
    assert client.asks("EDS", "c" if dialect is Delta else "a b c") == ["EDS a b c"]


def test_o9_listeners_are_replaced_in_one_response():
    client = quiet(Delta(world(1, LDS="a b")))
    assert client.is_told(world(2, LDS="b:2 c")) == ["LDS b c -a"]


def test_o1_a_client_that_comes_back_moves_its_routes_before_it_loses_their_clusters():
    client = Delta(world(2, CDS="y", EDS="y", LDS="l", RDS="r:y"))
    assert client.asks("CDS", has=[thing("CDS", "x"), thing("CDS", "y")]) == []
    assert client.asks("LDS", has=[thing("LDS", "l")]) == []
    assert client.asks("RDS", "r", has=[thing("RDS", "r:x")]) == ["RDS r"]
    assert client.accepts("RDS") == ["CDS -x"]


def test_o1_a_client_that_comes_back_and_never_asks_for_routes_loses_old_clusters_in_the_end():
    client = Delta(world(2, CDS="y", RDS="r"))
    assert client.asks("CDS", has=[thing("CDS", "x"), thing("CDS", "y")]) == []
    assert client.stream.deadline() == client.now + GATE
    assert client.waits(GATE) == ["CDS -x"]


def test_o1_routes_that_were_rejected_keep_the_clusters_of_the_last_good_ones():
    client = quiet(Delta(world(1, CDS="x", LDS="l", RDS="r:x")))
    client.is_told(world(2, CDS="y", LDS="l", RDS="r:y"))
    assert client.accepts("CDS") == ["RDS r"]
    assert client.rejects("RDS", "no") == []
    assert client.is_told(world(3, CDS="y", LDS="l", RDS="r:z")) == ["RDS r"]
    assert client.accepts("RDS") == ["CDS -x"]
