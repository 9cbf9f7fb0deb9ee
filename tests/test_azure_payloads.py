"""What Azure answered once, to whoever recorded it, is understood.

MESHFED_AZURE_PAYLOADS names a folder with answers as JSON files; they are not ours to keep here.
"""

import json
import os
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshfed.catalog.model import Health, Identity, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.demo.arm.resources import Row
from meshfed.providers.azure import objects
from meshfed.providers.azure.lists import Answer, Inventory, T, machines, refusal
from meshfed.providers.azure.machines import lowered, machine, verdict
from meshfed.providers.azure.resolve import Choice, resolve

FOLDER = os.environ.get("MESHFED_AZURE_PAYLOADS", "")
KINDS = {
    "microsoft.compute/virtualmachines": objects.Machine,
    "microsoft.compute/virtualmachinescalesets": objects.ScaleSet,
    "microsoft.compute/virtualmachinescalesets/virtualmachines": objects.Machine,
    "microsoft.network/networkinterfaces": objects.Nic,
    "microsoft.network/publicipaddresses": objects.PublicAddress,
}

pytestmark = pytest.mark.skipif(
    not FOLDER, reason="MESHFED_AZURE_PAYLOADS names no folder with recorded answers"
)


def bodies() -> dict[str, Any]:
    """Each answer by its file; the documentation's examples have theirs further in."""
    found = {path.name: json.loads(path.read_text()) for path in Path(FOLDER).rglob("*.json")}
    return {
        name: body.get("responses", {}).get("200", {}).get("body", body)
        for name, body in sorted(found.items())
    }


def rows() -> list[Row]:
    """Every resource in any of them."""
    every = (body.get("value", [body]) for body in bodies().values() if isinstance(body, dict))
    return [
        row
        for some in every
        if isinstance(some, list)
        for row in some
        if "type" in row and "id" in row
    ]


def of(kind: type[T], some: Iterable[Row]) -> tuple[T, ...]:
    mine = {name for name, each in KINDS.items() if each is kind}
    return tuple(msgspec.convert(row, kind) for row in some if row["type"].lower() in mine)


def test_every_resource_is_understood() -> None:
    known = [row for row in rows() if row["type"].lower() in KINDS]
    for row in known:
        msgspec.json.decode(json.dumps(row), type=KINDS[row["type"].lower()])
    assert len(known) > 100


def test_pages_and_errors_are_understood() -> None:
    found = bodies()
    page = msgspec.json.decode(json.dumps(found["nic_list_all.json"]), type=objects.Page)
    assert (len(page.value or ()), page.next_link) == (60, None)
    body = json.dumps(found["vmss_vm_404_error.json"]).encode()
    assert refusal(Answer(404, {}, body), ()).args[0].startswith("404 ")


def test_machines_find_their_interfaces_whatever_the_casing() -> None:
    some = rows()
    vms, nics = of(objects.Machine, some), of(objects.Nic, some)
    there = {lowered(nic.id) for nic in nics}
    attached = {
        lowered(each.id): (Attachment(lowered(each.id), ServiceName("a", "b"), 80, 80, WHO),)
        for each in vms
    }
    found = Inventory(vms, vms, nics, of(objects.PublicAddress, some))
    known = [machine(each) for each in machines(found)]
    joined = [each for each in known if not each.lacking and each.addresses]
    assert {each.id for each in joined} == {
        lowered(each.id)
        for each in vms
        if (refs := each.properties and each.properties.network_profile)
        and all(lowered(ref.id) in there for ref in refs.network_interfaces or ())
        and refs.network_interfaces
    }
    for one in joined:
        assert all(ip_address(at.private) and at.network and at.subnet for at in one.addresses)
    scopes = resolve(Choice("recorded"), machines(found), attached, {})
    assert not any(each.rejected for each in scopes.values())
    assert sum(len(each.endpoints) for each in scopes.values()) > 0


def test_states_that_were_recorded_are_a_verdict() -> None:
    views = [
        row["properties"]["instanceView"]
        for row in rows()
        if "instanceView" in row.get("properties", {})
    ]
    assert views
    for each in views:
        found = verdict("Succeeded", msgspec.convert(each, objects.InstanceView))
        assert found is None or found.health in (Health.HEALTHY, Health.UNKNOWN, Health.UNHEALTHY)


WHO = Identity("recorded", "azure")
