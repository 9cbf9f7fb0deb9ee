"""What Azure's lists, tags and attachments come to: each rule, by what it claims."""

from typing import Any

import pytest
from arm.listed import inventory
from sized import (
    SCOPE,
    SERVED,
    STORE,
    addresses,
    endpoints,
    instance,
    only,
    refusals,
    scopes,
    served,
    workload,
)

from meshfed.catalog.model import (
    Health,
    Identity,
    Locality,
    Platform,
    Port,
    Service,
)
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, Resources, ScaleSet, Vm, vm
from meshfed.providers.azure.lists import machines
from meshfed.providers.azure.resolve import (
    Choice,
    observation,
    resolve,
)


def test_what_is_wrong_with_a_machine_is_found_by_its_name_and_addresses() -> None:
    wrong = Vm("vm-1", [Nic("n-1", [Ip("10.0.0.1")])], tags={"meshfed.service": "x"})
    (found,) = (why for r in scopes(wrong).values() for why in r.rejected)
    assert found.about == ("vm-1", "10.0.0.1")


def test_a_tagged_machine_answers_for_its_service() -> None:
    (resolved,) = scopes(vm("vm-1", "10.0.0.4", "bookstore.shop:8080")).values()
    seen = observation(SCOPE, resolved, {})
    assert seen.services == {Service(STORE, (Port(8080, "http-8080"),))}
    (here,) = seen.workloads
    assert (here.name, here.provider, here.scope) == ("vm-1", "weu", SCOPE)
    assert (here.platform, here.identity) == (Platform.AZURE, Identity("bookstore", "shop"))
    assert here.addresses == ("10.0.0.4",)
    (found,) = seen.endpoints
    assert (found.service, found.port, found.address, found.target) == (
        STORE,
        8080,
        "10.0.0.4",
        8080,
    )
    assert (found.workload, found.identity) == (here.id, here.identity)
    assert (found.health, found.health_reason) == (Health.HEALTHY, "")


def test_a_machine_that_nobody_tagged_is_not_of_the_mesh() -> None:
    (resolved,) = scopes(vm("vm-1", "10.0.0.4")).values()
    assert not resolved.is_something


# Ids


def test_ids_are_compared_in_lower_case() -> None:
    """A list has the group in upper case, a reference to an interface in lower, its owner mixed."""
    found = workload(served("VM-1", [Nic("Nic-A", [Ip("10.0.0.4")])], group="MixedCase"))
    assert found.addresses == ("10.0.0.4",)
    assert found.resource_id == found.resource_id.lower()
    assert found.scope == f"weu/{SUBSCRIPTION}/mixedcase"


def test_instances_are_told_apart_by_all_of_their_number() -> None:
    """11 ends with 1."""
    of = ScaleSet(
        "uni", tags=SERVED, instances=[instance("1", "10.1.0.1"), instance("11", "10.1.0.11")]
    )
    found = {w.name: w.addresses for r in scopes(sets=[of]).values() for w in r.workloads.values()}
    assert found == {"uni_1": ("10.1.0.1",), "uni_11": ("10.1.0.11",)}


# Interfaces and addresses


def test_the_only_interface_is_primary_though_nobody_says_so() -> None:
    assert addresses(served("vm-1", [Nic("n", [Ip("10.0.0.4", primary=None)], primary=None)])) == [
        "10.0.0.4"
    ]


def test_of_several_interfaces_the_one_that_the_machine_calls_primary_is_called() -> None:
    first = Nic("a", [Ip("10.0.1.4")], primary=None, chosen=False)
    second = Nic("b", [Ip("10.0.2.4")], primary=None, chosen=True)
    assert addresses(served("vm-1", [first, second])) == ["10.0.2.4"]
    assert workload(served("vm-1", [first, second])).addresses == ("10.0.2.4", "10.0.1.4")


def test_an_interface_may_say_itself_that_it_is_primary() -> None:
    first = Nic("a", [Ip("10.0.1.4")], primary=False)
    second = Nic("b", [Ip("10.0.2.4")], primary=True)
    assert addresses(served("vm-1", [first, second])) == ["10.0.2.4"]


def test_of_several_configurations_the_primary_one_is_called() -> None:
    nic = Nic("n", [Ip("10.0.0.9", primary=False), Ip("10.0.0.4")])
    assert addresses(served("vm-1", [nic])) == ["10.0.0.4"]
    assert workload(served("vm-1", [nic])).addresses == ("10.0.0.4", "10.0.0.9")


def test_ipv6_beside_ipv4_is_an_address_of_the_machine_and_not_a_second_endpoint() -> None:
    nic = Nic("n", [Ip("FD00:0::4", primary=False), Ip("10.0.0.4")])
    assert addresses(served("vm-1", [nic])) == ["10.0.0.4"]
    assert workload(served("vm-1", [nic])).addresses == ("10.0.0.4", "fd00::4")


