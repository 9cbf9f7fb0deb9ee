"""What is believed is stored once, in revisions without gaps, and read back as it was."""

import asyncio
import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from believing import WEB, ask, believe, endpoint, known, workload
from sqlalchemy.engine import make_url

from meshfed.catalog.model import (
    Endpoint,
    Health,
    Identity,
    Interception,
    Known,
    Locality,
    ObjectName,
    Port,
    Protocol,
    Rejected,
    Service,
    ServiceName,
    Specified,
    TcpRoute,
)
from meshfed.catalog.plain import LOTS
from meshfed.catalog.store import Catalog

# What is believed


async def test_a_scope_is_read_back_as_it_was_believed(catalog: Catalog) -> None:
    everything = known(
        endpoint(
            locality=Locality("onprem", "rack-1"),
            weight=3,
            health=Health.UNHEALTHY,
            health_reason="503",
            interception=Interception.NONE,
            cluster="east",
            network="dmz",
        ),
        endpoint("2001:db8::1", identity=None),
        services=frozenset(
            {
                Service(
                    WEB,
                    (Port(80), Port(81, "sql", Protocol.TCP, 8081, 13306)),
                    "10.9.9.9",
                    plaintext=True,
                )
            }
        ),
        workloads=frozenset(
            {workload(addresses=("10.0.0.1", "2001:db8::1"), labels=(("version", "v1"),))}
        ),
        doubt="1 of 2 vanished",
        stale=frozenset({endpoint("2001:db8::1").key}),
        rejected=(Rejected("hosts.yaml:3", "port", "not a number"),),
    )
    assert await catalog.known("rack", "rack/a") is None
    assert await believe(catalog, everything)
    assert await catalog.known("rack", "rack/a") == everything


