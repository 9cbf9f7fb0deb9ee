"""What streams that ask for the same have in common."""

from weakref import ref

from envoy.config.cluster.v3.cluster_pb2 import Cluster

from meshfed.xds.resource import Differences, Type, resource
from meshfed.xds.subscription import Subscription, alike


def test_the_same_names_are_one_object_however_they_were_asked_for() -> None:
    one, other = Subscription(Type.ENDPOINTS), Subscription(Type.ENDPOINTS)
    one.ask(["a", "b"])
    other.ask(["b"])
    other.ask(["a"])
    assert one.names is other.names
    other.forget(["b"])
    assert (one.names, other.names) == ({"a", "b"}, {"a"})
    assert other.owed == {"a"}


def test_names_of_one_hash_are_not_taken_for_each_other() -> None:
    assert hash(one := frozenset({-1})) == hash(other := frozenset({-2}))
    assert (alike(one), alike(other)) == (one, other)  # type: ignore[arg-type]  # words rarely do


def test_what_was_replaced_is_not_kept_for_a_comparison() -> None:
    differences = Differences()
    kept = []
    before = {"CDS": {"a": resource("a", Cluster(name="nobody else has", alt_stat_name="0"))}}
    for number in range(1, 5):
        later = Cluster(name="nobody else has", alt_stat_name=str(number))
        after = {"CDS": {"a": resource("a", later)}}
        assert differences.between(before["CDS"], after["CDS"]).new == (after["CDS"]["a"],)
        assert differences.types(before, after) == ("CDS",)
        kept.append(ref(before["CDS"]["a"]))
        before = after
    assert [one() is None for one in kept] == [True, True, True, False]


def test_streams_that_ask_for_different_names_share_a_comparison() -> None:
    old, new = (
        {name: resource(name, Cluster(name=name, alt_stat_name=said)) for name in "abc"}
        for said in ("one", "two")
    )
    differences = Differences()
    for name in "abc":
        assert differences.between(old, new, frozenset(name)).new == (new[name],)
    assert differences.made == 1