def test_a_machine_with_ipv6_alone_is_called_there() -> None:
    found = workload(served("vm-1", [Nic("n", [Ip("fd00::4")])]))
    assert (found.addresses, found.bind) == (("fd00::4",), "::")


def test_public_addresses_are_used_where_they_are_asked_for() -> None:
    nic = Nic("n", [Ip("10.0.0.4", public="20.1.2.3")])
    assert addresses(served("vm-1", [nic])) == ["10.0.0.4"]
    found = only(served("vm-1", [nic]), public=True)
    assert (found.address, found.network) == ("20.1.2.3", "")


def test_the_public_address_of_a_uniform_instance_is_its_own() -> None:
    one = Vm("0", [Nic("nic0", [Ip("10.1.0.1", public="20.9.0.1")])])
    found = only(sets=[ScaleSet("uni", tags=SERVED, instances=[one])], public=True)
    assert found.address == "20.9.0.1"


@pytest.mark.parametrize("public", [None, ""], ids=["there is none", "it is not allocated yet"])
def test_a_machine_without_the_public_address_that_is_asked_for_says_so(public: str | None) -> None:
    nic = Nic("n", [Ip("10.0.0.4", public=public)])
    assert refusals(served("vm-1", [nic]), public=True) == [
        "rg-1/vm-1: address: it has no public address, or that is not allocated"
    ]


def test_interfaces_of_nobody_are_skipped() -> None:
    """Such as those of private endpoints, which every list has."""
    assert addresses(vm("vm-1", "10.0.0.4", "bookstore.shop:8080")) == ["10.0.0.4"]


def test_an_interface_without_configurations_is_no_address() -> None:
    found = workload(served("vm-1", [Nic("n", [])], provisioning="Creating", power=None))
    assert found.addresses == ()
    assert endpoints(served("vm-1", [Nic("n", [Ip("")])])) == []


def test_an_interface_that_is_not_listed_is_a_fault_and_the_machine_is_not_seen_whole() -> None:
    (resolved,) = scopes(served("vm-1", [Nic("n", [Ip("10.0.0.4")], listed=False)])).values()
    assert resolved.fault.startswith("rg-1/vm-1: its network interface /subscriptions/")
    assert not resolved.listed


# State


@pytest.mark.parametrize(
    ("power", "health", "verdict"),
    [
        ("running", None, (Health.HEALTHY, "")),
        ("running", "healthy", (Health.HEALTHY, "")),
        ("running", "unhealthy", (Health.UNHEALTHY, "application health unhealthy")),
        ("running", "unknown", (Health.UNHEALTHY, "application health unknown")),
        ("running", "initializing", (Health.UNHEALTHY, "application health initializing")),
        ("starting", "healthy", (Health.UNHEALTHY, "starting")),
        ("creating", None, (Health.UNHEALTHY, "creating")),
        ("stopping", None, (Health.DRAINING, "stopping")),
        ("stopped", None, (Health.UNHEALTHY, "stopped")),
        ("hibernated", None, (Health.UNKNOWN, "power state hibernated")),
    ],
)
def test_power_state_and_application_health_are_one_verdict_with_its_reason(
    power: str, health: str | None, verdict: tuple[Health, str]
) -> None:
    found = only(vm("vm-1", "10.0.0.4", "bookstore.shop:80", power=power, health=health))
    assert (found.health, found.health_reason) == verdict


def test_a_power_state_that_is_missing_is_unknown_and_not_down() -> None:
    found = only(vm("vm-1", "10.0.0.4", "bookstore.shop:80", power=None))
    assert (found.health, found.health_reason) == (
        Health.UNKNOWN,
        "Azure does not say whether it runs",
    )


def test_a_machine_without_a_row_in_the_list_of_states_is_unknown() -> None:
    found = inventory(Resources(vms=[vm("vm-1", "10.0.0.4", "bookstore.shop:80")]))
    stateless = type(found)(found.machines, (), found.nics)
    (resolved,) = resolve(Choice("weu"), machines(stateless), {}, {}).values()
    (endpoint,) = resolved.endpoints.values()
    assert endpoint.health is Health.UNKNOWN


@pytest.mark.parametrize("name", ["a", "ab"], ids=["power first", "power last"])
def test_the_power_state_is_found_wherever_it_stands_among_the_statuses(name: str) -> None:
    assert only(vm(name, "10.0.0.4", "bookstore.shop:80")).health is Health.HEALTHY


