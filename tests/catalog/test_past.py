"""Any moment of the catalog can be asked for, and answers as the present did then."""

from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from meshfed.catalog import past, reading
from meshfed.catalog.model import (
    Backend,
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Known,
    Mesh,
    ObjectName,
    Policy,
    Port,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    Specified,
    TrafficSplit,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.moment import Moment, Unknown
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.catalog.viewing import READER

NOON = 1795435200.0  # 2026-11-23T12:00:00Z
WEB, OLD = ServiceName("web", "shop"), ServiceName("old", "shop")
BUYER = Identity("buyer", "shop")

VIEWS = {
    "mesh_services": "service",
    "mesh_endpoints": "service, address, port",
    "mesh_workloads": "name",
    "mesh_policies": "kind, namespace, name",
    "mesh_providers": "provider, scope",
    "mesh_access": "policy, port, source_identity",
    "mesh_splits": "service, backend",
}
# What moves without a revision, and is not kept.
UNKEPT = {
    "mesh_workloads": {"proxy", "state", "reason"},
    "mesh_providers": {"age_s", "last_good"},
}

Seen = dict[str, list[dict[str, Any]]]


def rows(answer: Any, view: str) -> list[dict[str, Any]]:
    kept = [c for c in answer.columns if c not in UNKEPT.get(view, set())]
    found = (dict(zip(answer.columns, row, strict=True)) for row in answer.rows)
    return sorted(({name: row[name] for name in kept} for row in found), key=repr)


def present(url: str) -> Seen:
    asked = {view: f"select * from {view} order by {order}" for view, order in VIEWS.items()}
    return {view: rows(query(url, sql), view) for view, sql in asked.items()}


def shown(url: str, asked: Any) -> tuple[Moment, Seen, Mesh]:
    def look(connection: Any, moment: Moment) -> tuple[Moment, Seen, Mesh]:
        seen = {v: rows(past.listing(connection, v, order), v) for v, order in VIEWS.items()}
        return moment, seen, reading.read(connection)

    return past.at(url, asked, look)


# A mesh in which everything moves now and then


def host(number: int, scope: str) -> Workload:
    name = f"h{number}"
    return Workload(name, scope[:4], scope, identity=Identity(f"app-{number % 2}", "shop"))


def endpoint(random: Random, number: int, scope: str) -> Endpoint:
    on = host(number, scope)
    return Endpoint(
        random.choice((WEB, OLD)),
        80,
        f"10.0.0.{number}",
        8080,
        on.id,
        on.provider,
        scope,
        identity=on.identity,
        weight=random.choice((1, 1, 2)),
        health=random.choice(tuple(Health)),
        interception=random.choice((Interception.EXPLICIT, Interception.NONE)),
    )


def belief(random: Random, scope: str) -> Known:
    there = frozenset(endpoint(random, n, scope) for n in range(4) if random.random() < 0.6)
    stale = frozenset(e.key for e in there if random.random() < 0.3)
    ports = random.choice(((Port(80),), (Port(80, "http"), Port(90))))
    return Known(
        scope[:4],
        scope,
        frozenset({Service(name, ports) for name in {e.service for e in there}}),
        frozenset(host(n, scope) for n in range(4) if random.random() < 0.8),
        there,
        doubt=f"{random.randrange(3)} vanished" if stale else "",
        stale=stale,
    )


def policies(random: Random) -> Specified:
    target = TrafficTarget(
        ObjectName("shop", "may"),
        Identity(f"app-{random.randrange(2)}", "shop"),
        frozenset({BUYER}),
        (Rule("HTTPRouteGroup", "all"),),
    )
    group = RouteGroup(ObjectName("shop", "all"), (HttpMatch("all"),))
    split = TrafficSplit(ObjectName("shop", "s"), WEB, (Backend(OLD, random.randrange(3)),))
    some: list[Policy] = [p for p in (target, group, split) if random.random() < 0.7]
    return Specified("files:p", tuple((policy, "p.yaml:1") for policy in some))


async def happens(catalog: Catalog, random: Random) -> None:
    scope = random.choice(("rack/a", "rack/b", "vms1/a"))
    match random.randrange(8):
        case 0:
            await catalog.specify(policies(random))
        case 1:
            await catalog.configure("shop.example", permissive=random.random() < 0.5)
        case 2:
            fault = random.choice(("", "timeout"))
            await catalog.seen(scope[:4], "hosts", scope, fault=fault)
        case 3 if await catalog.known(scope[:4], scope):
            await random.choice((catalog.pause, catalog.resume))(scope[:4], "ann")
        case _:
            await catalog.believe(belief(random, scope), kind="hosts", cause="a test")


async def lived(url: str, seed: int, steps: int) -> dict[float, tuple[Seen, Mesh]]:
    """What was seen at each time of a history, a second apart."""
    random, seconds = Random(seed), count(NOON)
    clock = [NOON]
    seen: dict[float, tuple[Seen, Mesh]] = {}
    with closing(Catalog(url, clock=lambda: clock[0])) as catalog:
        for clock[0], _ in zip(seconds, range(steps), strict=False):
            await happens(catalog, random)
            mesh = await catalog.read()
            if mesh.revision:
                seen[clock[0]] = (present(url), mesh)
    return seen


async def test_every_moment_is_answered_as_it_was(url: str) -> None:
    await check(url, seed=0, steps=12)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
async def test_every_moment_of_long_histories_is_answered_as_it_was(url: str, seed: int) -> None:
    await check(url, seed, 60)


async def check(url: str, seed: int, steps: int) -> None:
    for at, (seen, mesh) in (await lived(url, seed, steps)).items():
        asked = datetime.fromtimestamp(at + 0.5, UTC)
        moment, then, known = shown(url, asked)
        assert moment.revision == mesh.revision
        assert then == seen
        assert known == mesh
        by_revision = shown(url, mesh.revision)[1]
        told = VIEWS.keys() - {"mesh_providers"}  # their troubles come between revisions
        assert {v: by_revision[v] for v in told} == {v: seen[v] for v in told}


def test_who_may_read_the_views_alone_is_told_what_to_ask(postgres_url: str) -> None:
    address = make_url(postgres_url)
    with psycopg.connect(
        address.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    ) as admin:
        admin.execute("drop role if exists auditor")
        admin.execute(f"create role auditor login password 'audit' in role {READER}")
        try:
            theirs = address.set(username="auditor", password="audit").render_as_string(
                hide_password=False
            )
            with pytest.raises(Unknown, match="with the views alone, ask mesh_endpoint_history"):
                past.at(theirs, 1, lambda _, moment: moment)
        finally:
            admin.execute("drop role auditor")
