"""An inventory of resources, as it would be listed."""

from collections.abc import Iterable

import msgspec

from meshfed.demo.arm.resources import Resources, Row
from meshfed.providers.azure import objects
from meshfed.providers.azure.lists import Instances, Inventory, T
from meshfed.providers.azure.machines import lowered


def inventory(resources: Resources) -> Inventory:
    return Inventory(
        kept(resources.machine_rows(), objects.Machine),
        kept(resources.state_rows(), objects.Machine),
        kept(resources.nic_rows(), objects.Nic),
        kept(resources.public_rows(), objects.PublicAddress),
        kept(resources.set_rows(), objects.ScaleSet),
        {
            lowered(resources.set_id(one)): Instances(
                kept(resources.instance_rows(one, expanded=True), objects.Machine),
                kept(resources.set_nic_rows(one), objects.Nic),
                kept(resources.set_public_rows(one), objects.PublicAddress),
            )
            for one in resources.sets
            if one.mode != "Flexible"
        },
    )


def kept(rows: Iterable[Row], kind: type[T]) -> tuple[T, ...]:
    return tuple(msgspec.convert(row, kind) for row in rows)
