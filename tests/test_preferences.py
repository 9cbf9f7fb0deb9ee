"""Whatever the rules are: every endpoint is called somewhere, and what is preferred goes first."""

from collections import Counter
from dataclasses import dataclass

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st
from test_golden import mesh

from meshfed.catalog import preferences
from meshfed.catalog.model import Endpoint, Health, Identity, Locality, Platform, ServiceName
from meshfed.catalog.preferences import RELATIONS, Preference, Preferences
from meshfed.catalog.reach import Assignment, Near
from meshfed.catalog.resolved import resolve
from meshfed.federation.explain.callers import callers
from meshfed.federation.explain.judge import Asked, Known
from meshfed.federation.explain.path import path
from meshfed.federation.explain.preferred import Group, shares
from meshfed.xds.endpoints import load_assignment

STORE = ServiceName("bookstore", "shop")
PROVIDERS = ("azure", "rack", "spare")
NAMES = (*Platform, "rack", "spare")

localities = st.builds(
    Locality, st.sampled_from(("", "eu", "us")), st.sampled_from(("", "1", "2"))
).filter(lambda locality: locality.region or not locality.zone)
clusters = st.sampled_from(("", "blue", "green"))
nears = st.builds(Near, localities, clusters)
rules = st.builds(
    Preference,
    st.lists(st.sampled_from(NAMES), unique=True).map(tuple),
    st.lists(st.sampled_from((*RELATIONS, *NAMES)), unique=True).map(tuple),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 65535)).map(
        lambda weights: tuple(sorted(weights.items()))
    ),
    st.none() | st.integers(1, 100),
)


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(
            STORE, 8080, f"10.0.0.{n}", 9080, f"w{n}", draw(st.sampled_from(PROVIDERS)), "a",
            draw(st.sampled_from(Platform)), Identity("bookstore", "shop"),
            locality=draw(localities), cluster=draw(clusters),
            weight=draw(st.integers(1, 9)), health=draw(st.sampled_from(Health)),
        )
        for n in range(draw(st.integers(0, 8)))
    )  # fmt: skip


@dataclass(frozen=True)
class Told:
    priority: int
    locality: str
    weight: int
    addresses: tuple[str, ...]


def told(assignment: Assignment, there: tuple[Endpoint, ...]) -> list[Told]:
    packed = Any.FromString(load_assignment(assignment, there).any)
    return [
        Told(
            group.priority,
            str(group.locality),
            group.load_balancing_weight.value,
            tuple(m.endpoint.address.socket_address.address for m in group.lb_endpoints),
        )
        for group in ClusterLoadAssignment.FromString(packed.value).endpoints
    ]


def assigned(rule: Preference, near: Near) -> Assignment:
    return Assignment(STORE, 8080, near=near.asked(rule.prefer), preference=rule)


@given(endpoints(), rules, nears)
def test_every_endpoint_is_told_once_at_priorities_without_gaps(there, rule, near):
    groups = told(assigned(rule, near), there)
    where = {address: group.priority for group in groups for address in group.addresses}
    assert Counter(a for group in groups for a in group.addresses) == Counter(
        e.address for e in there
    )
    assert {group.priority for group in groups} == set(range(len(set(where.values()))))
    # Envoy weighs localities, and would lose all but one of the same name.
    assert len({(group.priority, group.locality) for group in groups}) == len(groups)
    assert all(group.weight for group in groups) is bool(rule.weights) or not groups
    level = assigned(rule, near).level
    for one in there:
        for other in there:
            if level(one) < level(other):
                assert where[one.address] < where[other.address]
            if level(one) == level(other):
                assert where[one.address] == where[other.address]


@given(endpoints(), rules, nears, nears)
def test_callers_who_are_told_differently_have_variants_of_their_own(there, rule, near, far):
    ours, theirs = assigned(rule, near), assigned(rule, far)
    if ours.name == theirs.name:
        assert load_assignment(ours, there) == load_assignment(theirs, there)


@given(rules, st.dictionaries(st.sampled_from(("a.b", "c.d")), rules))
def test_rules_are_read_as_they_were_written(general, services):
    written = Preferences(general, services)
    assert preferences.read(preferences.written(written)) == written


def test_a_caller_without_a_place_has_nothing_near():
    nowhere, there = Near(), Endpoint(STORE, 80, "a", 80, "w", "rack", "a")
    assert not any(nowhere.holds(term, there) for term in RELATIONS)


