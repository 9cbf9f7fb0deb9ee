"""Who needs a certificate, of one mesh after another."""

from dataclasses import replace
from random import Random
from types import MappingProxyType

from meshfed.catalog.model import Endpoint, Identity, Mesh, ServiceName, Workload
from meshfed.federation.wanted import Wanted, identities

WHO = [Identity(f"who-{n}", "shop") for n in range(4)]
SERVICES = [ServiceName(f"service-{n}", "shop") for n in range(3)]


def workload(n: int, identity: Identity | None) -> Workload:
    return Workload(f"host-{n}", "rack", "rack/list", identity=identity)


def endpoint(service: ServiceName, n: int, identity: Identity | None) -> Endpoint:
    return Endpoint(
        service, 80, f"10.0.0.{n}", 80, f"host-{n}", "rack", "rack/list", identity=identity
    )


def test_everyone_is_wanted_with_the_services_that_they_answer_for() -> None:
    there = [workload(1, WHO[0]), workload(2, WHO[1]), workload(3, None)]
    mesh = Mesh(
        "shop.example",
        workloads=MappingProxyType({each.id: each for each in there}),
        endpoints=MappingProxyType(
            {SERVICES[0]: (endpoint(SERVICES[0], 2, WHO[1]), endpoint(SERVICES[0], 4, WHO[2]))}
        ),
    )
    assert identities(mesh) == {
        WHO[0]: frozenset(),
        WHO[1]: frozenset({SERVICES[0]}),
        WHO[2]: frozenset({SERVICES[0]}),  # of a pod that has no sidecar, say
    }


def test_one_mesh_after_another_is_as_if_each_was_looked_at_anew() -> None:
    chance, wanted, mesh = Random(6), Wanted(), Mesh("shop.example")
    for _ in range(300):
        workloads, endpoints = dict(mesh.workloads), dict(mesh.endpoints)
        moved = set()
        for n in chance.sample(range(8), 2):
            each = workload(n, chance.choice([*WHO, None]))
            moved.add(each.id)
            workloads.pop(each.id, None)
            if chance.random() < 0.6:
                workloads[each.id] = each
        service = chance.choice(SERVICES)
        endpoints.pop(service, None)
        if chance.random() < 0.7:
            who = chance.sample([*WHO, None], 2)
            endpoints[service] = tuple(endpoint(service, n, each) for n, each in enumerate(who))
        mesh = replace(mesh, workloads=workloads, endpoints=endpoints)
        assert wanted.of(mesh, moved) == identities(mesh)
