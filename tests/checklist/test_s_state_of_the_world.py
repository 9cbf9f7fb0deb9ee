"""The state-of-the-world dialect, as transcripts. A test is named for its rule: S1, S2, …"""

from transcripts import BOTH, ONE_OF_EACH, Delta, Sotw, quiet, world


def test_s1_clusters_are_sent_whole_and_absence_is_removal():
    client = quiet(Sotw(world(1, CDS="a b c")))
    assert client.is_told(world(2, CDS="a b")) == ["CDS a b"]
    assert client.accepts("CDS") == []
    assert client.is_told(world(3)) == ["CDS"]


def test_s2_other_types_are_sent_as_far_as_they_changed():
    client = quiet(Sotw(world(1, EDS="a b")))
    assert client.is_told(world(2, EDS="a:2 b")) == ["EDS a"]
    assert client.accepts("EDS") == []
    assert client.is_told(world(3, EDS="a:2")) == []


def test_s3_an_empty_list_is_everything_until_names_were_given_once():
    client = Sotw(world(1, CDS="a b"))
    assert client.asks("CDS", "") == ["CDS a b"]
    assert client.asks("CDS", "a") == ["CDS a"]
    assert client.asks("CDS", "") == []
    assert client.is_told(world(2, CDS="a:2 b:2")) == []


def test_s3_names_given_after_the_wildcard_narrow_it():
    client = quiet(Sotw(world(1, CDS="a b")))
    assert client.asks("CDS", "a") == ["CDS a"]
    assert client.accepts("CDS") == []
    assert client.is_told(world(2, CDS="a b:2")) == []


def test_s4_a_star_beside_names_is_everything_and_without_it_only_the_names_stay():
    client = Sotw(world(1, CDS="a b"))
    assert client.asks("CDS", "* a") == ["CDS a b"]
    assert client.accepts("CDS") == []
    assert client.asks("CDS", "a") == []
    assert client.is_told(world(2, CDS="a b:2")) == []
    assert client.is_told(world(3, CDS="a:3 b:2")) == ["CDS a"]
    assert client.accepts("CDS") == []
    assert client.asks("CDS", "* a") == ["CDS a b"]


def test_s5_an_empty_list_of_endpoints_is_no_wildcard():
    assert Sotw(world(1, EDS="a")).asks("EDS", "") == []


def test_s6_a_rejection_is_known_by_its_error_alone():
    client = Sotw(world(1, CDS="a"))
    client.asks("CDS", "")
    client.last["CDS"].version_info = "whatever"
    client.accepts("CDS")
    assert client.stream.receipts[0].rejected == ""
    assert client.settled == 1


def test_s7_a_stale_nonce_acknowledges_nothing_but_its_names_count():
    client = Sotw(world(1, EDS="a b"))
    client.asks("EDS", "a")
    stale = client.last["EDS"].nonce
    client.accepts("EDS")
    client.is_told(world(2, EDS="a:2 b"))
    assert client.asks("EDS", "a b", nonce=stale) == []
    assert client.settled == 1
    assert client.accepts("EDS") == ["EDS b"]


def test_s8_an_acknowledgement_repeated_asks_again():
    client = quiet(Sotw(world(1, EDS="a b")))
    assert client.accepts("EDS") == ["EDS a b"]
    assert client.accepts("EDS") == []


def test_s8_a_wildcard_asks_again_for_everything():
    client = quiet(Sotw(world(1, CDS="a b")))
    assert client.accepts("CDS") == ["CDS a b"]


def test_s8_asking_again_for_what_is_on_its_way_is_stale():
    client = quiet(Sotw(world(1, CDS="a", EDS="a")))
    acknowledged = client.last["EDS"].nonce
    assert client.is_told(world(2, CDS="a:2", EDS="a")) == ["CDS a", "EDS a"]
    assert client.asks("EDS", nonce=acknowledged) == []
    assert client.accepts("EDS") == []


def test_s9_what_was_unsubscribed_is_sent_when_it_is_wanted_again():
    client = quiet(Sotw(world(1, EDS="a b")))
    assert client.asks("EDS", "a") == []
    assert client.asks("EDS", "a b") == ["EDS b"]


def test_s10_the_first_request_is_answered_whatever_version_it_carries():
    client = Sotw(ONE_OF_EACH)
    client.last["CDS"] = quiet(Sotw(ONE_OF_EACH)).last["CDS"]
    assert client.asks("CDS", "") == ["CDS c"]


@BOTH
def test_s11_the_version_depends_on_the_content_and_not_on_the_way_there(dialect):
    def version(response):
        return response.system_version_info if dialect is Delta else response.version_info

    short = quiet(dialect(world(9, EDS="a b:2")))
    long = quiet(dialect(world(1, EDS="a:0 b:2")))
    assert version(short.last["EDS"]) != version(long.last["EDS"])
    assert long.is_told(world(2, EDS="a b:2")) == ["EDS a"]
    assert version(short.last["EDS"]) == version(long.last["EDS"])


def test_s12_a_missing_name_is_remembered_and_sent_when_it_appears():
    client = Sotw(world(1))
    assert client.asks("EDS", "a") == []
    assert client.is_told(world(2, EDS="a")) == ["EDS a"]


def test_s13_nothing_is_sent_under_another_name_than_was_asked_for():
    client = Sotw(ONE_OF_EACH)
    for short, name in (("LDS", "l"), ("RDS", "r"), ("CDS", "c"), ("EDS", "c")):
        assert client.asks(short, name) == [f"{short} {name}"]
        assert client.accepts(short) == []
    assert client.asks("LDS", "L") == ["LDS"]
