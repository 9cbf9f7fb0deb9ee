"""Machines of Azure in a few words, and what is resolved of them."""

from collections.abc import Sequence
from typing import Any

from arm.listed import inventory

from meshfed.catalog.model import (
    Endpoint,
    ServiceName,
    Workload,
)
from meshfed.catalog.orders import Attachment
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, Resources, ScaleSet, Vm
from meshfed.providers.azure.lists import machines
from meshfed.providers.azure.resolve import (
    Choice,
    Resolved,
    resolve,
)

STORE = ServiceName("bookstore", "shop")
SCOPE = f"weu/{SUBSCRIPTION}/rg-1"
SERVED = {"meshfed.service": "bookstore.shop:8080", "meshfed.identity": "bookstore.shop"}


def scopes(
    *vms: Vm, sets: Sequence[ScaleSet] = (), attached: Sequence[Attachment] = (), **choice: Any
) -> dict[str, Resolved]:
    found = inventory(Resources(vms=list(vms), sets=list(sets)))
    by_resource: dict[str, tuple[Attachment, ...]] = {}
    for each in attached:
        by_resource[each.resource] = (*by_resource.get(each.resource, ()), each)
    return resolve(Choice("weu", **choice), machines(found), by_resource, {})


def endpoints(*vms: Vm, **more: Any) -> list[Endpoint]:
    found = (e for resolved in scopes(*vms, **more).values() for e in resolved.endpoints.values())
    return sorted(found, key=lambda each: each.key)


def addresses(*vms: Vm, **more: Any) -> list[str]:
    return [each.address for each in endpoints(*vms, **more)]


def only(*vms: Vm, **more: Any) -> Endpoint:
    (found,) = endpoints(*vms, **more)
    return found


def workload(*vms: Vm, **more: Any) -> Workload:
    (found,) = (w for r in scopes(*vms, **more).values() for w in r.workloads.values())
    return found


def refusals(*vms: Vm, **more: Any) -> list[str]:
    return sorted(str(why) for r in scopes(*vms, **more).values() for why in r.rejected)


def served(name: str, nics: list[Nic], **more: Any) -> Vm:
    return Vm(name, nics, tags=dict(SERVED), **more)


def instance(number: str, address: str, **more: Any) -> Vm:
    return Vm(number, [Nic("nic0", [Ip(address)])], **more)
