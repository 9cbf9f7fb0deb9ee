"""What Azure lists of each machine, for policies that ask who wants to join."""

from collections.abc import Mapping

from meshfed.catalog.records import Record
from meshfed.providers.azure.lists import Inventory, machines
from meshfed.providers.azure.machines import Address, Listed, addresses, own_tags


def records(found: Inventory, *, public: bool) -> Mapping[str, Record]:
    """By the id that Azure attests; a machine that has none yet is not told of."""
    every = (record(each, public=public) for each in machines(found))
    return {each.machine: each for each in every if each.machine}


def record(listed: Listed, *, public: bool) -> Record:
    one = listed.found
    first = next(iter(addresses(listed)), Address(""))
    # Its own tags go before its set's.
    sources = (*listed.set_tags, *own_tags(one))
    tags = {name: text for _, said in sources for name, text in said.items()}
    return Record(
        ((one.properties.vm_id if one.properties else None) or "").lower(),
        one.id,
        (one.name or "").lower(),
        listed.scale_set.rpartition("/")[2],
        "/".join(filter(None, (first.network, first.subnet))),
        first.public if public else first.private,
        tuple(sorted(tags.items())),
    )
