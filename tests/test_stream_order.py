"""What goes before what, as transcripts. The names are the rules of the xDS protocol that we hold
to: O order, N rejections, F flow."""

from transcripts import BOTH, ONE_OF_EACH, URL, Delta, Sotw, quiet, thing, world

from meshfed.xds.subscription import GATE

# Order


@BOTH
def test_o1_a_route_moves_only_after_its_new_cluster_is_warm_and_the_old_goes_last(dialect):
    client = quiet(dialect(world(1, CDS="x", EDS="x", LDS="l", RDS="r:x")))
    assert client.is_told(world(2, CDS="y", EDS="y", LDS="l", RDS="r:y")) == [
        "CDS y" if dialect is Delta else "CDS x y"
    ]
    assert client.asks("EDS", "y" if dialect is Delta else "x y") == ["EDS y"]
    assert client.accepts("EDS") == []
    assert client.accepts("CDS") == ["RDS r"]
    assert client.stream.settled == 1
    assert client.accepts("RDS") == ["CDS -x" if dialect is Delta else "CDS y"]
    if dialect is Delta:
        assert client.asks("EDS", drops="x") == []
    else:
        assert client.asks("EDS", "y") == []
    assert client.accepts("CDS") == []
    assert client.stream.settled == 2


@BOTH
def test_o4_routes_wait_for_warm_clusters_but_not_for_ever(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    moved = world(2, CDS="c:2", EDS="c", SDS="s", LDS="l:2", RDS="r:2")
    assert client.is_told(moved) == ["CDS c", "EDS c"]
    assert client.accepts("EDS") == []
    assert client.stream.deadline() == client.now + GATE
    assert client.waits(GATE - 1) == []
    assert client.waits(1) == ["LDS l", "RDS r"]
    assert client.stream.settled == 1


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


# Rejections


@BOTH
def test_n1_a_rejection_is_a_receipt_with_the_words_but_not_the_dump(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    client.stream.receipts.clear()
    client.is_told(world(2, CDS="c", EDS="c", SDS="s:bad", LDS="l", RDS="r"))
    client.now += 2
    client.rejects("SDS", "no  such\nkey goo.gle/debugonly PRIVATE KEY")
    (receipt,) = client.stream.receipts
    assert (receipt.kind, receipt.rejected) == (URL["SDS"], "no such key")
    assert (receipt.sent_at, receipt.answered_at) == (client.now - 2, client.now)
    assert client.stream.settled == 1


@BOTH
def test_n2_rejected_bytes_are_never_sent_again(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    bad = world(2, CDS="c", EDS="c", SDS="s", LDS="l:bad", RDS="r")
    assert client.is_told(bad) == ["LDS l"]
    assert client.rejects("LDS", "Error adding/updating listener(s) l: cannot bind") == []
    again = world(3, CDS="c", EDS="c:2", SDS="s", LDS="l:bad", RDS="r")
    assert client.is_told(again) == ["EDS c"]
    client.accepts("EDS")
    assert client.stream.settled == 1
    assert client.is_told(world(4, CDS="c", EDS="c:2", SDS="s", LDS="l", RDS="r")) == ["LDS l"]
    client.accepts("LDS")
    assert client.stream.settled == 4


@BOTH
def test_n2_a_rejected_cluster_is_replaced_by_the_last_good_one_at_once(dialect):
    client = quiet(dialect(world(1, CDS="a b", EDS="a b")))
    others = " b" * (dialect is Sotw)
    client.is_told(world(2, CDS="a:bad b", EDS="a b"))
    client.accepts("EDS")
    assert client.rejects("CDS", "Error adding/updating cluster(s) a: ring") == [
        "CDS a" + others,
        "EDS a",
    ]
    assert thing("CDS", "a").any in client.last["CDS"].SerializeToString()
    assert client.accepts("EDS") == []
    assert client.accepts("CDS") == []
    assert client.is_told(world(3, CDS="a:bad b", EDS="a b")) == []
    assert client.stream.settled == 1


@BOTH
def test_n2_a_rejected_cluster_that_was_new_is_removed_at_once(dialect):
    client = quiet(dialect(world(1, CDS="a")))
    client.is_told(world(2, CDS="a b:bad"))
    assert client.rejects("CDS", "Error adding/updating cluster(s) b: ring") == [
        "CDS -b" if dialect is Delta else "CDS a"
    ]
    assert client.accepts("CDS") == []
    assert client.is_told(world(3, CDS="a b:bad")) == []
    assert client.is_told(world(4, CDS="a b")) == ["CDS b" if dialect is Delta else "CDS a b"]


def test_n2_a_cluster_of_an_earlier_stream_is_left_alone_when_its_update_is_rejected():
    client = Delta(world(1, CDS="a:bad"))
    assert client.asks("CDS", has=[thing("CDS", "a")]) == ["CDS a"]
    assert client.rejects("CDS", "Error adding/updating cluster(s) a: ring") == []


def test_n2_a_last_good_cluster_that_is_rejected_too_ends_the_matter():
    client = quiet(Delta(world(1, CDS="a")))
    client.is_told(world(2, CDS="a:bad"))
    assert client.rejects("CDS", "a: ring") == ["CDS a"]
    assert client.rejects("CDS", "a: out of memory") == []
    assert client.is_told(world(3, CDS="a:bad")) == []


def test_n3_the_good_ones_of_a_rejected_response_count_as_taken():
    client = quiet(Delta(world(1, LDS="a aa b")))
    client.is_told(world(2, LDS="a:bad aa:2 b:2"))
    client.rejects("LDS", "Error adding/updating listener(s) a: no")
    assert client.is_told(world(3, LDS="a:3 aa:2 b:2")) == ["LDS a"]


@BOTH
def test_n3_a_rejection_that_names_nothing_is_pinned_down_one_by_one(dialect):
    client = quiet(dialect(world(1, EDS="a b c")))
    changed = world(2, EDS="a:bad b:2 c")
    assert client.is_told(changed) == ["EDS a b"]
    alone = client.rejects("EDS", "no")
    assert sorted(alone) == ["EDS a", "EDS b"]
    nonce = int(client.last["EDS"].nonce)
    for heard, of in zip(alone, (nonce - 1, nonce), strict=True):
        if heard == "EDS a":
            assert client.rejects("EDS", "no", str(of)) == []
        else:
            assert client.accepts("EDS", str(of)) == []
    assert client.is_told(world(3, EDS="a:bad b:2 c:3")) == ["EDS c"]
    client.accepts("EDS")
    assert client.stream.settled == 1
    assert client.is_told(world(4, EDS="a:4 b:2 c:3")) == ["EDS a"]
    client.accepts("EDS")
    assert client.stream.settled == 4


def test_n2_rejected_endpoints_that_are_asked_for_again_are_answered_with_the_last_good_ones():
    client = quiet(Delta(world(1, EDS="a")))
    client.is_told(world(2, EDS="a:bad"))
    client.rejects("EDS", "no")
    assert client.asks("EDS", "a") == ["EDS a"]
    assert client.last["EDS"].resources[0].version == thing("EDS", "a").version


def test_n2_rejected_endpoints_without_a_good_version_are_answered_as_missing():
    client = Delta(world(1, EDS="a:bad"))
    client.asks("EDS", "a")
    assert client.rejects("EDS", "no") == []
    assert client.asks("EDS", "a") == ["EDS -a"]


@BOTH
def test_n4_what_was_rejected_is_not_sent_again_on_the_next_stream(dialect):
    client = quiet(dialect(world(1, CDS="a b", LDS="l")))
    bad = world(2, CDS="a:bad b", LDS="l:bad")
    client.is_told(bad)
    client.rejects("CDS", "cluster(s) a: ring")
    assert client.accepts("CDS") == ["LDS l"]
    client.rejects("LDS", "listener(s) l: no")
    again = client.comes_back(bad, CDS="a b", LDS="l")
    heard = again.heard + (again.accepts("CDS") if dialect is Sotw else [])
    assert heard == ([] if dialect is Delta else ["CDS a b", "LDS l"])
    assert "bad" not in str([again.last.get("CDS"), again.last.get("LDS")])
    assert again.stream.settled == -1


@BOTH
def test_n4_the_last_good_cluster_is_at_hand_on_the_next_stream(dialect):
    client = quiet(dialect(world(1, CDS="a b")))
    others = " b" * (dialect is Sotw)
    again = client.comes_back(world(2, CDS="a:bad b"), CDS="a b")
    assert again.heard == ["CDS a" + others]
    assert again.rejects("CDS", "cluster(s) a: ring") == ["CDS a" + others]
    assert thing("CDS", "a").any in again.last["CDS"].SerializeToString()


@BOTH
def test_n4_a_client_that_begins_anew_is_another_one(dialect):
    client = quiet(dialect(world(1, CDS="a")))
    client.is_told(world(2, CDS="a:bad"))
    client.rejects("CDS", "cluster(s) a: ring")
    fresh = dialect(world(2, CDS="a:bad"), client.memory)
    assert fresh.asks("CDS", "") == ["CDS a"]
    assert "bad" in str(fresh.last["CDS"])


@BOTH
def test_n4_what_a_client_has_of_another_replica_stays_when_its_update_is_rejected(dialect):
    client = quiet(dialect(world(1, CDS="a b")))
    client.memory = {}  # as another replica's is
    others = " b" * (dialect is Sotw)
    again = client.comes_back(world(2, CDS="a:bad b"), CDS="a b")
    assert again.heard == ["CDS a" + others]
    assert again.rejects("CDS", "cluster(s) a: ring") == []
    # In SotW its absence would remove it: the same bytes again change nothing (xds.md, finding 3).
    changed = world(3, CDS="a:bad b c")
    assert again.is_told(changed) == ["CDS a b c" if dialect is Sotw else "CDS c"]
    assert again.accepts("CDS") == []
    without = world(4, CDS="b c")
    assert again.is_told(without) == ["CDS b c" if dialect is Sotw else "CDS -a"]


def test_n5_a_rejection_may_come_after_the_next_response():
    client = quiet(Delta(world(1, CDS="a b")))
    client.is_told(world(2, CDS="a:bad b:2"))
    nonce = client.last["CDS"].nonce
    client.now += GATE
    assert client.is_told(world(3, CDS="a b:2")) == ["CDS a"]
    assert client.rejects("CDS", "cluster(s) a: ring", nonce) == []
    assert client.stream.settled == 1
    assert client.accepts("CDS") == []
    assert client.stream.settled == 3


def test_n5_words_that_were_held_back_come_with_the_nonce_of_a_later_response_in_sotw():
    client = quiet(Sotw(world(1, CDS="a b")))
    client.is_told(world(2, CDS="a:bad b:2"))
    client.now += GATE
    assert client.is_told(world(3, CDS="a:3 b:2")) == ["CDS a b"]
    assert client.rejects("CDS", "cluster(s) a: ring") == ["CDS a b"]
    assert client.accepts("CDS") == []
    assert client.stream.settled == 3


def test_n5_words_that_were_held_back_still_condemn_what_has_not_changed_since():
    client = quiet(Sotw(world(1, CDS="a b")))
    client.is_told(world(2, CDS="a:bad b"))
    client.now += GATE
    assert client.is_told(world(3, CDS="a:bad b:3")) == ["CDS a b"]
    assert client.rejects("CDS", "cluster(s) a: ring") == ["CDS a b"]
    assert thing("CDS", "a").any in client.last["CDS"].SerializeToString()
    assert client.accepts("CDS") == []
    assert client.stream.settled == 1


# Flow


@BOTH
def test_f1_one_response_of_a_type_is_under_way_and_the_latest_wins(dialect):
    client = quiet(dialect(world(1, EDS="a b")))
    assert client.is_told(world(2, EDS="a:2 b")) == ["EDS a"]
    assert client.is_told(world(3, EDS="a:3 b:3")) == []
    assert client.is_told(world(4, EDS="a:4 b")) == []
    assert client.accepts("EDS") == ["EDS a"]
    assert client.stream.settled == 2
    assert client.accepts("EDS") == []
    assert client.stream.settled == 4


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
    assert client.stream.settled == 49


def test_f3_an_answer_to_a_later_response_stands_for_those_before():
    client = quiet(Sotw(world(1, EDS="a b")))
    client.is_told(world(2, EDS="a:2 b"))
    client.now += GATE
    client.is_told(world(3, EDS="a:2 b:3"))
    client.accepts("EDS")
    assert client.stream.settled == 3
