"""The federation's rules in the catalog: kept, followed, asked for at any moment, and obeyed."""

from types import MappingProxyType
from typing import Any

import pytest

from meshfed.catalog import past, reading
from meshfed.catalog.compare import compared
from meshfed.catalog.events import happened
from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Interception,
    Known,
    Mesh,
    Platform,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.preferences import NO_PREFERENCES, Preference, Preferences
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.catalog.view import ProxyClass, view

WEB = ServiceName("web", "shop")
RACK_FIRST = Preferences(Preference(owners=("rack",)))
NEAREST = Preferences(
    Preference(prefer=("vm", "same-zone", "rack")),
    MappingProxyType({"plain.shop": Preference(prefer=()), "rack.shop": Preference(prefer=("x",))}),
)
OWNER = "select provider, identity, conflict from mesh_endpoints"


def claimed(
    provider: str,
    who: str = "web",
    platform: Platform = Platform.HOST,
    service: ServiceName = WEB,
    *,
    targets: tuple[int, ...] = (8080,),
) -> Known:
    scope, identity = f"{provider}/a", Identity(who, "shop")
    host = Workload("h", provider, scope, platform, identity, ("10.0.0.1",))
    there = frozenset(
        Endpoint(service, 80, "10.0.0.1", target, host.id, provider, scope, platform, identity)
        for target in targets
    )
    services = frozenset({Service(service, (Port(80),))})
    return Known(provider, scope, services, frozenset({host}), there)


async def believe(catalog: Catalog, *what: Known) -> None:
    for each in what:
        await catalog.believe(each, kind="test", cause="a test")


async def rule(catalog: Catalog, rules: Preferences) -> int | None:
    return await catalog.configure("shop.example", permissive=True, federation=rules)


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in query(url, sql).rows]


def reached(mesh: Mesh) -> tuple[Identity, ...]:
    """Whose certificate a caller takes for the service's."""
    caller = ProxyClass(Identity("c", "shop"), (), "", "", "", Interception.EXPLICIT)
    ((choice,),) = [outbound.choices for outbound in view(mesh, caller).outbound]
    return choice.shares[0].target.identities


@pytest.mark.parametrize(
    ("rules", "owner"),
    [
        pytest.param(NO_PREFERENCES, "cloud", id="the first by name without a rule"),
        pytest.param(RACK_FIRST, "rack", id="who is named"),
        pytest.param(Preferences(Preference(owners=("vm", "rack"))), "cloud", id="a platform"),
        pytest.param(Preferences(Preference(owners=("other",))), "cloud", id="nobody who is there"),
        pytest.param(
            Preferences(NO_PREFERENCES.general, MappingProxyType({str(WEB): RACK_FIRST.general})),
            "rack",
            id="who is named for that service",
        ),
        pytest.param(
            Preferences(RACK_FIRST.general, MappingProxyType({str(WEB): Preference()})),
            "cloud",
            id="not who is named for others",
        ),
    ],
)
@pytest.mark.parametrize("order", [1, -1], ids=["", "whoever came first"])
async def test_an_endpoint_that_two_claim_is_its_owners(
    catalog: Catalog, url: str, rules: Preferences, owner: str, order: int
) -> None:
    claims = [claimed("cloud", "thief", Platform.VM), claimed("rack")]
    await rule(catalog, rules)
    await believe(catalog, *claims[::order])
    identity, told = {
        "cloud": ("thief", "rack claims it too, as web.shop"),
        "rack": ("web", "cloud claims it too, as thief.shop"),
    }[owner]
    assert ask(url, OWNER) == [(owner, f"{identity}.shop", told)]
    mesh = await catalog.read()
    assert [each.provider for each in mesh.endpoints[WEB]] == [owner]
    assert reached(mesh) == (Identity(identity, "shop"),)  # never both of them


@pytest.mark.parametrize("order", [1, -1], ids=["", "whoever came first"])
async def test_an_address_is_its_owners_whichever_ports_of_it_others_claim(
    catalog: Catalog, url: str, order: int
) -> None:
    claims = [claimed("cloud", "thief", targets=(9090,)), claimed("rack", targets=(8080, 8081))]
    await rule(catalog, RACK_FIRST)
    await believe(catalog, *claims[::order])
    told = "cloud claims it too, at port 9090, as thief.shop"
    assert ask(url, "select provider, conflict from mesh_endpoints") == [("rack", told)] * 2
    assert reached(await catalog.read()) == (Identity("web", "shop"),)
    await rule(catalog, NO_PREFERENCES)
    told = "; ".join(f"rack claims it too, at port {port}, as web.shop" for port in (8080, 8081))
    assert ask(url, "select provider, conflict from mesh_endpoints") == [("cloud", told)]
    await believe(catalog, claimed("cloud", targets=()))
    assert ask(url, "select provider, conflict from mesh_endpoints") == [("rack", "")] * 2


