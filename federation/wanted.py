"""Who needs a certificate, and for which services: worked out again where a mesh moved."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from meshfed.catalog.model import Endpoint, Identity, Mesh, ServiceName

Answering = Mapping[Identity, frozenset[ServiceName]]


def identities(mesh: Mesh) -> Answering:
    """Everyone who needs a certificate, and the services they answer for."""
    return Wanted().of(mesh, mesh.workloads)


class Wanted:
    """The same of one mesh after another: of 100,000 workloads one arrives at a time."""

    def __init__(self) -> None:
        self._mesh = Mesh(trust_domain="")
        self._workloads: Counter[Identity] = Counter()
        self._answering: dict[ServiceName, tuple[tuple[Endpoint, ...], frozenset[Identity]]] = {}

    def of(self, mesh: Mesh, moved: Collection[str]) -> Answering:
        """`moved`: the ids of all workloads that are otherwise than in the mesh before."""
        for there, one in ((self._mesh.workloads, -1), (mesh.workloads, 1)):
            for workload in filter(None, map(there.get, moved)):
                if workload.identity:
                    self._workloads[workload.identity] += one
        self._mesh = mesh
        self._workloads += Counter()  # without those of whom there is none
        found: defaultdict[Identity, set[ServiceName]] = defaultdict(set)
        for identity in self._workloads:
            found[identity] = set()
        for service, endpoints in mesh.endpoints.items():
            for identity in self._who(service, endpoints):
                found[identity].add(service)
        for service in self._answering.keys() - mesh.endpoints.keys():
            del self._answering[service]
        return {identity: frozenset(services) for identity, services in found.items()}

    def _who(self, service: ServiceName, endpoints: tuple[Endpoint, ...]) -> frozenset[Identity]:
        known = self._answering.get(service)
        if known is None or known[0] is not endpoints:
            # The catalog shares equal ones, mostly, and a hash takes ten times as long.
            distinct = {id(each.identity): each.identity for each in endpoints}
            known = endpoints, frozenset(filter(None, distinct.values()))
            self._answering[service] = known
        return known[1]
