"""A workload that the platform has an id for is one, in however many scopes it is told."""

from typing import Any

from sqlalchemy import create_engine, text

from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.store import Catalog

WEB_ID = Identity("web", "shop")


def pod(scope: str) -> Workload:
    return Workload("web-0.shop", "aks", scope, identity=WEB_ID, resource_id="uid-1")


def known(service: str, *, there: bool = True) -> Known:
    name = ServiceName(service, "shop")
    scope = f"aks/shop/{service}"
    endpoint = Endpoint(name, 80, "10.0.0.1", 80, pod(scope).id, "aks", scope, identity=WEB_ID)
    return Known(
        "aks",
        scope,
        frozenset({Service(name, (Port(80),))}),
        frozenset({pod(scope)} if there else ()),
        frozenset({endpoint} if there else ()),
    )


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]
    finally:
        engine.dispose()


async def told(catalog: Catalog, *what: Known) -> None:
    for each in what:
        await catalog.believe(each, kind="kubernetes", cause="a test")


async def test_a_pod_of_two_services_is_one_workload(catalog: Catalog, url: str) -> None:
    await told(catalog, known("web"), known("all"))
    mesh = await catalog.read()
    (workload,) = mesh.workloads.values()
    assert {e.workload for there in mesh.endpoints.values() for e in there} == {workload.id}
    assert ask(url, "select name, services from mesh_workloads") == [
        ("web-0.shop", "all.shop, web.shop")
    ]
    assert ask(url, "select service, workload from mesh_endpoints order by 1") == [
        ("all.shop", "web-0.shop"),
        ("web.shop", "web-0.shop"),
    ]


async def test_it_joins_with_the_first_scope_and_leaves_with_the_last(
    catalog: Catalog, url: str
) -> None:
    await told(catalog, known("web"), known("all"))
    mesh = await catalog.read()
    await told(catalog, known("all", there=False))
    mesh, _ = await catalog.advance(mesh)
    assert mesh.workloads
    assert ask(url, "select services from mesh_workloads") == [("web.shop",)]
    await told(catalog, known("web", there=False))
    mesh, _ = await catalog.advance(mesh)
    assert not mesh.workloads
    changes = "select change from mesh_changes where what = 'workload' order by revision"
    assert ask(url, changes) == [("joined",), ("left",)]


async def test_a_pod_whose_name_is_used_again_is_another_workload(catalog: Catalog) -> None:
    before = pod("aks/shop/web")
    after = Workload("web-0.shop", "aks", "aks/shop/web", identity=WEB_ID, resource_id="uid-2")
    assert before.id != after.id
