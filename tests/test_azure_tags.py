"""What tags and attachments say of machines, and how much an absence weighs."""

from collections.abc import Sequence
from typing import Any

import pytest
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
    Evidence,
    Identity,
    Interception,
)
from meshfed.catalog.orders import Attachment
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, ScaleSet, Vm, vm
from meshfed.providers.azure.resolve import (
    FORGOTTEN,
    Resolved,
    expected,
    observation,
)

# Tags


def test_several_services_are_separated_by_space_and_may_have_another_port_behind_them() -> None:
    found = endpoints(vm("vm-1", "10.0.0.4", "bookstore.shop:80:8080  ledger.shop:3306"))
    assert [(str(e.service), e.port, e.target) for e in found] == [
        ("bookstore.shop", 80, 8080),
        ("ledger.shop", 3306, 3306),
    ]


def test_identity_weight_interception_and_addresses_are_tags_of_their_own() -> None:
    one = vm("vm-1", "10.0.0.4", "bookstore.shop:80")
    one.tags = {
        "MESHFED.SERVICE": "bookstore.shop:80",
        "meshfed.Identity": "store.v2.shop",
        "meshfed.weight": "7",
        "meshfed.interception": "transparent",
        "meshfed.bind": "10.0.0.4",
        "meshfed.application": "10.0.0.4",
    }
    found = only(one)
    assert (workload(one).bind, workload(one).application) == ("10.0.0.4", "10.0.0.4")
    assert found.identity == Identity("store.v2", "shop")
    assert (found.weight, found.interception) == (7, Interception.TRANSPARENT)


def test_a_machine_that_only_calls_has_an_identity_and_no_service() -> None:
    one = Vm("vm-1", [Nic("n", [Ip("10.0.0.4")])], tags={"meshfed.identity": "buyer.shop"})
    assert workload(one).identity == Identity("buyer", "shop")
    assert endpoints(one) == []


def test_the_tag_that_names_services_may_be_another() -> None:
    one = Vm(
        "vm-1",
        [Nic("n", [Ip("10.0.0.4")])],
        tags={"Mesh": "a.shop:80", "meshfed.identity": "a.shop"},
    )
    assert str(only(one, tag="mesh").service) == "a.shop"


def test_an_interface_that_is_tagged_serves_at_its_own_address() -> None:
    one = served(
        "vm-1", [Nic("a", [Ip("10.0.1.4")], chosen=True), Nic("b", [Ip("10.0.2.4")], chosen=False)]
    )
    one.nics[1].tags = {"meshfed.service": "admin.shop:9000"}
    assert [(str(e.service), e.address) for e in endpoints(one)] == [
        ("admin.shop", "10.0.2.4"),
        ("bookstore.shop", "10.0.1.4"),
    ]


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"meshfed.service": "bookstore.shop"},
         "meshfed.service: 'bookstore.shop' is not <name>.<namespace>:<port>"),
        ({"meshfed.service": "bookstore:80"},
         "meshfed.service: 'bookstore' is not <name>.<namespace>"),
        ({"meshfed.service": "bookstore.shop:http"},
         "meshfed.service: 'http' is not a number in 1-65535"),
        ({"meshfed.service": " "},
         "meshfed.service: empty: write <name>.<namespace>:<port>, or take the tag away"),
        ({"meshfed.weight": "0"}, "meshfed.weight: '0' is not a number in 1-65535"),
        ({"meshfed.bind": "eth0"}, "meshfed.bind: 'eth0' is not an IP address"),
        ({"meshfed.interception": "magic"},
         "meshfed.interception: 'magic' is none of transparent, explicit, grpc, none"),
        ({"meshfed.identity": "Bookstore"},
         "meshfed.identity: 'Bookstore' is not <account>.<namespace>"),
    ],
    ids=str,
)  # fmt: skip
def test_a_tag_that_says_nothing_sensible_is_refused_with_its_machine(
    tags: dict[str, str], why: str
) -> None:
    one = vm("vm-1", "10.0.0.4", "bookstore.shop:80")
    one.tags = {**SERVED, **tags}
    assert refusals(one) == [f"rg-1/vm-1: {why}"]


def test_whoever_has_a_sidecar_is_somebody() -> None:
    one = vm("vm-1", "10.0.0.4", "bookstore.shop:80")
    one.tags = {"meshfed.service": "bookstore.shop:80"}
    why = "missing: interception explicit needs one; or say `none` there"
    assert refusals(one) == [f"rg-1/vm-1: meshfed.identity: {why}"]
    one.tags["meshfed.interception"] = "none"
    assert only(one).identity is None


