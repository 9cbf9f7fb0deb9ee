"""What goldens cannot show of the translation: bytes, refusals, and what is left out."""

import subprocess
import sys

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.rbac.v3.rbac_pb2 import RBAC
from google.protobuf.any_pb2 import Any
from msgspec import structs

from meshfed.catalog.access import Grant
from meshfed.catalog.model import (
    Endpoint,
    Health,
    HttpMatch,
    Identity,
    Interception,
    Locality,
    ObjectName,
    ServiceName,
)
from meshfed.catalog.preferences import Preference
from meshfed.catalog.reach import Assignment, Near
from meshfed.xds.endpoints import lb_endpoint, load_assignment
from meshfed.xds.rbac import per_connection, per_route, regex
from meshfed.xds.resource import packed, resource
from meshfed.xds.secrets import validation

STORE = ServiceName("bookstore", "shop")
BUYER = Identity("bookbuyer", "shop")
NEAREST = Preference(prefer=("same-zone", "same-region"), minimum_healthy=50)


def endpoint(host: str, zone: str = "", **also: object) -> Endpoint:
    return Endpoint(
        STORE, 8080, host, 9080, host, "rack", "rack/hosts.yaml",
        identity=Identity("bookstore", "shop"), locality=Locality.parse(zone), **also,
    )  # fmt: skip


def assigned(*endpoints: Endpoint, **also: object) -> endpoint_pb2.ClusterLoadAssignment:
    made = load_assignment(Assignment(STORE, 8080, **also), endpoints)
    found = endpoint_pb2.ClusterLoadAssignment()
    assert Any.FromString(made.any).Unpack(found)
    return found


def at(locality: str) -> Near:
    return Near(Locality.parse(locality))


def hosts(found: endpoint_pb2.ClusterLoadAssignment) -> list[tuple[int, str, str]]:
    """Priority, zone and address of each."""
    return [
        (
            group.priority,
            group.locality.zone,
            f"{where.socket_address.address}:{where.socket_address.port_value}",
        )
        for group in found.endpoints
        for member in group.lb_endpoints
        for where in [member.endpoint.address]
    ]


def test_joined_bytes_are_those_that_protobuf_writes():
    members = [
        endpoint(f"10.0.{n // 250}.{n % 250}", f"eu/{n % 3}", weight=n % 7 + 1) for n in range(600)
    ]
    expected = endpoint_pb2.ClusterLoadAssignment(cluster_name="bookstore.shop|8080")
    for zone in "012":
        where = base_pb2.Locality(region="eu", zone=zone, sub_zone="host")
        group = expected.endpoints.add(locality=where)
        for each in sorted(members, key=lambda e: e.address):
            if each.locality.zone == zone:
                made = lb_endpoint(each.address, 15003, each.weight, each.health, bare=False)
                group.lb_endpoints.append(made)
    plain = resource("bookstore.shop|8080", expected)
    assert load_assignment(Assignment(STORE, 8080), members) == plain
    assert load_assignment(Assignment(STORE, 8080), reversed(members)) == plain


def test_bytes_with_priorities_and_plaintext_are_those_too():
    members = [endpoint("10.0.0.1", "eu/1"), endpoint("10.0.0.2", "us/1"),
               endpoint("10.0.0.3", "eu/2", interception=Interception.NONE)]  # fmt: skip
    near = Assignment(STORE, 8080, near=at("eu/1"), preference=NEAREST, plaintext=True)
    expected = endpoint_pb2.ClusterLoadAssignment(cluster_name=near.name)
    expected.policy.overprovisioning_factor.value = 200
    for level, each in enumerate((members[0], members[2], members[1])):
        bare = each.interception is Interception.NONE
        member = lb_endpoint(each.address, 9080 if bare else 15003, 1, each.health, bare=bare)
        region, zone = each.locality.region, each.locality.zone
        where = base_pb2.Locality(region=region, zone=zone, sub_zone="host")
        expected.endpoints.append(
            endpoint_components_pb2.LocalityLbEndpoints(
                locality=where, lb_endpoints=[member], priority=level
            )
        )
    assert load_assignment(near, members) == resource(near.name, expected)


