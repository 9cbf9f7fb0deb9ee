"""A scope of one host, for tests to believe, and the questions that they ask of it."""

from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from meshfed.catalog.model import (
    Endpoint,
    HttpMatch,
    Identity,
    Known,
    ObjectName,
    Policy,
    Port,
    RouteGroup,
    Service,
    ServiceName,
    Specified,
    Workload,
)
from meshfed.catalog.store import Catalog

WEB = ServiceName("web", "shop")
WEB_ID = Identity("web", "shop")
ALL = RouteGroup(
    ObjectName("shop", "all"),
    (HttpMatch("all"), HttpMatch("some", "/a", frozenset({"GET"}), (("x", "y"),))),
)


def workload(name: str = "h1", **given: Any) -> Workload:
    return Workload(
        **{"name": name, "provider": "rack", "scope": "rack/a", "identity": WEB_ID} | given
    )


def endpoint(address: str = "10.0.0.1", **given: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "service": WEB,
        "port": 80,
        "address": address,
        "target": 8080,
        "workload": workload().id,
        "provider": "rack",
        "scope": "rack/a",
        "identity": WEB_ID,
    }
    return Endpoint(**fields | given)


def known(*endpoints: Endpoint, **given: Any) -> Known:
    fields: dict[str, Any] = {
        "provider": "rack",
        "scope": "rack/a",
        "services": frozenset({Service(WEB, (Port(80),))}),
        "workloads": frozenset({workload()}),
        "endpoints": frozenset(endpoints),
    }
    return Known(**fields | given)


def specified(*policies: Policy, source: str = "files:p", **given: Any) -> Specified:
    placed = tuple((policy, f"p/{policy.name.name}.yaml:1") for policy in policies)
    return Specified(source, placed, **given)


async def believe(catalog: Catalog, what: Known) -> int | None:
    return await catalog.believe(what, kind="hosts", cause="a test")


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    engine = create_engine(make_url(url))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]
    finally:
        engine.dispose()


def kill_connections(url: str) -> None:
    ask(url, "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()")  # fmt: skip