async def test_nothing_changed_is_nothing_written(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    before = activity(url)
    assert await believe(catalog, known(endpoint())) is None
    assert activity(url) == before


def activity(url: str) -> Any:
    """What moves with every write, whatever it writes."""
    if url.startswith("sqlite"):
        path = make_url(url).database
        wal = Path(f"{path}-wal")
        return (wal.stat().st_size, wal.stat().st_mtime_ns, Path(str(path)).stat().st_mtime_ns)
    tables = ("state", "scopes", "statements", "services", "workloads", "endpoints", "changes")
    return [ask(url, f"select xmin::text, xmax::text, ctid::text from {one}") for one in tables]


async def test_an_empty_scope_is_known_once_it_was_believed(catalog: Catalog) -> None:
    empty = known(services=frozenset(), workloads=frozenset())
    assert await believe(catalog, empty)
    assert await catalog.known("rack", "rack/a") == empty


CHANGES = [
    pytest.param([endpoint()], [endpoint(), endpoint("10.0.0.2")], ["joined"], id="joined"),
    pytest.param([endpoint(), endpoint("10.0.0.2")], [endpoint()], ["left"], id="left"),
    pytest.param([endpoint()], [endpoint(weight=2)], ["weight changed"], id="weight"),
    pytest.param([endpoint()], [endpoint(health=Health.DRAINING)], ["health lost"], id="health"),
    pytest.param([endpoint()], [endpoint(identity=Identity("x", "y"))], ["identity changed"],
                 id="identity"),
    pytest.param([endpoint()], [endpoint(cluster="c")], ["changed"], id="anything else"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "told"), CHANGES)
async def test_a_change_is_one_revision_and_says_what_happened(
    catalog: Catalog, url: str, before: list[Endpoint], after: list[Endpoint], told: list[str]
) -> None:
    first = await believe(catalog, known(*before))
    second = await believe(catalog, known(*after))
    assert (first, second) == (1, 2)
    changes = ask(
        url, "select change, object, provider, cause from mesh_changes where revision = 2"
    )
    assert [change for change, *_ in changes] == told
    assert all(row[2:] == ("rack", "a test") for row in changes)


async def test_history_tells_what_was_there_at_every_revision(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    await believe(catalog, known(endpoint(weight=2)))
    await believe(catalog, known())
    history = ask(
        url,
        "select weight, valid_from_revision, valid_to_revision, change"
        " from mesh_endpoint_history order by valid_from_revision",
    )
    assert history == [(1, 1, 2, "joined"), (2, 2, 3, "weight changed, left")]


async def test_many_that_change_at_once_end_the_versions_in_force_and_no_earlier_ones(
    catalog: Catalog, url: str
) -> None:
    many = sum(LOTS) + 1  # of each size of lot one, and one that is left
    for weight in (1, 2, 3):
        there = (endpoint(f"10.0.0.{number}", weight=weight) for number in range(many))
        await believe(catalog, known(*there))
    versions = "weight, valid_from_revision, valid_to_revision"
    assert ask(
        url, f"select {versions}, count(*) from endpoints group by {versions} order by weight"
    ) == [(1, 1, 2, many), (2, 2, 3, many), (3, 3, None, many)]


async def test_staleness_is_a_change_and_a_doubt_about_nothing_more_is_told(
    catalog: Catalog, url: str
) -> None:
    there = known(endpoint())
    await believe(catalog, there)
    doubted = dataclasses.replace(there, doubt="vanished", stale=frozenset({endpoint().key}))
    assert await believe(catalog, doubted) == 2
    assert ask(url, "select stale, doubt from mesh_endpoints") == [(True, "vanished")]
    assert ask(url, "select state, doubt from mesh_providers") == [("doubted", "vanished")]
    assert await believe(catalog, there) == 3
    assert ask(url, "select stale, doubt from mesh_endpoints") == [(False, "")]


async def test_entries_left_out_are_told_without_a_revision(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    wrong = (Rejected("hosts.yaml:3", "port", "not a number"),)
    assert await believe(catalog, known(endpoint(), rejected=wrong)) is None
    assert ask(url, "select reason from mesh_providers") == [("hosts.yaml:3: port: not a number",)]


async def test_revision_times_never_go_back_though_the_clock_does(url: str) -> None:
    clock = [2_000_000_000.0]
    with closing(Catalog(url, clock=lambda: clock[0])) as catalog:
        await believe(catalog, known(endpoint()))
        clock[0] = 1_000_000_000.0
        await believe(catalog, known())
    at = [row[0] for row in ask(url, "select at from mesh_changes order by revision")]
    assert set(at) == {"2033-05-18T03:33:20.000Z"}


async def test_writers_at_once_make_revisions_without_gaps(catalog: Catalog, url: str) -> None:
    def scope(number: int) -> Known:
        name = f"rack/{number}"
        its = endpoint(f"10.0.0.{number}", scope=name)
        return known(its, scope=name, workloads=frozenset())

    with closing(Catalog(url)) as other:
        writes = [believe((catalog, other)[n % 2], scope(n)) for n in range(1, 21)]
        revisions = await asyncio.gather(*writes)
    assert sorted(r for r in revisions if r) == list(range(1, 21))
    assert len((await catalog.read()).endpoints[WEB]) == 20


# Several providers


def claimed(provider: str, **given: Any) -> Known:
    scope = f"{provider}/a"
    claim = endpoint(provider=provider, scope=scope, **given)
    return known(claim, provider=provider, scope=scope, workloads=frozenset())


async def test_an_endpoint_that_two_claim_is_the_first_ones_by_name(
    catalog: Catalog, url: str
) -> None:
    listing = "select provider, identity, conflict from mesh_endpoints"
    await believe(catalog, claimed("rack"))
    await believe(catalog, claimed("azure", identity=Identity("other", "shop")))
    assert ask(url, listing) == [("azure", "other.shop", "rack claims it too, as web.shop")]
    (there,) = (await catalog.read()).endpoints[WEB]
    assert there.provider == "azure"
    assert await catalog.known("rack", "rack/a") == claimed("rack")
    await believe(catalog, dataclasses.replace(claimed("azure"), endpoints=frozenset()))
    assert ask(url, listing) == [("rack", "web.shop", "")]


@pytest.mark.parametrize("declares", ["a", "b"])
async def test_a_declared_port_goes_before_one_that_an_endpoint_implies(
    catalog: Catalog, declares: str
) -> None:
    declared = Port(8080, "grpc", Protocol.GRPC)
    for provider in ("a", "b"):
        port = declared if provider == declares else Port(8080, "http-8080")
        said = frozenset({Service(WEB, (port,))})
        await catalog.believe(Known(provider, f"{provider}/x", said), kind="test", cause="")
    assert (await catalog.read()).services[WEB].ports == (declared,)


async def test_a_service_is_the_union_of_what_providers_say(catalog: Catalog) -> None:
    def says(provider: str, *ports: Port, **given: Any) -> Known:
        service = Service(WEB, ports, **given)
        return Known(provider, f"{provider}/a", services=frozenset({service}))

    await believe(catalog, says("rack", Port(80, "rack"), Port(90, "more")))
    await believe(catalog, says("azure", Port(80, "azure"), vip="10.9.9.9"))
    union = (await catalog.read()).services[WEB]
    assert union == Service(WEB, (Port(80, "azure"), Port(90, "more")), "10.9.9.9")
    await believe(catalog, Known("azure", "azure/a"))
    assert (await catalog.read()).services[WEB].vip == ""
    await believe(catalog, Known("rack", "rack/a"))
    assert (await catalog.read()).services == {}


# Reading on


@pytest.mark.parametrize(
    ("after", "endpoints", "shape"),
    [
        pytest.param(known(endpoint(weight=9)), {WEB}, False, id="a weight is not shape"),
        pytest.param(known(endpoint(health=Health.DRAINING)), {WEB}, False, id="nor is health"),
        pytest.param(known(endpoint(identity=Identity("x", "y"))), {WEB}, True,
                     id="an identity is: SAN lists change"),
        pytest.param(known(endpoint(target=9)), {WEB}, True,
                     id="what a workload serves is: its listener changes"),
        pytest.param(known(endpoint(), workloads=frozenset()), set(), True, id="a workload is"),
        pytest.param(known(services=frozenset()), {WEB}, True, id="a service is"),
    ],
)  # fmt: skip
async def test_advancing_reads_what_moved_and_comes_to_the_same_mesh(
    catalog: Catalog, after: Known, endpoints: set[ServiceName], shape: bool
) -> None:
    await catalog.configure("shop.example", permissive=False)
    await believe(catalog, known(endpoint()))
    before = await catalog.read()
    await believe(catalog, after)
    newer, changed = await catalog.advance(before)
    assert (changed.endpoints, changed.shape) == (endpoints, shape)
    assert newer == await catalog.read()
    assert await catalog.advance(newer) == (newer, type(changed)())


async def test_policies_are_read_again_only_when_one_moved(catalog: Catalog) -> None:
    def told(*names: str) -> Specified:
        routes = (TcpRoute(ObjectName("shop", name)) for name in names)
        return Specified("files:policy", tuple((route, "policy.yaml:1") for route in routes))

    await catalog.specify(told("mysql"))
    before = await catalog.read()
    await believe(catalog, known(endpoint()))
    newer, changed = await catalog.advance(before)
    assert changed.workloads == {workload().id}
    assert newer.policies is before.policies
    for names in (("mysql", "redis"), ("redis",), ()):
        await catalog.specify(told(*names))
        newer, changed = await catalog.advance(newer)
        assert (changed.workloads, changed.shape) == (set(), True)
        assert [policy.name.name for policy in newer.policies] == list(names)


async def test_settings_of_the_mesh_are_shape_and_written_once(catalog: Catalog) -> None:
    assert await catalog.configure("shop.example", permissive=False) == 1
    assert await catalog.configure("shop.example", permissive=False) is None
    before = await catalog.read()
    await catalog.configure("shop.example", permissive=True)
    newer, changed = await catalog.advance(before)
    assert newer.permissive
    assert changed.shape


async def test_a_catalog_that_was_put_back_is_read_whole(catalog: Catalog) -> None:
    await believe(catalog, known(endpoint()))
    ahead = dataclasses.replace(await catalog.read(), revision=99)
    newer, changed = await catalog.advance(ahead)
    assert newer.revision == 1
    assert (changed.endpoints, changed.shape) == ({WEB}, True)
