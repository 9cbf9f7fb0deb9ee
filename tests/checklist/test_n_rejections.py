"""What follows a rejection, as transcripts. A test is named for its rule: N1, N2, …"""

from transcripts import BOTH, ONE_OF_EACH, URL, Delta, Sotw, quiet, thing, world

from meshfed.xds.subscription import GATE


@BOTH
def test_n1_a_rejection_is_a_receipt_with_the_words_but_not_the_dump(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    client.stream.receipts.clear()
    client.is_told(world(2, CDS="c", EDS="c", SDS="s:bad", LDS="l", RDS="r"))
    client.now += 2
    client.rejects("SDS", "no  such\n\0key goo.gle/debugonly PRIVATE KEY")
    (receipt,) = client.stream.receipts
    assert (receipt.kind, receipt.rejected) == (URL["SDS"], "no such key")
    assert (receipt.sent_at, receipt.answered_at) == (client.now - 2, client.now)
    assert client.settled == 1


@BOTH
def test_n2_rejected_bytes_are_never_sent_again(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    bad = world(2, CDS="c", EDS="c", SDS="s", LDS="l:bad", RDS="r")
    assert client.is_told(bad) == ["LDS l"]
    assert client.rejects("LDS", "Error adding/updating listener(s) l: cannot bind") == []
    again = world(3, CDS="c", EDS="c:2", SDS="s", LDS="l:bad", RDS="r")
    assert client.is_told(again) == ["EDS c"]
    client.accepts("EDS")
    assert client.settled == 1
    assert client.is_told(world(4, CDS="c", EDS="c:2", SDS="s", LDS="l", RDS="r")) == ["LDS l"]
    client.accepts("LDS")
    assert client.settled == 4


@BOTH
def test_n2_nor_when_they_were_gone_in_between(dialect):
    client = quiet(dialect(world(1, CDS="c", EDS="c")))
    assert client.is_told(world(2, CDS="c", EDS="c:bad")) == ["EDS c"]
    assert client.rejects("EDS", "no such locality") == []
    if client.is_told(world(3, CDS="c")):  # only in delta is absence something to tell
        client.accepts("EDS")
    assert client.is_told(world(4, CDS="c", EDS="c:bad")) == []
    assert client.is_told(world(5, CDS="c", EDS="c:2")) == ["EDS c"]


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
    assert client.settled == 1


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
    assert client.settled == 1
    assert client.is_told(world(4, EDS="a:4 b:2 c:3")) == ["EDS a"]
    client.accepts("EDS")
    assert client.settled == 4


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
    assert again.settled == -1


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


def test_n4_what_another_replica_told_it_since_is_newer_than_our_last_good_one():
    client = quiet(Delta(world(1, CDS="a")))
    again = client.comes_back(world(3, CDS="a:bad"), CDS="a:2")
    assert again.heard == ["CDS a"]
    assert again.rejects("CDS", "cluster(s) a: ring") == []


def test_n5_a_rejection_may_come_after_the_next_response():
    client = quiet(Delta(world(1, CDS="a b")))
    client.is_told(world(2, CDS="a:bad b:2"))
    nonce = client.last["CDS"].nonce
    client.now += GATE
    assert client.is_told(world(3, CDS="a b:2")) == ["CDS a"]
    assert client.rejects("CDS", "cluster(s) a: ring", nonce) == []
    assert client.settled == 1
    assert client.accepts("CDS") == []
    assert client.settled == 3


def test_n5_a_late_rejection_does_not_doubt_what_was_sent_since():
    client = quiet(Delta(world(1, EDS="a b")))
    client.is_told(world(2, EDS="a:bad b:2"))
    nonce = client.last["EDS"].nonce
    client.now += GATE
    assert client.is_told(world(3, EDS="a:3 b:2")) == ["EDS a"]
    assert client.rejects("EDS", "no", nonce) == []
    assert client.accepts("EDS") == ["EDS b"]
    client.accepts("EDS")
    assert client.settled == 3


def test_n5_words_that_were_held_back_come_with_the_nonce_of_a_later_response_in_sotw():
    client = quiet(Sotw(world(1, CDS="a b")))
    client.is_told(world(2, CDS="a:bad b:2"))
    client.now += GATE
    assert client.is_told(world(3, CDS="a:3 b:2")) == ["CDS a b"]
    assert client.rejects("CDS", "cluster(s) a: ring") == ["CDS a b"]
    assert client.accepts("CDS") == []
    assert client.settled == 3


def test_n5_words_about_what_is_gone_condemn_nothing_that_is_there():
    client = quiet(Sotw(world(1, CDS="a")))
    client.stream.receipts.clear()
    assert client.is_told(world(2, CDS="a b bad")) == ["CDS a b bad"]
    client.now += GATE
    assert client.is_told(world(3, CDS="a b")) == ["CDS a b"]
    assert client.rejects("CDS", "cluster(s) bad: ring") == []
    assert [answer.about for answer in client.stream.receipts] == [("bad",)]
    assert client.settled == 3
    assert client.is_told(world(4, CDS="a b c")) == ["CDS a b c"]
    client.accepts("CDS")
    assert client.settled == 4


def test_n5_words_that_were_held_back_still_condemn_what_has_not_changed_since():
    client = quiet(Sotw(world(1, CDS="a b")))
    client.is_told(world(2, CDS="a:bad b"))
    client.now += GATE
    assert client.is_told(world(3, CDS="a:bad b:3")) == ["CDS a b"]
    assert client.rejects("CDS", "cluster(s) a: ring") == ["CDS a b"]
    assert thing("CDS", "a").any in client.last["CDS"].SerializeToString()
    assert client.accepts("CDS") == []
    assert client.settled == 1


@BOTH
def test_n1_a_rejection_names_what_it_is_about(dialect):
    client = quiet(dialect(world(1, CDS="a b", EDS="a b")))
    client.stream.receipts.clear()
    client.is_told(world(2, CDS="a:bad b:2", EDS="a:2 b:2"))
    client.rejects("CDS", "Error adding/updating cluster(s) a: ring")
    client.rejects("EDS", "no")
    about = [(answer.kind, answer.about) for answer in client.stream.receipts]
    assert about == [(URL["CDS"], ("a",)), (URL["EDS"], ("a", "b"))]


@BOTH
def test_n6_a_port_that_is_taken_rejects_that_listener_alone(dialect):
    client = quiet(dialect(world(1, LDS="a")))
    client.is_told(world(2, LDS="a b c"))
    taken = "Error adding/updating listener(s) b: cannot bind '127.0.0.1:1': Address already in use"
    assert client.rejects("LDS", taken) == []
    others = world(3, LDS="a b c:3")
    assert client.is_told(others) == ["LDS c" if dialect is Delta else "LDS a c"]
