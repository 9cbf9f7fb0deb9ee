"""What happened to a thing, and what differs between two moments, in words."""

from collections.abc import AsyncIterator
from contextlib import closing
from itertools import count
from typing import Any

import pytest
from msgspec import structs

from meshfed.catalog.compare import compared
from meshfed.catalog.events import Event, happened
from meshfed.catalog.model import (
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Known,
    ObjectName,
    Port,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    Specified,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.past import looked
from meshfed.catalog.store import Catalog

NOON = 1795435200.0  # 2026-11-23T12:00:00Z
WEB = ServiceName("web", "shop")
STORE, BUYER, THIEF = (Identity(name, "shop") for name in ("store", "buyer", "thief"))
PLAIN = Port(80)
HOST = Workload("store-1", "rack", "rack/a", identity=STORE, addresses=("10.0.0.1",))


def endpoint(address: str = "10.0.0.1", **given: Any) -> Endpoint:
    return structs.replace(
        Endpoint(WEB, 80, address, 8080, HOST.id, "rack", "rack/a", identity=STORE), **given
    )


def known(*endpoints: Endpoint, port: Port = PLAIN, **given: Any) -> Known:
    return Known(
        "rack",
        "rack/a",
        frozenset({Service(WEB, (port,))}),
        frozenset({HOST}),
        frozenset(endpoints),
        **given,
    )


def specified(*sources: Identity) -> Specified:
    target = TrafficTarget(
        ObjectName("shop", "may"), STORE, frozenset(sources), (Rule("HTTPRouteGroup", "all"),)
    )
    group = RouteGroup(ObjectName("shop", "all"), (HttpMatch("all"),))
    return Specified("files:p", ((target, "p.yaml:1"), (group, "p.yaml:9")))


@pytest.fixture
async def lived(url: str) -> AsyncIterator[str]:
    """A catalog in which, second by second, much has happened."""
    seconds = count(NOON)
    second, both = endpoint("10.0.0.2"), (endpoint(), endpoint("10.0.0.2"))
    steps = [
        known(*both),
        known(
            endpoint(weight=3),
            structs.replace(second, health=Health.UNHEALTHY, health_reason="503"),
        ),
        known(endpoint(weight=3), second, doubt="1 vanished", stale=frozenset({second.key})),
    ]
    with closing(Catalog(url, clock=lambda: next(seconds))) as catalog:
        await catalog.configure("shop.example", permissive=False)
        for step in steps:
            await catalog.believe(step, kind="hosts", cause="hosts.yaml changed")
        await catalog.accept("rack/a", "ann")
        await catalog.believe(known(endpoint(weight=3)), kind="hosts", cause="accepted", who="ann")
        await catalog.specify(specified(BUYER))
        await catalog.specify(specified(BUYER, THIEF))
        await catalog.configure("shop.example", permissive=True)
        yield url


def told(url: str, name: str, since: str = "") -> list[Event]:
    found = looked(url, lambda connection: happened(connection, name, since))
    assert found.known
    return list(found.events)


DOUBTED = (
    "health unhealthy → healthy; health reason 503 → none;"
    " stale false → true; doubt none → 1 vanished"
)


async def test_the_life_of_an_endpoint(lived: str) -> None:
    life = [
        (e.revision, e.change, e.detail, e.provider, e.cause, e.who)
        for e in told(lived, "10.0.0.2")
        if e.what == "endpoint"
    ]
    changed = "hosts.yaml changed"
    assert life == [
        (2, "joined", "store.shop, weight 1, healthy", "rack", changed, ""),
        (3, "health lost", "health healthy → unhealthy; health reason none → 503",
         "rack", changed, ""),
        (4, "doubted", DOUBTED, "rack", changed, ""),
        (6, "left", "", "rack", "accepted", "ann"),
    ]  # fmt: skip


async def test_a_service_tells_of_itself_its_endpoints_and_who_sees_them(lived: str) -> None:
    events = told(lived, "web.shop")
    assert [(e.revision, e.object, e.change, e.detail) for e in events if e.what != "endpoint"] == [
        (2, "rack/a", "first seen", ""),
        (2, "web.shop", "joined", "80"),
        (4, "rack/a", "doubted", "1 vanished"),
        (5, "rack/a", "accepted", ""),
        (6, "rack/a", "believed again", ""),
    ]
    assert {e.object for e in events if e.what == "endpoint"} == {
        "web.shop:80 at 10.0.0.1:8080",
        "web.shop:80 at 10.0.0.2:8080",
    }
    assert [e.at for e in events] == sorted(e.at for e in events)


async def test_a_workload_tells_of_its_endpoints(lived: str) -> None:
    events = told(lived, "store-1")
    assert {e.what for e in events} == {"workload", "endpoint", "provider"}
    assert [e.detail for e in events if e.what == "workload"] == ["host, store.shop"]


async def test_only_what_is_newer(lived: str) -> None:
    events = told(lived, "web.shop", "2026-11-23T12:00:08.000Z")
    assert {e.revision for e in events} == {5, 6}


async def test_a_service_that_is_declared_otherwise(lived: str) -> None:
    with closing(Catalog(lived)) as catalog:
        http = known(endpoint(weight=3), port=Port(80, "http"))
        await catalog.believe(http, kind="hosts", cause="named")
    last = [e for e in told(lived, "web.shop") if e.what == "service"][-1]
    assert (last.change, last.detail, last.cause) == ("changed", "ports 80 → 80/http", "named")


async def test_what_was_never_known_is_not_known(lived: str) -> None:
    assert not looked(lived, lambda connection: happened(connection, "x", "")).known


DIFFERENCES = [
    pytest.param(2, 3, [
        ("service", "web.shop", "changed", "healthy 2 → 1"),
        ("endpoint", "web.shop at 10.0.0.1:8080", "changed", "weight 1 → 3"),
        ("endpoint", "web.shop at 10.0.0.2:8080", "changed",
         "health healthy → unhealthy; health reason none → 503"),
    ], id="weight and health"),
    pytest.param(2, 6, [
        ("service", "web.shop", "changed", "endpoints 2 → 1; healthy 2 → 1"),
        ("endpoint", "web.shop at 10.0.0.1:8080", "changed", "weight 1 → 3"),
        ("endpoint", "web.shop at 10.0.0.2:8080", "left", ""),
    ], id="who left"),
    pytest.param(6, 2, [
        ("service", "web.shop", "changed", "endpoints 1 → 2; healthy 1 → 2"),
        ("endpoint", "web.shop at 10.0.0.2:8080", "joined",
         "identity store.shop, weight 1, health healthy, provider rack"),
        ("endpoint", "web.shop at 10.0.0.1:8080", "changed", "weight 3 → 1"),
    ], id="and backwards, who comes back"),
    pytest.param(7, 8, [
        ("policy", "TrafficTarget shop/may", "changed",
         'sources ["buyer.shop"] → ["buyer.shop", "thief.shop"]'),
        ("access", "thief.shop may call web.shop:80 * .* by shop/may", "gained", ""),
    ], id="who may call"),
    pytest.param(8, None, [
        ("mesh", "permissive", "changed", "value false → true"),
        ("access", "* may call web.shop:80 * .* by permissive", "gained", ""),
    ], id="everyone may call, now"),
    pytest.param(5, 5, [], id="nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "changed"), DIFFERENCES)
async def test_what_differs(
    lived: str, before: int, after: int | None, changed: list[tuple[str, ...]]
) -> None:
    found = compared(lived, before, after)
    assert [(c.what, c.object, c.change, c.detail) for c in found.changed] == changed
    assert found.after.revision == (after or 9)
