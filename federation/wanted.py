"""Who needs a certificate, and for which services: worked out again where a mesh moved."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from meshfed.catalog.model import Identity, Mesh, ServiceName
from meshfed.catalog.resolved import others

Answering = Mapping[Identity, frozenset[ServiceName]]


def identities(mesh: Mesh) -> Answering:
    """Everyone who needs a certificate, and the services they answer for."""
    return Wanted().of(mesh, mesh.workloads)


class Wanted:
    """The same of one mesh after another: of 100,000 workloads one arrives at a time."""

    def __init__(self) -> None:
        self._mesh = Mesh(trust_domain="")
        self._workloads: Counter[Identity] = Counter()
        self._who: dict[ServiceName, frozenset[Identity]] = {}  # answers for it
        self._found: Answering = {}

    def of(self, mesh: Mesh, moved: Collection[str]) -> Answering:
        """`moved`: the ids of all workloads that are otherwise than in the mesh before.

        The same object as the last time, where nothing is otherwise.
        """
        before, self._mesh = self._mesh, mesh
        there = set(self._workloads)
        for workloads, one in ((before.workloads, -1), (mesh.workloads, 1)):
            for workload in filter(None, map(workloads.get, moved)):
                if workload.identity:
                    self._workloads[workload.identity] += one
        self._workloads += Counter()  # without those of whom there is none
        others_answer = self._look(before, mesh)
        if others_answer or self._workloads.keys() != there:
            found: defaultdict[Identity, set[ServiceName]] = defaultdict(set)
            for identity in self._workloads:
                found[identity] = set()
            for service, who in self._who.items():
                for identity in who:
                    found[identity].add(service)
            self._found = {identity: frozenset(services) for identity, services in found.items()}
        return self._found

    def _look(self, before: Mesh, mesh: Mesh) -> bool:
        """Who answers for the services that moved; whether it is others for any of them."""
        any_moved = False
        for service in others(before.endpoints, mesh.endpoints):
            # The catalog shares equal ones, mostly, and a hash takes ten times as long.
            there = mesh.endpoints.get(service, ())
            distinct = {id(each.identity): each.identity for each in there}
            who = frozenset(filter(None, distinct.values()))
            any_moved = any_moved or who != self._who.get(service, frozenset())
            self._who[service] = who
            if not there:
                del self._who[service]
        return any_moved