async def test_another_rule_ranks_again_what_is_known_and_history_says_why(
    catalog: Catalog, url: str
) -> None:
    await rule(catalog, NO_PREFERENCES)
    await believe(catalog, claimed("cloud", "thief"), claimed("rack"))
    before = await catalog.read()
    revision = await rule(catalog, RACK_FIRST)
    assert ask(url, OWNER) == [("rack", "web.shop", "cloud claims it too, as thief.shop")]
    assert ask(
        url, f"select what, object, change, provider, cause from mesh_changes"
        f" where revision = {revision}"
    ) == [
        ("mesh", "federation", 'changed to {"owners": ["rack"]}', "", "the configuration"),
        ("endpoint", "web.shop:80 at 10.0.0.1:8080", "owned", "rack", "the configuration"),
        ("endpoint", "web.shop:80 at 10.0.0.1:8080", "outranked", "cloud", "the configuration"),
    ]  # fmt: skip
    after, changed = await catalog.advance(before)
    assert (after, changed.endpoints, changed.shape) == (await catalog.read(), {WEB}, True)
    assert after.preferences == RACK_FIRST
    assert reached(after) == (Identity("web", "shop"),)
    told = past.looked(url, lambda connection: happened(connection, str(WEB), ""))
    assert [(e.provider, e.change, e.detail) for e in told.events if e.cause[:3] == "the"] == [
        ("cloud", "outranked", "outranked false → true"),
        ("rack", "owned", "outranked true → false"),
    ]


async def test_the_same_rules_again_are_no_news(catalog: Catalog) -> None:
    assert await rule(catalog, NEAREST)
    assert await rule(catalog, NEAREST) is None
    assert (await catalog.read()).preferences == NEAREST


async def test_the_next_claim_stands_when_the_owner_gives_it_up(catalog: Catalog, url: str) -> None:
    await rule(catalog, RACK_FIRST)
    await believe(catalog, claimed("cloud", "thief"), claimed("rack"), Known("rack", "rack/a"))
    assert ask(url, OWNER) == [("cloud", "thief.shop", "")]


async def test_the_priority_that_is_the_same_for_all_callers_can_be_asked_for(
    catalog: Catalog, url: str
) -> None:
    asked = "select service, priority from mesh_endpoints order by service"
    await believe(
        catalog,
        claimed("a", platform=Platform.VM, service=ServiceName("first", "shop")),
        claimed("rack", service=ServiceName("third", "shop")),
        claimed("z", service=ServiceName("last", "shop")),
        claimed("y", service=ServiceName("plain", "shop")),
        claimed("x", service=ServiceName("rack", "shop")),
        claimed("w", service=ServiceName("wrack", "shop")),
    )
    assert {priority for _, priority in ask(url, asked)} == {0}
    revision = await rule(catalog, NEAREST)
    own = [("first.shop", 0), ("plain.shop", 0), ("rack.shop", 0)]
    depends = [("last.shop", None), ("third.shop", None), ("wrack.shop", None)]
    assert sorted(ask(url, asked), key=repr) == sorted([*own, *depends], key=repr)
    await rule(catalog, Preferences(Preference(prefer=("vm", "rack", "same-zone"))))
    assert dict(ask(url, asked))["third.shop"] == 1
    then = past.at(url, revision, lambda c, _: past.listing(c, "mesh_endpoints", "service"))
    priority = then.columns.index("priority")
    assert [row[priority] for row in then.rows] == [0, None, 0, 0, None, None]


async def test_any_moment_has_the_rules_of_its_time(catalog: Catalog, url: str) -> None:
    await rule(catalog, RACK_FIRST)
    await rule(catalog, NEAREST)
    await rule(catalog, NO_PREFERENCES)
    for revision, rules in enumerate((RACK_FIRST, NEAREST, NO_PREFERENCES), start=1):
        mesh = past.at(url, revision, lambda connection, _: reading.read(connection))
        assert mesh.preferences == rules
    (one,) = compared(url, 1, 3).changed
    assert (one.object, one.detail) == ("federation", 'value {"owners": ["rack"]} → none')
