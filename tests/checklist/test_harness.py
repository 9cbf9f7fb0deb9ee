"""The eighteen scenario outlines of ii/xds-test-harness, in its words, aggregated SotW and delta.

Its adapter sets a version for a type and finds it in the answers; ours is a hash of the content, so
here it is the content that is compared. It acknowledges everything, and lets no acknowledgement be
answered: so does `settle`.
"""

import pytest
from transcripts import Delta, Sotw, world

EVERY = ["CDS", "LDS", "RDS", "EDS"]
WHOLE = pytest.mark.parametrize("short", ["CDS", "LDS"])
NAMED = pytest.mark.parametrize("short", ["RDS", "EDS"])
ALL = pytest.mark.parametrize("short", EVERY)
PAIRS = ["CDS LDS", "LDS CDS", "RDS EDS", "EDS RDS"]


def of(revision: int, short: str, text: str):
    return world(revision, **{short: text})


def settle(client: Delta | Sotw, *shorts: str) -> Delta | Sotw:
    for short in shorts:
        assert client.accepts(short) == [], "it never responds more than necessary"
    return client


# subscribing.feature


@WHOLE
def test_outline_01_the_service_should_send_all_resources_on_a_wildcard_request(short):
    client = Sotw(of(1, short, "a b c"))
    assert client.asks(short, "") == [f"{short} a b c"]
    settle(client, short)


@WHOLE
def test_outline_02_the_service_should_send_updates_to_the_client(short):
    client = Sotw(of(1, short, "a b c"))
    client.asks(short, "")
    settle(client, short)
    before = client.last[short].version_info
    assert client.is_told(of(2, short, "a:2 b c")) == [f"{short} a b c"]
    assert client.last[short].version_info != before
    settle(client, short)


@WHOLE
def test_outline_03_wildcard_subscriptions_receive_updates_when_new_resources_are_added(short):
    client = Sotw(of(1, short, "a b c"))
    client.asks(short, "")
    settle(client, short)
    assert client.is_told(of(2, short, "a b c d")) == [f"{short} a b c d"]
    settle(client, short)


@ALL
@pytest.mark.parametrize("dialect", [Sotw, Delta], ids=["sotw", "delta"])
def test_outline_04_when_subscribing_to_specific_resources_receive_only_these(dialect, short):
    client = dialect(of(1, short, "a b c d"))
    assert client.asks(short, "b d") == [f"{short} b d"]
    settle(client, short)


@WHOLE
def test_outline_05_when_these_resources_change_receive_all_of_them_in_one_response(short):
    client = Sotw(of(1, short, "a b c"))
    client.asks(short, "a b")
    settle(client, short)
    assert client.is_told(of(2, short, "a:2 b c")) == [f"{short} a b"]
    settle(client, short)


@NAMED
def test_outline_06_when_these_resources_change_receive_the_one_that_did(short):
    client = Sotw(of(1, short, "a b c"))
    client.asks(short, "a b")
    settle(client, short)
    assert client.is_told(of(2, short, "a:2 b c")) == [f"{short} a"]
    settle(client, short)


@WHOLE
def test_outline_07_what_does_not_exist_is_received_when_created_in_a_single_response(short):
    client = Sotw(of(1, short, "a"))
    assert client.asks(short, "a b") == [f"{short} a"]
    settle(client, short)
    assert client.is_told(of(2, short, "a b")) == [f"{short} a b"]
    settle(client, short)


@NAMED
def test_outline_08_what_does_not_exist_is_received_when_created(short):
    client = Sotw(of(1, short, "a"))
    assert client.asks(short, "a b") == [f"{short} a"]
    settle(client, short)
    assert client.is_told(of(2, short, "a b")) == [f"{short} b"]
    settle(client, short)


@pytest.mark.parametrize("pair", PAIRS)
def test_outline_09_client_can_subscribe_to_multiple_services_via_ads(pair):
    one, other = pair.split()
    client = Sotw(world(1, **{one: "a b", other: "c d"}))
    assert client.asks(one, "a b") == [f"{one} a b"]
    settle(client, one)
    assert client.asks(other, "c d") == [f"{other} c d"]
    settle(client, other)


