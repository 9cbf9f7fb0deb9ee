"""Some machines of every kind, which answer for two services."""

from meshfed.demo.arm.resources import Ip, Nic, ScaleSet, Vm, vm
from meshfed.demo.arm.world import World

STORE = "bookstore.shop:8080"
LEDGER = "ledger.shop:80"
TAGS = {"meshfed.service": STORE, "meshfed.identity": "bookstore.shop"}
OTHERS = {"meshfed.service": LEDGER, "meshfed.identity": "bookstore.shop"}
ALL = {*(f"10.0.0.{n}" for n in range(1, 7)), "10.1.0.0", "10.1.0.1", "10.2.0.1", "10.2.0.2"}


def member(name: str, address: str, of: str) -> Vm:
    return Vm(name, [Nic(f"{name}-nic", [Ip(address)])], scale_set=of)


def instance(number: int) -> Vm:
    return Vm(str(number), [Nic("nic0", [Ip(f"10.1.0.{number}")])])


def fleet() -> World:
    """Six machines, two of a Flexible set, and two of a Uniform one."""
    made = World(page=200)
    made.resources.vms = [
        *(vm(f"vm-{n}", f"10.0.0.{n}", STORE) for n in range(1, 7)),
        *(member(f"flex_{n}", f"10.2.0.{n}", "flex") for n in (1, 2)),
        vm("vm-8", "10.0.0.8", LEDGER),
    ]
    made.resources.sets = [
        ScaleSet("flex", mode="Flexible", tags=dict(TAGS)),
        ScaleSet("twin", mode="Flexible", tags=dict(TAGS)),
        ScaleSet("other", mode="Flexible", tags=dict(OTHERS)),
        ScaleSet("uni", tags=dict(TAGS), instances=[instance(0), instance(1)]),
    ]
    return made