# Envoy 1.40 was asked each of these (LEAST_REQUEST, no panic threshold): percent of 600 requests.
@pytest.mark.parametrize(
    ("groups", "factor", "percent"),
    [
        pytest.param([(0, 20, 1, 1), (0, 80, 3, 3)], 140, [20, 80], id="by weight"),
        pytest.param([(0, 20, 0, 1), (0, 80, 2, 2)], 140, [0, 100], id="all to who is left"),
        pytest.param([(0, 20, 1, 1), (0, 80, 1, 2)], 140, [26, 74], id="less to who is half well"),
        pytest.param([(0, 0, 5, 10), (1, 0, 1, 1)], 140, [70, 30], id="spilling over"),
        pytest.param([(0, 0, 5, 10), (1, 0, 1, 1)], 200, [100, 0], id="not above the minimum"),
        pytest.param([(0, 0, 4, 10), (1, 0, 1, 1)], 200, [80, 20], id="from below it on"),
        pytest.param([(0, 0, 9, 10), (1, 0, 1, 1)], 100, [90, 10], id="a minimum of all"),
        pytest.param([(0, 0, 1, 4), (1, 0, 1, 4)], 140, [50, 50], id="all priorities below it"),
        pytest.param([(0, 0, 0, 1), (1, 0, 0, 1), (2, 0, 1, 1)], 140, [0, 0, 100], id="the third"),
        pytest.param([(0, 0, 0, 1), (1, 0, 0, 1)], 140, [0, 0], id="nobody"),
    ],
)
def test_shares_are_what_envoy_makes_of_them(groups, factor, percent):
    found = [Group(priority, "", weight, *health) for priority, weight, *health in groups]
    assert [round(share) for share in shares(found, factor)] == percent


GIVEN = {
    "services": {"bookstore.shop": {"ports": {8080: "http"}}},
    "federation": {"prefer": ["same-zone", "rack"], "minimum_healthy": "50%"},
    "workloads": [
        {"name": "buyer", "identity": "bookbuyer.shop", "locality": "eu/1"},
        {"name": "visitor", "identity": "bookbuyer.shop", "locality": "eu/2"},
        *(
            {"name": f"store-{n}", "address": f"10.0.0.{n}", "identity": "bookstore.shop",
             "serves": ["bookstore.shop:8080"], **more}
            for n, more in enumerate([
                {"locality": "eu/1", "provider": "azure"},
                {"locality": "eu/1", "provider": "azure", "health": "unhealthy"},
                {"locality": "eu/2"},
                {"locality": "eu/3", "provider": "spare"},
            ], start=1)
        ),
    ],
    "policies": {
        "groups": {"shop/all": {"all": {}}},
        "targets": {"shop/buy": {"to": "bookstore.shop", "from": ["bookbuyer.shop"],
                                 "rules": ["http all"]}},
    },
}  # fmt: skip


def lines(rule: dict[str, object], caller: str) -> list[str]:
    known = mesh(GIVEN | {"federation": rule})
    resolved = resolve(known)
    (who,) = callers(known, caller, resolved)
    found = path(known, who, Asked(STORE), Known(), resolved)
    return [step.what for step in found.steps if step.step == "preferred"]


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        pytest.param(
            "buyer",
            "100 % to same-zone (1 of 2 healthy), 0 % to rack (1 of 1 healthy), "
            "0 % to the rest (1 of 1 healthy), the next from below 50 % healthy on",
            id="from one zone",
        ),
        pytest.param(
            "visitor",
            "100 % to same-zone (1 of 1 healthy), 0 % to the rest (2 of 3 healthy), "
            "the next from below 50 % healthy on",
            id="from another",
        ),
    ],
)
def test_path_says_where_a_callers_calls_go(caller, expected):
    assert lines(GIVEN["federation"], caller) == [expected]


def test_path_says_what_weights_come_to():
    (line,) = lines({"weights": {"azure": 3, "rack": 1}}, "buyer")
    assert line == (
        "51.2 % to azure (1 of 2 healthy), 24.4 % to host (1 of 1 healthy), "
        "24.4 % to rack (1 of 1 healthy)"
    )


def test_path_is_silent_without_a_rule():
    assert lines({}, "buyer") == []


def test_owners_do_not_make_variants():
    rule = Preference(owners=("rack",))
    assert assigned(rule, Near(Locality("eu", "1"))).name == "bookstore.shop|8080"
