"""Both sides of a conversation in a line each: `client.asks("CDS", "a") == ["CDS a"]`."""

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
from meshfed.xds.stream import Stream
from meshfed.xds.subscription import Memory
from meshfed.xds.wire import MOST_BYTES

URL = {short: kind for kind, short in SHORT.items()}
FOREIGN = "type.googleapis.com/foo.v9.Bar"


def cluster(name: str, content: str) -> Message:
    if content in ("static", "fixed"):
        return Cluster(name=name, alt_stat_name=content, type=Cluster.STATIC)
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

    def __init__(
        self, *, delta: bool, world: World | None = None, memory: Memory | None = None
    ) -> None:
        self.memory: Memory = {} if memory is None else memory
        self.stream = Stream(delta, memory=self.memory)
        self.delta = delta
        self.now = 100.0
        self.heard: list[str] = []  # when it came back
        self.sizes: list[int] = []  # bytes of what it heard last
        self.last: dict[str, DeltaDiscoveryResponse | DiscoveryResponse] = {}
        if world:
            self.stream.offer(world)

    @property
    def settled(self) -> int:
        """The revision of which it acknowledged everything; -1 before any."""
        return self.stream.settled.revision if self.stream.settled else -1

    def hears(self) -> list[str]:
        responses = self.stream.outgoing(self.now)
        self.sizes = [len(response.body) for response in responses]
        return [self._read(response.body) for response in responses]

    def _read(self, body: bytes) -> str:
        if self.delta:
            response = DeltaDiscoveryResponse.FromString(body)
            names = [r.name for r in response.resources]
            assert not any(r.HasField("ttl") for r in response.resources), "D14"
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
        assert len(body) < MOST_BYTES or len(response.resources) == 1 or not self.delta, "T12"
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
    def __init__(self, world: World | None = None, memory: Memory | None = None) -> None:
        super().__init__(delta=True, world=world, memory=memory)

    def comes_back(self, world: World, **has: str) -> "Delta":
        """On a new stream, with what it has: `comes_back(world, CDS="a b:2")`."""
        again = Delta(world, self.memory)
        again.heard = [
            line
            for short, texts in has.items()
            for line in again.asks(short, has=[thing(short, text) for text in texts.split()])
        ]
        return again

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
    def __init__(self, world: World | None = None, memory: Memory | None = None) -> None:
        super().__init__(delta=False, world=world, memory=memory)
        self.names: dict[str, list[str]] = {}

    def comes_back(self, world: World, **has: str) -> "Sotw":
        """On a new stream, with the versions of the old one."""
        again = Sotw(world, self.memory)
        again.last = dict(self.last)
        again.heard = [line for short in has for line in again.asks(short, "")]
        return again

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