def test_what_is_wrong_with_a_set_is_said_once_for_all_its_instances() -> None:
    of = ScaleSet(
        "uni",
        tags={"meshfed.service": "x"},
        instances=[instance("0", "10.1.0.1"), instance("1", "10.1.0.2")],
    )
    assert refusals(sets=[of]) == [
        "rg-1/uni: meshfed.service: 'x' is not <name>.<namespace>:<port>"
    ]


def test_two_machines_at_one_address_and_port_are_the_first_and_a_reason() -> None:
    twins = [vm(f"vm-{n}", "10.0.0.4", "bookstore.shop:80") for n in (1, 2)]
    assert len(endpoints(*twins)) == 1
    assert refusals(*twins) == [
        "rg-1/vm-2: address: 10.0.0.4 is another machine's in this list already"
    ]


# Attachments


def attachment(kind: str, name: str, **more: Any) -> Attachment:
    group = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-1"
    resource = f"{group}/providers/microsoft.compute/{kind}/{name}"
    who = Identity("attached", "shop")
    return Attachment(resource, STORE, 80, 8080, **{"identity": who, **more})


def test_a_machine_that_is_attached_answers_without_any_tag() -> None:
    found = only(vm("vm-1", "10.0.0.4"), attached=[attachment("virtualmachines", "vm-1", weight=3)])
    assert (found.port, found.target, found.weight) == (80, 8080, 3)
    assert str(found.identity) == "attached.shop"


def test_a_set_that_is_attached_attaches_its_members_and_instances() -> None:
    member = Vm("flex_1", [Nic("n", [Ip("10.2.0.1")])], scale_set="FLEX")
    sets = [
        ScaleSet("flex", mode="Flexible"),
        ScaleSet("uni", instances=[instance("0", "10.1.0.1")]),
    ]
    both = [attachment("virtualmachinescalesets", name) for name in ("flex", "uni")]
    assert addresses(member, sets=sets, attached=both) == ["10.1.0.1", "10.2.0.1"]


def test_what_is_attached_goes_before_tags_and_beside_them() -> None:
    one = vm("vm-1", "10.0.0.4", "ledger.shop:3306")
    found = endpoints(one, attached=[attachment("virtualmachines", "vm-1")])
    assert [str(e.service) for e in found] == ["bookstore.shop", "ledger.shop"]
    assert {str(e.identity) for e in found} == {"attached.shop"}


# How much an absence weighs


def evidence(*vms: Vm, before: Sequence[Vm]) -> Evidence:
    (known,) = scopes(*before).values()
    now = scopes(*vms).get(SCOPE, Resolved())
    return observation(SCOPE, now, expected({}, known, 0.0, stated=False)).evidence


def pair(**second: Any) -> list[Vm]:
    one, other = (vm(f"vm-{n}", f"10.0.0.{n}", "bookstore.shop:80") for n in (1, 2))
    for name, value in second.items():
        setattr(other, name, value)
    return [one, other]


def test_what_azure_lists_as_gone_is_stated() -> None:
    assert evidence(*pair(power="deallocated"), before=pair()) is Evidence.STATED
    assert evidence(*pair(tags={}), before=pair()) is Evidence.STATED
    swapped = [Nic("new", [Ip("10.0.0.99")])]
    assert evidence(*pair(nics=swapped), before=pair()) is Evidence.STATED


def test_what_is_not_listed_any_more_may_be_missing_by_accident() -> None:
    assert evidence(pair()[0], before=pair()) is Evidence.LISTED


def test_what_became_unreadable_is_not_stated_to_be_gone() -> None:
    mistagged = {**SERVED, "meshfed.service": "?"}
    assert evidence(*pair(tags=mistagged), before=pair()) is Evidence.LISTED
    hidden = [Nic("vm-2-nic", [Ip("10.0.0.2")], listed=False)]
    assert evidence(*pair(nics=hidden), before=pair()) is Evidence.LISTED


def test_a_machine_that_was_not_listed_for_long_is_not_expected_any_more() -> None:
    (known,) = scopes(*pair()).values()
    (short,) = scopes(pair()[0]).values()
    first = expected({}, known, 0.0, stated=False)
    assert len(expected(first, short, FORGOTTEN - 1, stated=False)) == 2
    assert len(expected(first, short, FORGOTTEN, stated=False)) == 1
