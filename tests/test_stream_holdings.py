"""What a client was sent and has, for the catalog: recorded where that was asked for."""

from dataclasses import replace

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from transcripts import BOTH, FOREIGN, ONE_OF_EACH, Delta, quiet, thing, world

from meshfed.xds.resource import Type, World
from meshfed.xds.stream import Holding, Stream
from meshfed.xds.subscription import GATE


def recorded(client: Delta) -> list[Holding]:
    holdings, client.stream.holdings = client.stream.holdings, []
    return [each for each in holdings if each.type == "EDS"]


def recording(of: Delta) -> Delta:
    of.stream = Stream(delta=True, recording=True)
    of.stream.offer(world(1, CDS="a", EDS="a"))
    return quiet(of)


def version(short: str, text: str) -> str:
    return thing(short, text).version


def test_each_push_is_recorded_with_its_revision_and_a_rejected_version_is_empty():
    client = recording(Delta())
    assert recorded(client)[-1] == Holding("EDS", 1, {"a": version("EDS", "a")})
    client.is_told(world(2, CDS="a", EDS="a:2"))
    assert recorded(client) == [Holding("EDS", 2, {"a": version("EDS", "a:2")})]
    client.rejects("EDS", "no")
    client.is_told(world(3, CDS="a", EDS="a:2 b"))
    assert client.asks("EDS", "b") == ["EDS b"]
    assert recorded(client) == [Holding("EDS", 3, {"a": "", "b": version("EDS", "b")})]


def test_what_a_client_lets_go_of_is_recorded():
    client = recording(Delta())
    recorded(client)
    client.asks("EDS", drops="a")
    assert recorded(client) == [Holding("EDS", 1, {})]


def test_what_is_not_served_is_not_recorded():
    client = recording(Delta())
    recorded(client)
    client.stream.receive(
        DeltaDiscoveryRequest(type_url=FOREIGN, resource_names_subscribe=["x"]), client.now
    )
    assert client.hears() == [f"{FOREIGN} -x"]
    assert client.stream.holdings == []


def test_nothing_is_recorded_unless_it_is_asked_for():
    client = quiet(Delta(world(1, CDS="a", EDS="a")))
    assert client.settled == 1
    assert client.stream.holdings == []


@BOTH
def test_a_stream_is_quiet_once_it_was_sent_all_of_its_world(dialect: type[Delta]) -> None:
    client = dialect(ONE_OF_EACH)
    assert not client.stream.quiet
    assert quiet(client).stream.quiet
    client.stream.offer(world(2, CDS="c", EDS="c:2", SDS="s", LDS="l", RDS="r"))
    assert not client.stream.quiet
    assert client.hears() == ["EDS c"]
    assert client.stream.quiet


def test_a_stream_is_quiet_while_what_moved_waits_for_an_answer():
    client = quiet(Delta(ONE_OF_EACH))
    client.stream.offer(beside(ONE_OF_EACH, EDS="c:2"))
    assert len(client.stream.outgoing(0.0)) == 1
    client.stream.offer(beside(ONE_OF_EACH, EDS="c:3"))
    assert client.stream.quiet
    assert client.stream.deadline() == GATE  # then it is said all the same
    assert client.stream.outgoing(0.0) == []
    assert client.stream.deadline() == GATE
    client.stream.offer(beside(ONE_OF_EACH, EDS="c:3", SDS="s:2"))
    assert not client.stream.quiet  # its secrets wait for nothing


@BOTH
@pytest.mark.parametrize("same", [True, False], ids=["the same objects", "made anew"])
@pytest.mark.parametrize("other", [{"CDS": "d"}, {"CDS": "c:2"}, {"CDS": "c:2", "LDS": "l:2"}])
def test_a_world_that_comes_back_while_another_is_on_its_way_is_all_that_is_held(
    dialect: type[Delta], other: dict[str, str], same: bool
):
    """As of a proxy that is of another class for a moment."""
    client = quiet(dialect(ONE_OF_EACH))
    said = client.is_told(beside(ONE_OF_EACH, **other))
    assert said[0].startswith("CDS")
    back = ONE_OF_EACH if same else world(3, CDS="c", EDS="c", SDS="s", LDS="l", RDS="r")
    client.stream.offer(back)
    while said:
        said = [more for line in said for more in client.accepts(line.split()[0])]
    held = client.stream._subscriptions[Type.CLUSTER].held
    assert held == {"c": version("CDS", "c")}
    assert client.settled == back.revision


@BOTH
def test_endpoints_of_a_changed_cluster_are_due_while_older_ones_wait_for_an_answer(
    dialect: type[Delta],
) -> None:
    """Those of the new world are the very objects of the one before."""
    client = quiet(dialect(ONE_OF_EACH))
    one = beside(ONE_OF_EACH, EDS="c:2")
    assert client.is_told(one) == ["EDS c"]
    assert client.is_told(beside(one, CDS="c:2")) == ["CDS c"]
    assert client.waits(GATE) == ["EDS c"]


@BOTH
def test_a_world_is_settled_by_its_last_answer_though_the_next_was_sent_in_part(
    dialect: type[Delta],
) -> None:
    client = quiet(dialect(ONE_OF_EACH))
    assert client.is_told(world(2, CDS="c", EDS="c", SDS="s", LDS="l", RDS="r:2")) == ["RDS r"]
    assert client.settled == 1
    client.is_told(world(3, CDS="d", EDS="c", SDS="s", LDS="l", RDS="r:2"))
    client.accepts("CDS")
    assert client.settled == 1  # the answer to its routes is still to come
    client.accepts("RDS")
    assert client.settled == 2


def beside(one: World, **types: str) -> World:
    """The same objects, but for these types."""
    return replace(one, resources={**one.resources, **world(2, **types).resources})