def test_outline_09_an_acknowledgement_under_the_first_services_type_is_shrugged_at():
    """So the harness's runner does it."""
    client = Sotw(world(1, RDS="a", EDS="b"))
    client.asks("RDS", "a")
    settle(client, "RDS")
    client.asks("EDS", "b")
    foreign = client.last["EDS"].nonce
    assert client.asks("RDS", "a", nonce=foreign) == []
    assert client.is_told(world(2, RDS="a:2", EDS="b")) == ["RDS a"]


# unsubcribing.feature


@WHOLE
def test_outline_10_client_can_unsubscribe_from_some_whole_resources(short):
    client = Sotw(of(1, short, "a b c"))
    client.asks(short, "a b c")
    settle(client, short)
    assert client.asks(short, "a b") == []
    assert client.is_told(of(2, short, "a:2 b c:2")) == [f"{short} a b"]
    settle(client, short)


@NAMED
def test_outline_11_client_can_unsubscribe_from_some_resources(short):
    client = Sotw(of(1, short, "a b c"))
    client.asks(short, "a b c")
    settle(client, short)
    assert client.asks(short, "a b") == []
    assert client.is_told(of(2, short, "a:2 b c:2")) == [f"{short} a"]
    settle(client, short)


@ALL
@pytest.mark.parametrize("names", [[], [""]], ids=["no name", "an empty name, as the harness does"])
def test_outline_12_client_can_unsubscribe_from_all_resources(short, names):
    client = Sotw(of(1, short, "a b"))
    client.asks(short, "a b")
    settle(client, short)
    client.names[short] = names
    assert client.asks(short) == []
    assert client.is_told(of(2, short, "a:2 b:2")) == []


# delta.feature


@ALL
def test_outline_13_subscribe_to_resources_one_after_the_other(short):
    client = Delta(of(1, short, "a b c"))
    for name in "abc":
        assert client.asks(short, name) == [f"{short} {name}"]
        settle(client, short)


@ALL
def test_outline_14_when_a_resource_is_updated_receive_response_for_only_that_resource(short):
    client = Delta(of(1, short, "a b c"))
    client.asks(short, "a b c")
    settle(client, short)
    assert client.is_told(of(2, short, "a b:2 c")) == [f"{short} b"]
    settle(client, short)


@ALL
def test_outline_15_client_is_told_if_resource_does_not_exist_and_if_it_is_created(short):
    client = Delta(of(1, short, "a"))
    assert client.asks(short, "a x") == [f"{short} a -x"]
    settle(client, short)
    assert client.is_told(of(2, short, "a x")) == [f"{short} x"]
    settle(client, short)


@ALL
def test_outline_16_client_is_told_when_a_resource_is_removed(short):
    client = Delta(of(1, short, "a b"))
    client.asks(short, "a b")
    settle(client, short)
    assert client.is_told(of(2, short, "a")) == [f"{short} -b"]
    settle(client, short)


@ALL
def test_outline_17_client_can_incrementally_unsubscribe_from_resources(short):
    client = Delta(of(1, short, "a b c"))
    client.asks(short, "a b c")
    settle(client, short)
    assert client.asks(short, drops="a") == []
    assert client.is_told(of(2, short, "a:2 b:2 c")) == [f"{short} b"]
    settle(client, short)
    assert client.asks(short, drops="b c") == []
    assert client.is_told(of(3, short, "a:3 b:3 c:3")) == []


@pytest.mark.parametrize("pair", PAIRS)
def test_outline_18_client_can_subscribe_to_multiple_services_via_ads_in_delta(pair):
    one, other = pair.split()
    client = Delta(world(1, **{one: "a b", other: "c d"}))
    assert client.asks(one, "a b") == [f"{one} a b"]
    settle(client, one)
    assert client.asks(other, "c d") == [f"{other} c d"]
    settle(client, other)
    changed = world(2, **{one: "a:2 b", other: "c d:2"})
    first = client.is_told(changed)
    more = client.accepts("CDS") if "CDS" in pair else []
    assert sorted([*first, *more]) == sorted([f"{one} a", f"{other} d"])
