"""What holds for every stream, as transcripts. A test is named for its rule: T1, T2, …"""

import pytest
from transcripts import BOTH, FOREIGN, ONE_OF_EACH, URL, Delta, Sotw, quiet, world

from meshfed.xds.resource import Type, World
from meshfed.xds.stream import Malformed


@BOTH
def test_t1_a_request_without_a_type_is_malformed(dialect):
    with pytest.raises(Malformed, match="type_url"):
        dialect(ONE_OF_EACH).asks("")


@BOTH
def test_t4_a_nonce_from_another_stream_does_not_count(dialect):
    client = dialect(ONE_OF_EACH)
    assert client.asks("CDS", nonce="1") == ["CDS c"]
    assert client.settled == -1


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
    assert client.settled == 1
    assert client.is_told(world(2, CDS="c", EDS="c", SDS="s", LDS="l", RDS="r")) == []
    assert client.settled == 2


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


@BOTH
def test_t9_every_resource_has_the_type_of_its_response(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    assert client.last.keys() == {"CDS", "EDS", "SDS", "LDS", "RDS"}
    for short, response in client.last.items():
        packed = [each.resource if dialect is Delta else each for each in response.resources]
        assert response.type_url == URL[short]
        assert [each.type_url for each in packed] == [URL[short]]


@BOTH
def test_t10_a_name_that_changed_and_is_asked_for_is_in_the_response_once(dialect):
    client = quiet(dialect(world(1, EDS="a b")))
    client.stream.offer(world(2, EDS="a:2 b"))
    if dialect is Delta:
        assert client.asks("EDS", "a a x", drops="a x") == ["EDS a -x"]
    else:
        assert client.asks("EDS", "a a b") == ["EDS a b"]


@BOTH
def test_t11_every_response_says_which_control_plane_it_is_of(dialect):
    client = quiet(dialect(ONE_OF_EACH))
    assert {each.control_plane.identifier for each in client.last.values()} == {"meshfed"}


def test_t12_a_large_update_is_split_and_settles_with_its_last_part():
    names = [f"c{number}" for number in range(30)]
    client = Delta(world(1, CDS=" ".join(f"{name}:{'x' * 100_000}" for name in names)))
    heard = client.asks("CDS")
    assert len(heard) > 1
    assert {name for line in heard for name in line.split()[1:]} == {*names}
    for nonce in range(1, len(heard)):
        client.accepts("CDS", str(nonce))
        assert client.settled == -1
    client.accepts("CDS")
    assert client.settled == 1


def big(count: int) -> World:
    return world(1, CDS=" ".join(f"cluster-{number}:{'x' * 1_600}" for number in range(count)))


def test_t12_four_thousand_clusters_come_and_go_below_a_megabyte_a_message():
    everything = big(4_000)
    client = Delta(everything)
    heard = client.asks("CDS")
    assert len(heard) == 7
    assert max(client.sizes) < 1_000_000
    assert {name for line in heard for name in line.split()[1:]} == {*everything.of(Type.CLUSTER)}
    assert client.accepts("CDS") == []
    assert client.settled == 1
    assert len(client.is_told(world(2))) == 1


def test_t12_names_of_what_is_gone_count_as_well():
    names = [f"{number}-{'x' * 200}" for number in range(6_000)]
    client = Delta(world(1, CDS="c:" + "y" * 500_000))
    assert len(client.asks("CDS", "* " + " ".join(names))) == 3
    assert max(client.sizes) < 1_000_000


def test_t12_a_rejected_part_of_many_keeps_the_whole_from_settling():
    client = Delta(world(1, CDS=" ".join(f"c{n}:{'x' * 600_000}" for n in range(20))))
    parts = client.asks("CDS")
    assert len(parts) == 20
    assert client.rejects("CDS", f"cluster(s) {parts[0].split()[1]}: no", "1") == []
    client.accepts("CDS")
    assert client.settled == -1


def test_t12_endpoints_are_split_in_sotw_too_and_clusters_cannot_be():
    some = " ".join(f"a{number}:{'x' * 300_000}" for number in range(6))
    client = Sotw(world(1, CDS=some, EDS=some))
    assert len(client.asks("CDS", "")) == 1
    client.accepts("CDS")
    assert len(client.asks("EDS", " ".join(f"a{number}" for number in range(6)))) == 2
    client.accepts("EDS")
    assert client.settled == 1


@BOTH
def test_t16_nothing_is_answered_before_there_is_a_world(dialect):
    client = dialect()
    assert client.asks("CDS") == []
    assert client.is_told(ONE_OF_EACH) == ["CDS c"]
