"""What all views of a mesh share, of one mesh after another."""

from dataclasses import replace
from random import Random
from types import MappingProxyType

from meshfed.catalog.model import Endpoint, Identity, Interception, Mesh, Port, Service, ServiceName
from meshfed.catalog.resolved import Resolved, others, resolve

WHO = [Identity(f"who-{n}", "shop") for n in range(3)]
SERVICES = [ServiceName(f"service-{n}", "shop") for n in range(4)]


def endpoint(service: ServiceName, n: int, identity: Identity | None) -> Endpoint:
    how = Interception.EXPLICIT if identity else Interception.NONE
    return Endpoint(
        service, 80, f"10.0.0.{n}", 8080, f"host-{n}", "rack", "rack/list",
        identity=identity, interception=how,
    )  # fmt: skip


def plainly(resolved: Resolved) -> list[object]:
    """All that views ask of it."""
    return [resolved.answering, resolved.places, dict(resolved.serves), resolved.splits.of]


def test_one_mesh_after_another_is_as_if_each_was_looked_at_anew():
    chance, before = Random(7), Mesh("shop.example")
    known = resolve(before)
    for _ in range(300):
        services, endpoints = dict(before.services), dict(before.endpoints)
        name = chance.choice(SERVICES)
        services.pop(name, None)
        if chance.random() < 0.7:
            services[name] = Service(name, (Port(80),), plaintext=chance.random() < 0.5)
        name = chance.choice(SERVICES)
        endpoints.pop(name, None)
        if chance.random() < 0.7:
            some = chance.sample(range(5), 3)
            endpoints[name] = tuple(endpoint(name, n, chance.choice([*WHO, None])) for n in some)
        kept = before.services if services == before.services else MappingProxyType(services)
        after = replace(before, services=kept, endpoints=MappingProxyType(endpoints))
        known, before = resolve(after, before, known), after
        assert plainly(known) == plainly(resolve(after))


def test_who_did_not_move_serves_the_same_object():
    web, sql = SERVICES[:2]
    first = (endpoint(web, 1, WHO[0]),)
    mesh = Mesh("shop.example", endpoints={web: first, sql: (endpoint(sql, 2, WHO[1]),)})
    known = resolve(mesh)
    moved = replace(mesh, endpoints={web: first, sql: (endpoint(sql, 3, WHO[1]),)})
    again = resolve(moved, mesh, known)
    assert again.serves["host-1"] is known.serves["host-1"]
    assert again.answering is known.answering
    assert "host-2" not in again.serves


def test_a_key_whose_value_is_another_object_is_found_and_one_that_is_gone():
    one, two = [1], [1]
    assert others({"a": one, "b": one, "c": one}, {"a": one, "b": two, "d": one}) == set("bcd")
