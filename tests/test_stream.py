"""One conversation, as transcripts. The names are the rules of the xDS protocol that we hold to:
T transport, S state of the world, D delta."""

import pytest
from transcripts import BOTH, FOREIGN, ONE_OF_EACH, Delta, Sotw, quiet, thing, world

from meshfed.xds.stream import Malformed

# Transport


@BOTH
def test_t1_a_request_without_a_type_is_malformed(dialect):
    with pytest.raises(Malformed, match="type_url"):
        dialect(ONE_OF_EACH).asks("")


@BOTH
def test_t4_a_nonce_from_another_stream_does_not_count(dialect):
    client = dialect(ONE_OF_EACH)
    assert client.asks("CDS", nonce="1") == ["CDS c"]
    assert client.stream.settled == -1


@BOTH
def test_t5_a_rejected_type_never_delays_another(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    assert client.is_told(world(2, CDS="c", EDS="c", SDS="s", LDS="l", RDS="r:bad")) == ["RDS r"]
    assert client.rejects("RDS", "no") == []
    assert client.is_told(world(3, CDS="c", EDS="c:2", SDS="s", LDS="l", RDS="r:bad")) == ["EDS c"]


@BOTH
def test_t6_an_acknowledgement_is_never_answered(dialect):
    client = dialect(ONE_OF_EACH)
    assert client.asks("CDS") == ["CDS c"]
    assert client.accepts("CDS") == []


@BOTH
def test_t7_the_same_content_again_is_silence_and_settles(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    assert client.stream.settled == 1
    assert client.is_told(world(2, CDS="c", EDS="c", SDS="s", LDS="l", RDS="r")) == []
    assert client.stream.settled == 2


def test_t8_an_unknown_type_is_answered_as_not_existing_and_the_rest_works():
    client = Delta(ONE_OF_EACH)
    assert client.asks(FOREIGN, "x") == [f"{FOREIGN} -x"]
    assert client.accepts(FOREIGN) == []
    assert client.asks("CDS") == ["CDS c"]
    assert client.stream.receipts == []


def test_t8_an_unknown_type_is_silence_in_sotw_and_the_rest_works():
    client = Sotw(ONE_OF_EACH)
    assert client.asks(FOREIGN, "x") == []
    assert client.asks("CDS") == ["CDS c"]


def test_t12_a_large_update_is_split_and_settles_with_its_last_part():
    names = [f"c{number}" for number in range(30)]
    client = Delta(world(1, CDS=" ".join(f"{name}:{'x' * 100_000}" for name in names)))
    heard = client.asks("CDS")
    assert len(heard) > 1
    assert {name for line in heard for name in line.split()[1:]} == {*names}
    for nonce in range(1, len(heard)):
        client.accepts("CDS", str(nonce))
        assert client.stream.settled == -1
    client.accepts("CDS")
    assert client.stream.settled == 1


@BOTH
def test_t16_nothing_is_answered_before_there_is_a_world(dialect):
    client = dialect()
    assert client.asks("CDS") == []
    assert client.is_told(ONE_OF_EACH) == ["CDS c"]


# State of the world


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
    assert client.stream.settled == 1


def test_s7_a_stale_nonce_acknowledges_nothing_but_its_names_count():
    client = Sotw(world(1, EDS="a b"))
    client.asks("EDS", "a")
    stale = client.last["EDS"].nonce
    client.accepts("EDS")
    client.is_told(world(2, EDS="a:2 b"))
    assert client.asks("EDS", "a b", nonce=stale) == []
    assert client.stream.settled == 1
    assert client.accepts("EDS") == ["EDS b"]


def test_s8_an_acknowledgement_repeated_asks_again():
    client = quiet(Sotw(world(1, EDS="a b")))
    assert client.accepts("EDS") == ["EDS a b"]
    assert client.accepts("EDS") == []


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


# Delta


def test_d1_the_difference_is_to_what_the_client_holds_not_to_what_was_published():
    client = quiet(Delta(world(1, EDS="a")))
    assert client.is_told(world(2, EDS="a:2")) == ["EDS a"]
    assert client.is_told(world(3, EDS="a:3")) == []
    assert client.is_told(world(4, EDS="a:2")) == []
    assert client.accepts("EDS") == []
    assert client.stream.settled == 4


def test_d2_a_stale_nonce_does_not_void_a_subscription():
    client = Delta(world(1, EDS="a b"))
    client.asks("EDS", "a")
    stale = client.last["EDS"].nonce
    client.accepts("EDS")
    client.is_told(world(2, EDS="a:2 b"))
    assert client.asks("EDS", "b", nonce=stale) == []
    assert client.accepts("EDS") == ["EDS b"]


def test_d3_every_name_subscribed_is_answered_even_if_it_was_sent_before():
    client = quiet(Delta(world(1, EDS="a")))
    assert client.asks("EDS", "a") == ["EDS a"]


def test_d4_a_missing_name_is_answered_and_sent_when_it_appears():
    client = Delta(world(1))
    assert client.asks("EDS", "a") == ["EDS -a"]
    assert client.accepts("EDS") == []
    assert client.is_told(world(2)) == []
    assert client.is_told(world(3, EDS="a")) == ["EDS a"]


def test_d5_a_client_that_comes_back_is_sent_no_cluster_or_listener_that_it_has():
    client = Delta(ONE_OF_EACH)
    assert client.asks("CDS", has=[thing("CDS", "c")]) == []
    assert client.asks("LDS", has=[thing("LDS", "l")]) == []
    assert client.stream.settled == 1


def test_d5_what_it_has_and_should_not_have_is_removed():
    client = Delta(world(1, CDS="a b:2"))
    assert client.asks("CDS", has=[thing("CDS", "a"), thing("CDS", "b"), thing("CDS", "x")]) == [
        "CDS b"
    ]
    assert client.accepts("CDS") == ["CDS -x"]


def test_d5_versions_count_in_the_first_request_only():
    client = quiet(Delta(world(1, CDS="a")))
    assert client.asks("CDS", has=[thing("CDS", "x")]) == []


def test_d6_versions_without_names_are_still_a_wildcard():
    client = Delta(world(1, CDS="a b"))
    assert client.asks("CDS", has=[thing("CDS", "a")]) == ["CDS b"]


@pytest.mark.parametrize("short", ["EDS", "SDS", "RDS"])
def test_d7_what_may_be_warming_is_answered_whatever_the_client_has(short):
    client = Delta(world(1, **{short: "a b"}))
    has = [thing(short, "a"), thing(short, "b"), thing(short, "x")]
    assert client.asks(short, "a b x", has=has) == [f"{short} a b -x"]


def test_d8_an_unsubscription_needs_no_answer_and_a_phantom_one_is_ignored():
    client = quiet(Delta(world(1, EDS="a b")))
    assert client.asks("EDS", drops="a never") == []
    assert client.is_told(world(2, EDS="a:2 b")) == []


@pytest.mark.parametrize(
    ("clusters", "answer"),
    [
        pytest.param("a b", ["CDS a"], id="still wanted by the wildcard"),
        pytest.param("b", ["CDS -a"], id="not there"),
    ],
)
def test_d8_a_name_dropped_beside_the_wildcard_is_answered(clusters, answer):
    client = quiet(Delta(world(1, CDS=clusters)))
    client.asks("CDS", "a")
    client.accepts("CDS")
    assert client.asks("CDS", drops="a") == answer


def test_d8_dropping_the_wildcard_leaves_the_names():
    client = Delta(world(1, CDS="a b"))
    assert client.asks("CDS", "* a") == ["CDS a b"]
    assert client.asks("CDS", drops="*") == []
    client.accepts("CDS")
    assert client.is_told(world(2, CDS="a:2 b:2")) == ["CDS a"]


def test_d8_a_name_beside_the_legacy_wildcard_leaves_it_standing():
    client = quiet(Delta(world(1, CDS="a b")))
    assert client.asks("CDS", "nope") == ["CDS -nope"]
    client.accepts("CDS")
    assert client.is_told(world(2, CDS="a b c")) == ["CDS c"]


def test_d9_unsubscribed_and_subscribed_again_is_sent_again():
    client = quiet(Delta(world(1, EDS="a")))
    assert client.asks("EDS", drops="a") == []
    assert client.asks("EDS", "a") == ["EDS a"]
    client.accepts("EDS")
    assert client.asks("EDS", "a", drops="a") == ["EDS a"]


def test_d10_a_first_wildcard_is_answered_even_with_nothing():
    client = Delta(world(1))
    assert client.asks("CDS") == ["CDS"]
    assert client.accepts("CDS") == []


def test_d11_endpoints_that_are_gone_are_removed_when_nothing_else_waits():
    client = quiet(Delta(world(1, EDS="a b")))
    assert client.is_told(world(2, EDS="a")) == ["EDS -b"]
