"""One xDS resource as shared bytes, versioned by its content, and the world a stream is told of."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

V = TypeVar("V")

PREFIX = "type.googleapis.com/"


class Type(StrEnum):
    """The resource types a sidecar is served, by type URL, in make-before-break order."""

    CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
    ENDPOINTS = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
    LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
    ROUTES = PREFIX + "envoy.config.route.v3.RouteConfiguration"

    @property
    def short(self) -> str:
        return SHORT[self]


SHORT: Mapping[str, str] = {
    Type.CLUSTER: "CDS",
    Type.ENDPOINTS: "EDS",
    Type.SECRET: "SDS",
    Type.LISTENER: "LDS",
    Type.ROUTES: "RDS",
}


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Resource:
    """A packed resource: the same content has the same version on every replica, for ever.

    It is shared: there is one object of one content, and what is kept of it is found by which it
    is, without looking at its bytes.
    """

    name: str
    version: str  # 16 hex of sha256 over the deterministic bytes
    any: bytes  # google.protobuf.Any, serialised
    delta: bytes  # discovery.v3.Resource, serialised

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.version})"  # a secret's bytes never reach a log


def packed(message: Message) -> Any:
    """The same content is the same bytes, maps included."""
    answer = Any()
    answer.Pack(message, deterministic=True)
    return answer


def resource(name: str, message: Message) -> Resource:
    return shared(name, packed(message))


def shared(name: str, content: Any) -> Resource:
    version = sha256(content.value).hexdigest()[:16]
    at = content.type_url, name, version
    if (same := known.get(at)) is not None:
        return same
    wrapped = discovery_pb2.Resource(name=name, version=version, resource=content)
    made = Resource(name, version, content.SerializeToString(), wrapped.SerializeToString())
    known[at] = made
    return made


# Classes of proxies that are told the same share the bytes, as long as anyone is told them.
known: WeakValueDictionary[tuple[str, str, str], Resource] = WeakValueDictionary()


def once(work: Callable[[Resource], V]) -> Callable[[Resource], V]:
    """Worked out once of each resource, and remembered no longer than that is told to anyone."""
    found: WeakKeyDictionary[Resource, V] = WeakKeyDictionary()

    def of(resource: Resource) -> V:
        if resource not in found:
            found[resource] = work(resource)
        return found[resource]

    return of


named = attrgetter("name")
Resources = Mapping[str, Resource]
ByType = Mapping[str, Resources]  # by type URL
NOTHING: Resources = MappingProxyType({})
COMPARED = 512  # pairs of resources, and of worlds, whose difference is remembered at most


Names = frozenset[str]
Asked = Names | None  # None: all of them


class Difference(NamedTuple):
    """Between some resources and later ones."""

    new: tuple[Resource, ...]  # not there before, or otherwise
    gone: Names


class Ways(dict[tuple[int, ...], V]):
    """What leads from something to what it is later, by the ids of both.

    An entry keeps them alive, so that no id is another's meanwhile. Where somebody goes on from
    there nobody is led any more: the newest counts. So that entry is let go of, and with it what
    was replaced.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        # By whither; none is listed that is gone, as they go together.
        self._to: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)

    def add(self, at: tuple[int, ...], way: V) -> V:
        for past in self._to.pop(at[0], ()):
            self.pop(past, None)
        while len(self) >= self._most:
            first = next(iter(self))
            del self[first]
            self._to.pop(first[1], None)
        self._to[at[1]].append(at)
        self[at] = way
        return way


class Differences:
    """What some resources are beside others, worked out once for all streams that ask.

    Resources are compared by which object they are.
    """

    def __init__(self, most: int = COMPARED) -> None:
        self.made = 0  # how often resources were compared, for those who count
        self._found: Ways[tuple[Resources, Resources, Asked, Difference]] = Ways(most)
        self._types: Ways[tuple[ByType, ByType, tuple[str, ...]]] = Ways(most)

    def between(self, old: Resources, new: Resources, asked: Asked = None) -> Difference:
        at = id(old), id(new), id(asked)
        found = self._found.get(at)
        if found is None:
            made = self._made(old, new) if asked is None else self._of(old, new, asked)
            found = self._found.add(at, (old, new, asked, made))
        return found[3]

    def _made(self, old: Resources, new: Resources) -> Difference:
        self.made += 1
        moved = set(new.values()).difference(old.values())
        return Difference(tuple(sorted(moved, key=named)), frozenset(old.keys() - new.keys()))

    def _of(self, old: Resources, new: Resources, asked: Names) -> Difference:
        """Who asks for others than anybody else costs no comparison, but a look at what moved."""
        news, gone = self.between(old, new)
        return Difference(tuple(r for r in news if r.name in asked), gone)

    def types(self, old: ByType, new: ByType) -> tuple[str, ...]:
        """Those of which not all is the same."""
        at = id(old), id(new)
        found = self._types.get(at)
        if found is None:
            moved = (k for k in {**old, **new} if old.get(k) is not new.get(k))
            found = self._types.add(at, (old, new, tuple(moved)))
        return found[2]


differences = Differences()


@dataclass(frozen=True, slots=True)
class World:
    """All that one proxy may be told at one revision. Other names do not exist for it."""

    revision: int
    resources: ByType
    by_name: bool = False  # to a gRPC client: it never means all of them by naming none
    number: int = 0  # of those that are offered, ascending: some are of one revision

    def of(self, kind: Type) -> Resources:
        return self.resources.get(kind, NOTHING)