@pytest.mark.parametrize(
    "away",
    [{"power": "deallocated"}, {"power": "deallocating"}, {"provisioning": "Deleting"}],
    ids=str,
)
def test_a_machine_that_is_deallocated_or_being_deleted_is_out_though_it_keeps_its_address(
    away: dict[str, str],
) -> None:
    (resolved,) = scopes(vm("vm-1", "10.0.0.4", "bookstore.shop:80", **away)).values()
    assert not resolved.is_something
    assert len(resolved.listed) == 1


# Place


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"zones": ["2"]}, Locality("westeurope", "westeurope-2")),
        ({"zones": ["2"], "fault_domain": 1}, Locality("westeurope", "westeurope-2")),
        ({"fault_domain": 1}, Locality("westeurope", "fd-1")),
        ({"fault_domain": 0, "pinned": True}, Locality("westeurope", "fd-0")),
        ({}, Locality("westeurope")),
        ({"location": "WestEurope"}, Locality("westeurope")),
    ],
    ids=str,
)
def test_zones_are_named_as_nodes_of_aks_name_theirs_and_fault_domains_stand_in_for_them(
    said: dict[str, Any], where: Locality
) -> None:
    assert only(vm("vm-1", "10.0.0.4", "bookstore.shop:80", **said)).locality == where


def test_a_machine_is_in_its_virtual_network_and_says_its_subnet_and_fault_domain() -> None:
    """Subnets of one virtual network reach each other, so they are not networks to the mesh."""
    nic = Nic("n", [Ip("10.0.0.4", vnet="Hub", subnet="Apps")])
    found = workload(served("vm-1", [nic], zones=["1"], fault_domain=1))
    assert found.network == "hub"
    assert found.labels == (("fault_domain", "fd-1"), ("subnet", "apps"))


def test_peered_networks_are_one_where_the_configuration_says_so() -> None:
    assert only(vm("vm-1", "10.0.0.4", "bookstore.shop:80"), network="peered").network == "peered"


# Scale sets


def test_members_of_flexible_sets_are_machines_of_their_group_with_their_sets_tags() -> None:
    member = Vm("flex_1", [Nic("n", [Ip("10.2.0.1")])], scale_set="Flex")
    found = workload(member, sets=[ScaleSet("flex", mode="Flexible", tags=SERVED)])
    assert (found.scope, dict(found.labels)["scale_set"]) == (SCOPE, "flex")


def test_a_members_own_tags_go_before_its_sets() -> None:
    tags = {"Meshfed.Service": "other.shop:80"}
    member = Vm("flex_1", [Nic("n", [Ip("10.2.0.1")])], tags=tags, scale_set="Flex")
    found = only(member, sets=[ScaleSet("flex", mode="Flexible", tags=SERVED)])
    assert (str(found.service), str(found.identity)) == ("other.shop", "bookstore.shop")


@pytest.mark.parametrize("mode", ["Uniform", None], ids=["Uniform", "a mode that is not said"])
def test_instances_of_uniform_sets_are_told_of_in_a_scope_of_their_set(mode: str | None) -> None:
    one = instance("7", "10.1.0.7", zones=["3"])
    found = workload(sets=[ScaleSet("Uni", mode=mode, tags=SERVED, instances=[one])])
    assert (found.name, found.scope) == ("Uni_7", f"{SCOPE}/uni")
    assert found.resource_id.endswith("/virtualmachinescalesets/uni/virtualmachines/7")
    assert found.locality == Locality("westeurope", "westeurope-3")


def test_a_uniform_sets_tags_hold_at_once_whatever_its_instances_still_mirror() -> None:
    """They take over their model's tags only when they are upgraded, and keep them as long."""
    of = ScaleSet("uni", tags={}, instances=[instance("7", "10.1.0.7", tags=dict(SERVED))])
    assert endpoints(sets=[of]) == []


def test_nodes_of_aks_are_left_out_unless_they_are_asked_for() -> None:
    by_group = vm("node-1", "10.0.0.4", "bookstore.shop:80", group="MC_rg_aks_westeurope")
    by_tag = served("node-2", [Nic("n", [Ip("10.0.0.5")])])
    by_tag.tags = {**SERVED, "AKS-managed-poolName": "pool"}
    assert endpoints(by_group, by_tag) == []
    assert addresses(by_group, by_tag, aks=True) == ["10.0.0.4", "10.0.0.5"]


def test_only_the_groups_that_are_named_are_looked_at() -> None:
    ours, theirs = (
        vm(f"vm-{g}", f"10.0.0.{n}", "bookstore.shop:80", group=g) for n, g in enumerate("AB", 1)
    )
    assert addresses(ours, theirs, groups=frozenset({"a"})) == ["10.0.0.1"]
