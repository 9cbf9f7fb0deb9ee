"""What a client keeps of resources, good and bad, and how it rejects the bad, as Envoy does."""

from collections.abc import Mapping

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret

from meshfed.xds.resource import Resource, Type, World, resource

MAKE = {
    Type.CLUSTER: lambda name, content: Cluster(name=name, alt_stat_name=content, type="EDS"),
    Type.ENDPOINTS: lambda name, content: ClusterLoadAssignment(
        cluster_name=name, named_endpoints={content: {}}
    ),
    Type.SECRET: lambda name, content: Secret(
        name=name, generic_secret={"secret": {"inline_string": content}}
    ),
    Type.LISTENER: lambda name, content: Listener(name=name, stat_prefix=content),
    Type.ROUTES: lambda name, content: RouteConfiguration(
        name=name, request_headers_to_remove=[content]
    ),
}
WHOLE = (Type.CLUSTER, Type.LISTENER)
MADE = {
    (kind, name, content): resource(name, make(name, content))
    for kind, make in MAKE.items()
    for name in "abc"
    for content in ("one", "two", "bad")
}
BY_BYTES = {made.any: made for made in MADE.values()}
FOREIGN = "type.googleapis.com/foo.v9.Bar"
BAD = {(kind, made.version) for (kind, _, content), made in MADE.items() if content == "bad"}


def shown(revision: int, contents: Mapping[Type, Mapping[str, str]]) -> World:
    return World(
        revision,
        {
            kind: {name: MADE[kind, name, content] for name, content in of.items()}
            for kind, of in contents.items()
        },
    )


class Model:
    """What a client keeps of one type, and how it rejects what is bad, as Envoy does."""

    def __init__(self, kind: Type) -> None:
        self.kind = kind
        self.names: set[str] = set()
        self.wildcard = False
        self.named = False
        self.asked = False
        self.held: dict[str, str] = {}
        self.silent = False  # while it warms, it keeps its answers back
        self.next: set[str] = set()  # names that it asks for with its next answer

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def keep(self, resources: list[Resource]) -> str:
        """Returns the words of a rejection: bad clusters and listeners are named, and the others
        taken; of other types it stops at the first bad one."""
        bad = [r for r in resources if (self.kind, r.version) in BAD]
        if self.kind in WHOLE:
            good = [r for r in resources if r not in bad]
        else:
            good = resources[: resources.index(bad[0])] if bad else resources
        self.held |= {r.name: r.version for r in good}
        if bad and self.kind in WHOLE:
            return "Error adding/updating " + ", ".join(f"{r.name}: no" for r in bad)
        return "no" if bad else ""

    def forget(self) -> None:
        self.held = {name: version for name, version in self.held.items() if self.wants(name)}