@pytest.mark.parametrize(
    ("near", "expected"),
    [
        pytest.param("", [(0, "1", "a"), (0, "2", "b"), (0, "1", "c")], id="none from nowhere"),
        pytest.param("eu/1", [(0, "1", "a"), (1, "2", "b"), (2, "1", "c")], id="zone, then region"),
        pytest.param("us/1", [(0, "1", "c"), (1, "1", "a"), (1, "2", "b")], id="without gaps"),
    ],
)
def test_localities_have_an_order(near, expected):
    there = (endpoint("a", "eu/1"), endpoint("b", "eu/2"), endpoint("c", "us/1"))
    found = hosts(assigned(*there, near=at(near), preference=NEAREST))
    assert found == [(level, zone, f"{host}:15003") for level, zone, host in expected]


@pytest.mark.parametrize(
    ("member", "also", "reached"),
    [
        pytest.param({}, {}, "10.0.0.1:15003", id="at its sidecar"),
        pytest.param({"interception": Interception.NONE}, {}, None, id="not without one"),
        pytest.param(
            {"interception": Interception.NONE},
            {"plaintext": True},
            "10.0.0.1:9080",
            id="unless plaintext is allowed: at the application",
        ),
        pytest.param({}, {"identities": (BUYER,)}, None, id="not with another identity"),
        pytest.param({"network": "a"}, {"network": "b"}, None, id="not in another network"),
        pytest.param({"network": "a"}, {}, "10.0.0.1:15003", id="from an unnamed network"),
        pytest.param({"weight": 0}, {}, None, id="not without weight"),
    ],
)
def test_an_endpoint_is_reached(member, also, reached):
    found = hosts(assigned(endpoint("10.0.0.1", **member), **also))
    assert found == ([(0, "", reached)] if reached else [])


@pytest.mark.parametrize(
    ("health", "told"),
    [(Health.HEALTHY, 1), (Health.UNHEALTHY, 2), (Health.DRAINING, 3), (Health.UNKNOWN, 0)],
)
def test_health_is_told_as_it_is_known(health, told):
    [group] = assigned(endpoint("10.0.0.1", health=health)).endpoints
    assert group.lb_endpoints[0].health_status == told


def test_two_ports_of_one_sidecar_are_one_host():
    one = endpoint("10.0.0.1")
    found = assigned(one, structs.replace(one, target=9081))
    assert hosts(found) == [(0, "", "10.0.0.1:15003")]


def grant(name: str, *sources: Identity) -> Grant:
    return Grant(
        ObjectName("shop", name), BUYER, sources, (HttpMatch("all"),), tcp=True, ports=None
    )


@pytest.mark.parametrize("rules", [
    per_route([], "shop.example").rbac.rules,
    per_connection([], "shop.example", "x").rules,
], ids=["of requests", "of connections"])  # fmt: skip
def test_rules_without_grants_allow_nobody(rules):
    assert rules.action == RBAC.ALLOW
    assert not rules.policies


def test_an_expression_without_characters_is_one_that_envoy_takes():
    """It refuses the empty one, and all routes with it (tests/truth_table.py asks a real one)."""
    assert regex("").regex == "^$"


def test_a_policy_names_exactly_its_sources():
    made = per_route([grant("buyers", BUYER)], "shop.example").rbac.rules
    [principal] = made.policies["shop/buyers"].principals
    exact = principal.authenticated.principal_name.exact
    assert exact == "spiffe://shop.example/ns/shop/sa/bookbuyer"


def test_a_validation_that_names_nobody_is_refused():
    with pytest.raises(ValueError, match="names nobody"):
        validation("validation/x", b"roots", ())


DETERMINED = """
from meshfed.xds.rbac import per_route
from meshfed.xds.resource import resource
from meshfed.catalog.access import Grant
from meshfed.catalog.model import *
grants = [Grant(ObjectName("shop", f"p{n}"), Identity("a", "b"), (Identity(f"s{n}", "b"),),
          (HttpMatch("all"),), True, None) for n in range(50)]
print(resource("x", per_route(grants, "shop.example")).version)
"""


def test_the_same_content_has_the_same_version_in_every_process():
    seen = {
        subprocess.run(
            [sys.executable, "-c", DETERMINED],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_the_order_of_a_map_does_not_matter():
    names = [grant(f"p{n}", BUYER) for n in range(20)]
    one, other = per_route(names, "t"), per_route(names[::-1], "t")
    assert packed(one).value == packed(other).value
