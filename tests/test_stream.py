"""One conversation, as transcripts. The names are the rules of the xDS protocol that we hold to:
T transport, S state of the world, D delta, O order, N rejections, F flow."""

from collections.abc import Iterable

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from meshfed.xds.resource import SHORT, Resource, Type, World, resource
from meshfed.xds.stream import Malformed, Stream
from meshfed.xds.subscription import GATE

URL = {short: kind for kind, short in SHORT.items()}
FOREIGN = "type.googleapis.com/foo.v9.Bar"


def cluster(name: str, content: str) -> Message:
    message = Cluster(name=name, alt_stat_name=content, type=Cluster.EDS)
    message.eds_cluster_config.service_name = f"{name}-hosts" if content == "moved" else ""
    return message


MAKE = {
    "CDS": cluster,
    "EDS": lambda name, content: ClusterLoadAssignment(
        cluster_name=name, named_endpoints={content: {}}
    ),
    "SDS": lambda name, content: Secret(
        name=name, generic_secret={"secret": {"inline_string": content}}
    ),
    "LDS": lambda name, content: Listener(name=name, stat_prefix=content),
    "RDS": lambda name, content: RouteConfiguration(name=name, request_headers_to_remove=[content]),
}


def thing(short: str, text: str) -> Resource:
    """`name` or `name:content`."""
    name, _, content = text.partition(":")
    return resource(name, MAKE[short](name, content))


def world(revision: int, **resources: str) -> World:
    """`world(1, CDS="a b:other")`."""
    return World(
        revision,
        {
            Type(URL[short]): {r.name: r for r in (thing(short, text) for text in texts.split())}
            for short, texts in resources.items()
        },
    )


class Client:
    """A client that says what the test says, and writes down what it hears: `CDS a b -c`."""

    def __init__(self, *, delta: bool, world: World | None = None) -> None:
        self.stream = Stream(delta)
        self.delta = delta
        self.now = 100.0
        self.last: dict[str, DeltaDiscoveryResponse | DiscoveryResponse] = {}
        if world:
            self.stream.offer(world)

    def hears(self) -> list[str]:
        return [self._read(response.body) for response in self.stream.outgoing(self.now)]

    def _read(self, body: bytes) -> str:
        if self.delta:
            response = DeltaDiscoveryResponse.FromString(body)
            names = [r.name for r in response.resources]
            removed = [f"-{name}" for name in response.removed_resources]
            kinds = {r.resource.type_url for r in response.resources}
        else:
            response = DiscoveryResponse.FromString(body)
            names = [name_of(packed) for packed in response.resources]
            removed = []
            kinds = {packed.type_url for packed in response.resources}
        assert kinds <= {response.type_url}, "T9"
        assert len({*names}) == len(names), "T10"
        assert not {*names} & {name[1:] for name in removed}, "T10"
        assert response.control_plane.identifier == "meshfed", "T11"
        short = SHORT.get(response.type_url, response.type_url)
        self.last[short] = response
        return " ".join([short, *sorted(names), *removed])

    def is_told(self, world: World) -> list[str]:
        self.stream.offer(world)
        return self.hears()

    def waits(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.hears()


class Delta(Client):
    def __init__(self, world: World | None = None) -> None:
        super().__init__(delta=True, world=world)

    def asks(
        self,
        short: str,
        names: str = "",
        *,
        drops: str = "",
        has: Iterable[Resource] = (),
        nonce: str = "",
    ) -> list[str]:
        request = DeltaDiscoveryRequest(
            type_url=URL.get(short, short),
            resource_names_subscribe=names.split(),
            resource_names_unsubscribe=drops.split(),
            initial_resource_versions={r.name: r.version for r in has},
            response_nonce=nonce,
        )
        self.stream.receive(request, self.now)
        return self.hears()

    def accepts(self, short: str, nonce: str = "") -> list[str]:
        return self.asks(short, nonce=nonce or self.last[short].nonce)

    def rejects(self, short: str, words: str, nonce: str = "") -> list[str]:
        request = DeltaDiscoveryRequest(
            type_url=URL[short], response_nonce=nonce or self.last[short].nonce
        )
        request.error_detail.message = words
        self.stream.receive(request, self.now)
        return self.hears()


class Sotw(Client):
    def __init__(self, world: World | None = None) -> None:
        super().__init__(delta=False, world=world)
        self.names: dict[str, list[str]] = {}

    def asks(
        self, short: str, names: str | None = None, *, nonce: str = "", words: str = ""
    ) -> list[str]:
        if names is not None:
            self.names[short] = names.split()
        last = self.last.get(short)
        request = DiscoveryRequest(
            type_url=URL.get(short, short),
            resource_names=self.names.get(short, []),
            version_info=last.version_info if isinstance(last, DiscoveryResponse) else "",
            response_nonce=nonce or (last.nonce if last else ""),
        )
        if words:
            request.error_detail.message = words
        self.stream.receive(request, self.now)
        return self.hears()

    def accepts(self, short: str, nonce: str = "") -> list[str]:
        return self.asks(short, nonce=nonce)

    def rejects(self, short: str, words: str, nonce: str = "") -> list[str]:
        return self.asks(short, words=words, nonce=nonce)


def name_of(packed: Any) -> str:
    message = MAKE[SHORT[Type(packed.type_url)]]("", "")
    packed.Unpack(message)
    return message.cluster_name if isinstance(message, ClusterLoadAssignment) else message.name


def quiet(client: Delta | Sotw) -> Delta | Sotw:
    """The usual start of a sidecar, acknowledged throughout."""
    everything = client.stream._world
    assert everything
    for short in ("CDS", "EDS", "SDS", "LDS", "RDS"):
        names = "" if short in ("CDS", "LDS") else " ".join(everything.of(Type(URL[short])))
        heard = client.asks(short, names)
        while heard:
            heard = [more for line in heard for more in client.accepts(line.split()[0])]
    return client


BOTH = pytest.mark.parametrize("dialect", [Delta, Sotw], ids=["delta", "sotw"])
ONE_OF_EACH = world(1, CDS="c", EDS="c", SDS="s", LDS="l", RDS="r")


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
    assert thing("CDS", "a").version in str(client.last["CDS"]) or dialect is Sotw
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
