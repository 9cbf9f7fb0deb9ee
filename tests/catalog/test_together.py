"""Scopes that are believed together come to what they come to one after another."""

import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import text

from meshfed.catalog.database import Database
from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Known,
    Platform,
    Port,
    Protocol,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog

SCOPES = ("a", "b", "c")
ENDPOINTS = (
    "select service, port, address, scope, weight, identity, stale, doubt, conflict"
    " from mesh_endpoints order by 1, 2, 3, 4"
)
SERVICES = "select service, ports, plaintext from mesh_services order by 1"
WORKLOADS = "select name, platform, identity, services, addresses from mesh_workloads order by 1, 4"


def observed(choose: random.Random, provider: str, scope: str) -> Known:
    """Of few services and addresses, so that scopes claim the same ones all the time."""
    where, who = f"{provider}/{scope}", Identity("web", "shop")
    hosts = [
        Workload(f"h{n}", provider, where, Platform.HOST, who, (f"10.0.0.{n}",),
                 resource_id=choose.choice(("", f"id-{n}")))
        for n in range(3) if choose.random() < 0.7
    ]  # fmt: skip
    names = [ServiceName(name, "shop") for name in ("web", "api") if choose.random() < 0.8]
    endpoints = [
        Endpoint(name, 80, host.addresses[0], choose.choice((80, 81)), host.id, provider, where,
                 identity=who, weight=choose.choice((1, 1, 2)))
        for host in hosts for name in names
    ]  # fmt: skip
    doubt = choose.choice(("", "", "in doubt"))
    protocol = choose.choice((Protocol.HTTP, Protocol.HTTP, Protocol.TCP))
    return Known(
        provider,
        where,
        frozenset(Service(name, (Port(80, protocol=protocol),)) for name in names),
        frozenset(hosts),
        frozenset(endpoints),
        doubt,
        frozenset(e.key for e in endpoints if choose.random() < 0.5) if doubt else frozenset(),
    )


def history(seed: int) -> Iterator[list[Known]]:
    choose = random.Random(seed)
    for _ in range(6):
        for provider in ("cloud", "rack"):
            scopes = choose.sample(SCOPES, choose.randint(1, len(SCOPES)))
            yield [observed(choose, provider, scope) for scope in scopes]


async def come_to(url: str, seed: int, *, together: bool) -> list[tuple[object, ...]]:
    """Everything that is there after each observation of some scopes."""
    there: list[tuple[object, ...]] = []
    with closing(Catalog(url)) as catalog:
        prompt = late = await catalog.read()
        for turn, some in enumerate(history(seed)):
            for each in [some] if together else [[one] for one in some]:
                await catalog.believe(*each, kind="test", cause="a test")
            for one in some:
                assert await catalog.known(one.provider, one.scope) == one
            there += query(url, ENDPOINTS).rows
            there += query(url, SERVICES).rows
            there += query(url, WORKLOADS).rows
            prompt, _ = await catalog.advance(prompt)
            mesh = await catalog.read()
            assert prompt == mesh
            if turn % 4 == 3:
                late, _ = await catalog.advance(late)
                assert late == mesh
    with closing(Catalog(url)) as other:  # which holds nothing of it in memory
        for one in some:
            assert await other.known(one.provider, one.scope) == one
    return [*there, *sorted(map(str, mesh.endpoints.items()))]


@pytest.mark.parametrize("seed", range(4))
async def test_scopes_that_claim_the_same_come_to_the_same_together(
    url: str, sqlite_template: Path, tmp_path: Path, seed: int
) -> None:
    other = tmp_path / "one-by-one.db"
    shutil.copy(sqlite_template, other)
    expected = await come_to(f"sqlite:///{other}", seed, together=False)
    assert await come_to(url, seed, together=True) == expected


async def test_a_scope_that_is_as_it_was_is_not_written_with_those_that_are_not(
    catalog: Catalog, url: str
) -> None:
    first, second = (Known("rack", f"rack/{n}", frozenset({Service(ServiceName(n, "shop"))}))
                     for n in ("a", "b"))  # fmt: skip
    assert await catalog.believe(first, second, kind="test", cause="a test") == 1
    with closing(Catalog(url)) as other:
        changed = replace(second, services=frozenset())
        assert await other.believe(first, changed, kind="test", cause="a test") == 2
    with closing(Database(url)) as database:
        asked = text("select scope, revision from scopes order by 1")
        rows = database.read(lambda c: [tuple(row) for row in c.execute(asked)])
    assert rows == [("rack/a", 1), ("rack/b", 2)]


async def test_a_pod_that_moves_between_scopes_neither_joins_nor_leaves(
    catalog: Catalog, url: str
) -> None:
    pod = Workload("h", "rack", "rack/a", identity=Identity("web", "shop"), resource_id="uid")
    first = Known("rack", "rack/a", workloads=frozenset({pod}))
    second = Known("rack", "rack/b", workloads=frozenset({structs.replace(pod, scope="rack/b")}))
    gone = Known("rack", "rack/a")
    await catalog.believe(first, kind="test", cause="a test")
    await catalog.believe(gone, second, kind="test", cause="a test")
    assert set((await catalog.read()).workloads) == {pod.id}
    told = query(url, "select change from mesh_changes where what = 'workload'").rows
    assert list(told) == [("joined",)]


@pytest.mark.parametrize("many", [31, 32, 33, 64, 70])
async def test_however_many_join_at_once_each_is_what_it_was(url: str, many: int) -> None:
    who, web = Identity("web", "shop"), ServiceName("web", "shop")
    hosts = [
        Workload(f"h{n}", "rack", "rack/a", identity=who, addresses=(f"10.0.0.{n}",))
        for n in range(many)
    ]
    endpoints = [
        Endpoint(web, 80, f"10.0.0.{n}", 8000 + n, host.id, "rack", "rack/a", identity=who)
        for n, host in enumerate(hosts)
    ]
    services = frozenset({Service(web, (Port(80),))})
    known = Known("rack", "rack/a", services, frozenset(hosts), frozenset(endpoints))
    with closing(Catalog(url)) as catalog:
        await catalog.believe(known, kind="hosts", cause="a.yaml")
    with closing(Catalog(url)) as catalog:
        assert await catalog.known("rack", "rack/a") == known
    asked = "select change, provider, cause, count(*) from mesh_changes where what = 'endpoint'"
    told = query(url, f"{asked} group by 1, 2, 3").rows
    assert [tuple(row) for row in told] == [("joined", "rack", "a.yaml", many)]
