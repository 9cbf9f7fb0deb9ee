"""Which edge of the mesh a part of a sidecar's load report is about."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from meshfed.catalog.model import (
    Endpoint,
    Locality,
    Mesh,
    Policy,
    Service,
    ServiceName,
    TrafficSplit,
)
from meshfed.catalog.preferences import NO_PREFERENCE, Preference
from meshfed.catalog.traffic import Edge, Load
from meshfed.xds.loads import Called, Calls, called

Place = tuple[str, str, str]  # region, zone and name of a locality, as it is told (xds/endpoints)


MOST = 1 << 16  # edges that are remembered: a liar may name any number of places


class Counted(NamedTuple):
    """A part of a report in the catalog's words."""

    edge: Edge
    load: Load


def load(part: Calls, *, http: bool) -> Load:
    """To Envoy a TCP connection never ends well or badly: it begins, and is open."""
    requests = part.succeeded + part.failed if http else part.begun
    return Load(requests, part.failed, part.in_flight)


class Edges:
    """What a mesh has, and what it had: what is gone was counted until then, and is reported after.

    What it never had is not counted: else a sidecar could fill the catalog with names.
    """

    def __init__(self, mesh: Callable[[], Mesh]) -> None:
        self._mesh = mesh
        self._services: dict[ServiceName, Service] = {}
        self._splits: set[tuple[ServiceName, ServiceName]] = set()  # root and backend
        self._places: dict[ServiceName, dict[Place, str]] = {}  # the platform of each
        # What was looked at last, and need not be again: every sidecar says much the same.
        self._in: Mesh | None = None
        self._edges: dict[tuple[str, str, Place], tuple[Edge, bool] | None] = {}
        self._policies: tuple[Policy, ...] = ()
        self._looked: dict[ServiceName, tuple[tuple[Endpoint, ...], Preference]] = {}

    def counted(self, source: str, part: Calls) -> Counted | None:
        """None where the mesh never had such a service, split or place."""
        mesh = self._mesh()
        if mesh is not self._in:
            self._in = mesh
            self._edges.clear()
        cluster, region, zone, name, *_ = part
        key = (source, cluster, (region, zone, name))
        if key not in self._edges:
            if len(self._edges) == MOST:
                self._edges.clear()
            self._edges[key] = self._edge(mesh, source, part)
        found = self._edges[key]
        return None if found is None else Counted(found[0], load(part, http=found[1]))

    def _edge(self, mesh: Mesh, source: str, part: Calls) -> tuple[Edge, bool] | None:
        """And whether HTTP is spoken there."""
        where = called(part.cluster)
        service = self._service(mesh, where.answering) if where else None
        if where is None or service is None or not self._split(mesh, where):
            return None
        platform = self._platform(mesh, where.answering, (part.region, part.zone, part.name))
        if platform is None:
            return None
        zone = str(Locality(part.region, part.zone))
        version = str(where.backend or "")
        port = service.port(where.port)
        http = port is None or port.protocol.is_http
        return Edge(source, str(where.service), version, platform, zone), http

    def _service(self, mesh: Mesh, name: ServiceName) -> Service | None:
        if name in mesh.services:
            self._services[name] = mesh.services[name]
        return self._services.get(name)

    def _split(self, mesh: Mesh, where: Called) -> bool:
        if where.backend is None:
            return True
        if (
            where.service,
            where.backend,
        ) not in self._splits and mesh.policies is not self._policies:
            self._policies = mesh.policies
            self._splits |= {
                (policy.service, backend.service)
                for policy in mesh.policies
                if isinstance(policy, TrafficSplit)
                for backend in policy.backends
            }
        return (where.service, where.backend) in self._splits

    def _platform(self, mesh: Mesh, service: ServiceName, place: Place) -> str | None:
        """Empty: endpoints of several platforms are weighed under that one name."""
        known = self._places.setdefault(service, {})
        if place not in known:
            there, rule = mesh.endpoints.get(service, ()), mesh.preferences.of(service)
            before, ruled = self._looked.get(service, ((), NO_PREFERENCE))
            if there is not before or rule != ruled:
                self._looked[service] = there, rule
                known |= places(there, rule)
        return known.get(place)


def places(endpoints: Iterable[Endpoint], preference: Preference) -> dict[Place, str]:
    """The localities that callers are told of, or were, and the platform of each."""
    found: dict[Place, set[str]] = {}
    for e in endpoints:
        names = [(e.locality.region, e.locality.zone, str(e.platform))]
        if preference.weights:
            names.append(("", "", preference.weighed(e.provider, e.platform)[0]))
        for name in names:
            found.setdefault(name, set()).add(str(e.platform))
    return {name: who.pop() if len(who) == 1 else "" for name, who in found.items()}
