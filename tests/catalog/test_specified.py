"""Policies are kept by source; what is refused loses nothing and is told."""

import dataclasses
from typing import Any

import pytest
from believing import ALL, WEB, WEB_ID, ask, specified

from meshfed.catalog.model import (
    Backend,
    Identity,
    ObjectName,
    Policy,
    Rejected,
    Rule,
    ServiceName,
    Specified,
    TcpRoute,
    TrafficSplit,
    TrafficTarget,
)
from meshfed.catalog.store import Catalog

LETS_IN = TrafficTarget(
    ObjectName("shop", "lets-in"),
    destination=WEB_ID,
    sources=frozenset({Identity("buyer", "shop")}),
    rules=(Rule("HTTPRouteGroup", "all"),),
)
SQL = TcpRoute(ObjectName("shop", "sql"), frozenset({3306, 5432}))
SPLIT = TrafficSplit(
    ObjectName("shop", "split"),
    WEB,
    (Backend(WEB, 1), Backend(ServiceName("w2", "shop"), 0)),
    ("all",),
)


def refused(policy: Policy | None, kind: str, file: str) -> Any:
    return (policy.name if policy else None, kind, Rejected(f"{file}:1", "spec", "wrong"))


async def test_policies_are_read_back_by_kind_and_name(catalog: Catalog) -> None:
    assert await catalog.specify(specified(SPLIT, LETS_IN, SQL, ALL)) == 1
    assert (await catalog.read()).policies == (ALL, SQL, SPLIT, LETS_IN)
    assert await catalog.specify(specified(ALL, SQL, LETS_IN, SPLIT)) is None


async def test_a_policy_that_is_gone_from_its_source_is_gone(catalog: Catalog) -> None:
    await catalog.specify(specified(LETS_IN, ALL))
    before = await catalog.read()
    await catalog.specify(specified(ALL))
    newer, changed = await catalog.advance(before)
    assert newer.policies == (ALL,)
    assert changed.shape


async def test_a_source_that_cannot_be_read_changes_nothing_and_shows(
    catalog: Catalog, url: str
) -> None:
    await catalog.specify(specified(LETS_IN, ALL))
    assert await catalog.specify(specified(fault="no such folder")) is None
    assert (await catalog.read()).policies == (ALL, LETS_IN)
    providers = ask(url, "select type, state, doubt from mesh_providers")
    assert providers == [("specification", "doubted", "no such folder")]
    await catalog.specify(specified(LETS_IN, ALL))
    assert ask(url, "select state, doubt from mesh_providers") == [("good", "")]


@pytest.mark.parametrize(
    ("rejection", "stands"),
    [
        pytest.param(refused(LETS_IN, "TrafficTarget", "p/lets-in.yaml"), (ALL, LETS_IN),
                     id="what became wrong stays as it was"),
        pytest.param(refused(None, "", "p/lets-in.yaml"), (ALL, LETS_IN),
                     id="so does all of a file that is not YAML any more"),
        pytest.param(refused(None, "", "p/other.yaml"), (ALL,),
                     id="another file's mistake keeps nothing"),
        pytest.param(refused(SPLIT, "TrafficSplit", "p/split.yaml"), (ALL,),
                     id="nor does another object's"),
    ],
)  # fmt: skip
async def test_bad_input_loses_nothing(
    catalog: Catalog, url: str, rejection: Any, stands: tuple[Policy, ...]
) -> None:
    await catalog.specify(specified(LETS_IN, ALL))
    await catalog.specify(specified(ALL, rejected=(rejection,)))
    assert (await catalog.read()).policies == stands
    ((field, reason),) = ask(
        url, "select field, reason from mesh_policies where state = 'rejected'"
    )
    assert field == "spec"
    kept = LETS_IN in stands and rejection[0]
    assert reason.endswith("the previous version stays in force") == bool(kept)


async def test_of_two_sources_with_one_object_the_first_by_name_counts(
    catalog: Catalog, url: str
) -> None:
    other = dataclasses.replace(LETS_IN, sources=frozenset())
    await catalog.specify(specified(LETS_IN, source="files:b"))
    await catalog.specify(specified(other, source="files:a"))
    assert (await catalog.read()).policies == (other,)
    assert ask(url, "select source, state, reason from mesh_policies order by source") == [
        ("files:a", "accepted", ""),
        ("files:b", "shadowed", "files:a has the same object and comes first"),
    ]
    await catalog.specify(specified(source="files:a"))
    assert (await catalog.read()).policies == (LETS_IN,)


async def test_one_object_twice_in_a_source_is_the_first_and_a_rejection(
    catalog: Catalog, url: str
) -> None:
    twice = Specified("files:p", ((ALL, "a.yaml:1"), (ALL, "b.yaml:7")))
    await catalog.specify(twice)
    assert (await catalog.read()).policies == (ALL,)
    assert ask(url, "select reason from mesh_policies where state = 'rejected'") == [
        ("b.yaml:7: the same object stands at a.yaml:1: remove one of them",)
    ]
