"""Machines of Azure join as their group, set, subnet and tags say, which Azure alone tells."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import imds
import pytest
from attesting import INTER, ROOT, Document
from cryptography.hazmat.primitives.serialization import Encoding
from joining import Ground, grounded

from meshfed.catalog.inventory import Inventory
from meshfed.catalog.reader import query
from meshfed.catalog.records import Record
from meshfed.catalog.store import Catalog
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, Vm
from meshfed.demo.arm.server import ENVIRONMENT, Server
from meshfed.demo.arm.world import World
from meshfed.federation.demo.control import until
from meshfed.federation.join.attested import Attested
from meshfed.federation.join.machine import join
from meshfed.federation.join.papers import Papers, Unjoinable
from meshfed.federation.join.policy import UNLISTED, Policy, policies
from meshfed.federation.join.secret import Secret
from meshfed.federation.settings import Refused, Settings

HOSTS = """
hosts:
  - {name: buyer, address: 127.0.56.1, bind: 127.0.56.1, identity: buyer.live}
"""
POLICY = {
    "name": "shop",
    "method": "azure-attested",
    "subscription": SUBSCRIPTION,
    "resource_groups": ["Shop"],
    "subnets": ["vnet-1/apps"],
    "tags": {"Role": "store"},
    "identity": "shop.live",
    "service": ["shop.live:8080"],
}
GENUINE = Document(subscription=SUBSCRIPTION, beside=(INTER,))


def machine(name: str, address: str, role: str, group: str = "Shop", subnet: str = "apps") -> Vm:
    nic = Nic(f"{name}-nic", [Ip(address, subnet=subnet)])
    return Vm(name, [nic], group=group, tags={"role": role})


MACHINES = [
    machine("store-1", "10.0.0.1", "store"),
    machine("web-1", "10.0.0.2", "web"),
    machine("store-2", "10.0.0.3", "store", group="Till"),
    machine("store-3", "10.0.0.4", "store", subnet="dmz"),
]


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("arm"), World(page=200))
    server.world.resources.vms = list(MACHINES)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        server.begin()
        yield server
        server.end()


@pytest.fixture(scope="module")
def ground(azure: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("inventory")
    (folder / "azure.pem").write_bytes(ROOT.public_bytes(Encoding.PEM))
    said = {"policies": [POLICY], "azure_roots": "azure.pem", "refusals": 1000}
    options = {"subscriptions": [SUBSCRIPTION], "cloud": azure.cloud, "auth": "client_secret"}
    weu = {"name": "weu", "type": "azure", "refresh": "1s", **options}
    with grounded(folder, HOSTS, "127.0.56", providers=[weu], **said) as ground:
        yield ground


def comes(ground: Ground, name: str, of: str) -> Papers:
    """A machine of this name, of which Azure attests that. Raises Unjoinable."""
    out = ground.folder / name
    server = ground.server.believed_by(Secret.parse(ground.standing).pin)
    with imds.serving(name) as metadata:
        document = replace(GENUINE, vm_id=f"ID-of-{of}")
        metadata.attests = lambda nonce: replace(document, nonce=nonce).der
        asked = {"untrusted_name": name}
        join(server, out, asked, None, [next(ground.addresses)], metadata.url)
    papers = Papers.read(out)
    assert papers is not None
    return papers


async def listed(ground: Ground, name: str) -> None:
    """Once its platform's word on it has reached the catalog."""

    async def known() -> bool:
        with closing(Catalog(ground.url)) as catalog:
            return any(each.name == name for each in (await Inventory(catalog).of("weu")).values())

    await until(f"{name} in the inventory", known)


async def test_who_a_machine_is_and_where_it_is_called_is_azures_word(
    ground: Ground, azure: Server
) -> None:
    await listed(ground, "store-3")
    await asyncio.to_thread(comes, ground, "a", "store-1")
    asked = "select addresses, services, joined_by from mesh_workloads where name = 'a'"
    assert query(ground.url, asked).rows == (("10.0.0.1", "shop.live", "policy shop"),)
    for of, why in {
        "web-1": "policy shop: its tag role is 'web', not 'store'",
        "store-2": "policy shop: its resource group is till, not shop",
        "store-3": "policy shop: its subnet is vnet-1/dmz, not vnet-1/apps",
        "store-4": f"policy shop: {UNLISTED}",
    }.items():
        with pytest.raises(Unjoinable, match="no policy lets in machine"):
            await asyncio.to_thread(comes, ground, "b", of)
        assert ground.told()[-1][1].endswith(why)
    # One that comes later, or is tagged otherwise, is what Azure says then.
    azure.world.resources.vms.append(machine("store-4", "10.0.0.5", "store"))
    await listed(ground, "store-4")
    await asyncio.to_thread(comes, ground, "b", "store-4")


def policy(**terms: object) -> Policy:
    lists = [{"name": "w", "type": "azure"}]
    made = {"join": {"policies": [{**POLICY, **terms}]}, "providers": lists}
    (found,) = policies(Settings.model_validate(made))
    return found


THIS = Attested("m", SUBSCRIPTION, "n")
RECORD = Record(
    "m",
    f"/subscriptions/{SUBSCRIPTION}/resourcegroups/shop/providers/microsoft.compute/x/y",
    scale_set="stores",
    subnet="vnet-1/apps",
    tags=(("role", "store"),),
)


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({}, ""),
        ({"scale_sets": ["Stores"]}, ""),
        ({"scale_sets": ["tills"]}, "its scale set is stores, not tills"),
        ({"resource_groups": ["a", "b"]}, "its resource group is shop, not a or b"),
        ({"tags": {"role": "store", "stage": "live"}}, "it has no tag stage"),
        ({"tags": {"role": "Store"}}, "its tag role is 'store', not 'Store'"),
        ({"vm_ids": ["00000000-0000-0000-0000-00000000000f"]}, "it is none of vm_ids"),
    ],
)
def test_the_term_that_is_not_met_is_named(terms: dict[str, object], why: str) -> None:
    assert policy(**terms).refuses(THIS, RECORD) == why


def test_what_is_asked_of_machines_somebody_must_list(tmp_path: Path) -> None:
    file = tmp_path / "meshfed.yaml"
    file.write_text("join: {policies: [" + json.dumps(POLICY) + "]}")
    with pytest.raises(Refused) as refused:
        Settings.read(file, {})
    assert "join.policies[0].resource_groups: nobody says that of machines" in str(refused.value)
