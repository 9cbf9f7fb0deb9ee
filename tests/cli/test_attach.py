"""Attaching machines of Azure from the command line."""

import json
import socket
from collections.abc import Callable
from getpass import getuser
from typing import Any

import pytest

Run = Callable[..., Any]  # how it ended: code, out, err, lines
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/Rg-1/providers"
VM = f"{GROUP}/Microsoft.Compute/virtualMachines/Vm-1"
SET = f"{GROUP}/Microsoft.Compute/virtualMachineScaleSets/Store"
INSTANCE = f"{SET}/virtualMachines/7"
SERVES = ("--service", "bookstore.shop", "--port", "80", "--target", "8080")


def changes(meshfed: Run) -> list[tuple[str, str, str]]:
    sql = "select object, change, who from mesh_changes where what = 'attachment' order by revision"
    found = json.loads(meshfed("sql", sql, "-o", "json").out)
    return [(each["object"], each["change"], each["who"]) for each in found]


@pytest.mark.parametrize(
    ("kind", "resource"), [("azure-vm", VM), ("azure-vm", INSTANCE), ("azure-vmss", SET)]
)
def test_a_machine_or_set_is_attached_and_detached_by_whoever_did_it(
    meshfed: Run, url: str, kind: str, resource: str
) -> None:
    name = f"bookstore.shop:80 at {resource.lower()}"
    ended = meshfed("attach", kind, resource, *SERVES, "--identity", "bookstore.shop")
    assert (ended.code, ended.lines) == (0, [f"{name}: attached, revision 1"])
    again = meshfed("attach", kind, resource.upper().replace("SUBSCRIPTIONS", "subscriptions"),
                    *SERVES, "--identity", "bookstore.shop")  # fmt: skip
    assert again.lines == [f"{name}: unchanged"]
    gone = meshfed("detach", kind, resource, "--service", "bookstore.shop")
    assert gone.lines == [f"{resource.lower()}: detached, revision 2"]
    me = f"{getuser()}@{socket.gethostname()}"
    assert changes(meshfed) == [(name, "joined", me), (name, "left", me)]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("azure-vm", SET), f"ID: '{SET}' is not that of a virtual machine: `az vm show "),
        (("azure-vmss", VM), f"ID: '{VM}' is not that of a scale set: `az vmss show --query id`"),
        (("azure-vm", "vm-1"), "ID: 'vm-1' is not that of a virtual machine"),
        (("azure-vm", VM, "--identity", "x"), "--identity: 'x' is not <account>.<namespace>"),
        (("azure-vm", VM, "--interception", "magic"),
         "--interception: 'magic' is none of transparent, explicit, grpc, none"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_line(meshfed: Run, url: str, arguments: tuple[str, ...], why: str) -> None:
    ended = meshfed("attach", *arguments, *SERVES)
    assert ended.code == 1
    assert ended.lines[0].startswith(why)


def test_what_nobody_attached_is_said(meshfed: Run, url: str) -> None:
    ended = meshfed("detach", "azure-vm", VM)
    assert (ended.code, ended.lines) == (1, [f"nothing is attached at {VM.lower()}"])
