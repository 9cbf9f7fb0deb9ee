"""Azure's resources as the tests' Resource Manager has them, and the words it lists them in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
COMPUTE = "Microsoft.Compute"

Row = dict[str, Any]


@dataclass
class Ip:
    private: str = ""
    public: str | None = None  # "": there is one, and it is not allocated
    primary: bool | None = True
    vnet: str = "Vnet-1"
    subnet: str = "Default"


@dataclass
class Nic:
    name: str = "nic0"
    ips: list[Ip] = field(default_factory=list)
    primary: bool | None = True  # as it says itself
    chosen: bool | None = None  # as its machine says of it: nothing, of the only one
    tags: dict[str, str] | None = None
    listed: bool = True


@dataclass
class Vm:
    """A virtual machine, or an instance of a Uniform set, whose name is its number."""

    name: str
    nics: list[Nic]
    group: str = "Rg-1"
    tags: dict[str, str] | None = None
    power: str | None = "running"  # None: not said
    health: str | None = None
    provisioning: str = "Succeeded"
    zones: list[str] | None = None
    fault_domain: int | None = None
    pinned: bool = False  # to its fault domain
    scale_set: str = ""  # a Flexible set of its group
    location: str = "westeurope"


@dataclass
class ScaleSet:
    name: str
    group: str = "Rg-1"
    mode: str | None = "Uniform"
    tags: dict[str, str] | None = None
    instances: list[Vm] = field(default_factory=list)


def vm(name: str, address: str, service: str = "", **more: Any) -> Vm:
    """A machine with one interface, which serves what its tag says."""
    tags = {"meshfed.service": service, "meshfed.identity": "bookstore.shop"} if service else None
    return Vm(name, [Nic(f"{name}-nic", [Ip(address)])], tags=tags, **more)


@dataclass
class Resources:
    """All that one subscription has."""

    subscription: str = SUBSCRIPTION
    vms: list[Vm] = field(default_factory=list)
    sets: list[ScaleSet] = field(default_factory=list)

    def of(self, group: str) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{group}"

    def compute(self, kind: str, group: str, name: str) -> str:
        return f"{self.of(group)}/providers/{COMPUTE}/{kind}/{name}"

    def vm_id(self, one: Vm) -> str:
        return self.compute("virtualMachines", one.group, one.name)

    def set_id(self, one: ScaleSet) -> str:
        return self.compute("virtualMachineScaleSets", one.group, one.name)

    def network(self, kind: str, group: str, name: str) -> str:
        return f"{self.of(group)}/providers/Microsoft.Network/{kind}/{name}"

    def find(self, name: str, group: str) -> ScaleSet | None:
        same = (name.lower(), group.lower())
        return next((s for s in self.sets if (s.name.lower(), s.group.lower()) == same), None)

    # What is listed

    def machine_rows(self) -> Iterator[Row]:
        """In lists of a subscription, the group's name is in upper case."""
        for one in self.vms:
            row = self._machine(one, self.compute("virtualMachines", one.group.upper(), one.name))
            profile = [self._reference(one, nic) for nic in one.nics]
            row["properties"]["networkProfile"] = {"networkInterfaces": profile}
            if one.scale_set:
                owner = self.compute("virtualMachineScaleSets", one.group, one.scale_set)
                row["properties"]["virtualMachineScaleSet"] = {"id": owner}
            yield row

    def state_rows(self) -> Iterator[Row]:
        """No such body was recorded: as the documentation has it, rows with little but status."""
        for one in self.vms:
            where = self.compute("virtualMachines", one.group.upper(), one.name)
            properties = {"provisioningState": one.provisioning, "instanceView": view(one)}
            yield {"name": one.name, "id": where, "location": one.location,
                   "properties": properties}  # fmt: skip

    def nic_rows(self) -> Iterator[Row]:
        for one in self.vms:
            for nic in one.nics:
                if nic.listed:
                    where = self.network("networkInterfaces", one.group, nic.name)
                    public = self.network("publicIPAddresses", one.group, "")
                    yield self._nic(nic, where, self.vm_id(one), one.group, public)
        endpoint = self.network("networkInterfaces", "Rg-1", "of-a-private-endpoint")
        yield {"id": endpoint, "properties": {"ipConfigurations": [self._ip(Ip("10.0.0.250"), "",
               "Rg-1")]}}  # fmt: skip

    def public_rows(self) -> Iterator[Row]:
        for one in self.vms:
            for nic in one.nics:
                yield from self._publics(nic, self.network("publicIPAddresses", one.group, ""))

    def set_rows(self) -> Iterator[Row]:
        for one in self.sets:
            properties: Row = {"provisioningState": "Succeeded", "singlePlacementGroup": True}
            if one.mode:
                properties["orchestrationMode"] = one.mode
            row: Row = {"name": one.name, "id": self.compute("virtualMachineScaleSets",
                        one.group.upper(), one.name), "properties": properties}  # fmt: skip
            yield row | ({"tags": one.tags} if one.tags is not None else {})

    def instance_rows(self, of: ScaleSet, *, expanded: bool) -> Iterator[Row]:
        for one in of.instances:
            where = f"{self.set_id(of)}/virtualMachines/{one.name}"
            row = self._machine(one, where) | {"instanceId": one.name}
            row["name"] = f"{of.name}_{one.name}"
            refs = [{"id": f"{where}/networkInterfaces/{nic.name}"} for nic in one.nics]
            row["properties"]["networkProfile"] = {"networkInterfaces": refs}
            if expanded:
                row["properties"]["instanceView"] = view(one)
            yield row

    def set_nic_rows(self, of: ScaleSet) -> Iterator[Row]:
        for one in of.instances:
            owner = f"{self.set_id(of)}/virtualMachines/{one.name}"
            for nic in one.nics:
                if nic.listed:
                    where = f"{owner}/networkInterfaces/{nic.name}"
                    public = f"{owner}/publicIPAddresses/"
                    yield self._nic(nic, where, owner, of.group, public)

    def set_public_rows(self, of: ScaleSet) -> Iterator[Row]:
        for one in of.instances:
            for nic in one.nics:
                owner = f"{self.set_id(of)}/virtualMachines/{one.name}"
                yield from self._publics(nic, f"{owner}/publicIPAddresses/")

    # Each row

    def _machine(self, one: Vm, where: str) -> Row:
        properties: Row = {"vmId": f"id-of-{one.name}", "provisioningState": one.provisioning}
        if one.pinned:
            properties["platformFaultDomain"] = one.fault_domain
        row: Row = {"name": one.name, "id": where, "location": one.location,
                    "properties": properties}  # fmt: skip
        row |= {"tags": one.tags} if one.tags is not None else {}
        return row | ({"zones": one.zones} if one.zones else {})

    def _reference(self, one: Vm, nic: Nic) -> Row:
        where = self.network("networkInterfaces", one.group.lower(), nic.name)
        chosen = {"properties": {"primary": nic.chosen}} if nic.chosen is not None else {}
        return {"id": where} | chosen

    def _nic(self, nic: Nic, where: str, owner: str, group: str, public: str) -> Row:
        properties: Row = {
            "virtualMachine": {"id": owner},
            "ipConfigurations": [
                self._ip(ip, f"{public}{nic.name}-{n}", group) for n, ip in enumerate(nic.ips)
            ],
        }
        if nic.primary is not None:
            properties["primary"] = nic.primary
        row: Row = {"name": nic.name, "id": where, "properties": properties}
        return row | ({"tags": nic.tags} if nic.tags is not None else {})

    def _ip(self, ip: Ip, public: str, group: str) -> Row:
        subnet = f"{self.network('virtualNetworks', group, ip.vnet)}/subnets/{ip.subnet}"
        properties: Row = {
            "privateIPAddressVersion": "IPv6" if ":" in ip.private else "IPv4",
            "subnet": {"id": subnet},
        }
        properties |= {"privateIPAddress": ip.private} if ip.private else {}
        properties |= {"primary": ip.primary} if ip.primary is not None else {}
        properties |= {"publicIPAddress": {"id": public}} if ip.public is not None else {}
        return {"name": "ipconfig", "properties": properties}

    def _publics(self, nic: Nic, base: str) -> Iterator[Row]:
        for n, ip in enumerate(nic.ips):
            if ip.public is not None:
                allocated = {"ipAddress": ip.public} if ip.public else {}
                yield {"id": f"{base}{nic.name}-{n}", "properties": allocated}


def view(one: Vm) -> Row:
    """An instance view: its statuses in no promised order, and the power state not always there."""
    statuses = [{"code": "ProvisioningState/succeeded", "level": "Info"}]
    if one.power:
        statuses.insert(len(one.name) % 2, {"code": f"PowerState/{one.power}", "level": "Info"})
    found: Row = {"statuses": statuses}
    if one.health:  # no such body was recorded: as the documentation of the extension has it
        found["vmHealth"] = {"status": {"code": f"HealthState/{one.health}", "level": "Info"}}
    if one.fault_domain is not None:
        found["platformFaultDomain"] = one.fault_domain
    return found
