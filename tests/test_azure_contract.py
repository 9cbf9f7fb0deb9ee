"""The provider `azure` keeps every provider's promises, through Azure's own SDK and over TLS."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.network.aio import NetworkManagementClient

from meshfed.demo.arm.resources import SUBSCRIPTION, ScaleSet, vm
from meshfed.demo.arm.server import ENVIRONMENT, Server
from meshfed.demo.arm.world import Fault, World, throttled
from meshfed.providers.azure import access, lists
from meshfed.providers.azure.access import Line, credential
from meshfed.providers.azure.lists import Instances, Inventory, Reader, Refused, Unreachable, look
from meshfed.providers.azure.options import cloud
from meshfed.providers.azure.pace import Pace
from meshfed.providers.azure.provider import AzureProvider
from meshfed.providers.contract import Platform, ProviderContract
from meshfed.providers.provider import Examinable, Provider, load

STORE = "bookstore.shop:8080"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("arm"))
    one.begin()
    yield one
    one.end()


class Azure:
    """A subscription of which the tests are the operator."""

    def __init__(self, server: Server, world: World, base: Path) -> None:
        self.server, self.world, self.base = server, world, base
        self.given = server.given  # tokens, so far
        self.heard: dict[str, str] = {}
        self.world.resources.vms = [vm("vm-1", "10.0.0.1", STORE), vm("vm-2", "10.0.0.2", STORE)]

    def provider(self, **more: str) -> Provider:
        options = {
            "subscriptions": [SUBSCRIPTION],
            "cloud": self.server.cloud,
            "auth": "client_secret",
            **more,
        }
        return AzureProvider(name="weu", options=options, base=self.base, pace=Pace(0.05))

    def change(self) -> None:
        self.world.resources.vms.append(vm("vm-3", "10.0.0.3", STORE))

    def fail(self) -> None:
        self.world.faults = [Fault(403, "AuthorizationFailed")]

    def mend(self) -> None:
        self.world.faults = []


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def azure(server: Server, tmp_path: Path) -> Azure:
    return Azure(server, server.fresh(), tmp_path)


class TestAzure(ProviderContract):
    @pytest.fixture
    def platform(self, azure: Azure) -> Platform:
        return azure


def test_it_is_found_by_its_type() -> None:
    assert load("azure") is AzureProvider


@asynccontextmanager
async def reading(azure: Azure) -> AsyncIterator[Reader]:
    """Lists as the provider reads them."""
    line = Line(cloud(azure.server.cloud, azure.base), "client_secret")

    async def heard(headers: Mapping[str, str]) -> None:
        azure.heard.update(headers)

    try:
        yield Reader(line, asyncio.Semaphore(8), heard, {})
    finally:
        await line.close()


async def listed(azure: Azure, *, public: bool = False) -> Inventory:
    async with reading(azure) as reader:
        return await look(reader, SUBSCRIPTION, lambda _: True, public=public)


def fleet(azure: Azure, machines: int, uniform: int) -> None:
    resources = azure.world.resources
    resources.vms = [vm(f"vm-{n}", f"10.0.0.{n}", STORE) for n in range(machines)]
    there = [vm("0", "10.1.0.1"), vm("1", "10.1.0.2")]
    resources.sets = [ScaleSet(f"uni{n}", instances=there) for n in range(uniform)]
    resources.sets += [ScaleSet("flex", mode="Flexible"), ScaleSet("empty")]


@pytest.mark.parametrize("public", [False, True], ids=["private addresses", "public ones"])
async def test_calls_are_so_many_a_subscription_and_so_many_a_uniform_set(
    azure: Azure, public: bool
) -> None:
    """Never one a machine; and none about the instances of Flexible sets, which answers 409."""
    azure.world.page = 200
    fleet(azure, machines=20, uniform=3)
    await listed(azure, public=public)
    uniform = 3 + 1  # one is empty
    assert azure.world.total == (5 + 3 * uniform if public else 4 + 2 * uniform)
    assert azure.world.calls["virtualmachines states"] == 1


@pytest.mark.parametrize("empty_pages", [False, True], ids=["full pages", "empty ones between"])
async def test_lists_go_on_until_they_say_no_more(azure: Azure, empty_pages: bool) -> None:
    azure.world.page, azure.world.empty_pages = 3, empty_pages
    fleet(azure, machines=10, uniform=1)
    found = await listed(azure)
    assert (len(found.machines), len(found.states), len(found.nics)) == (10, 10, 11)
    assert azure.world.calls["virtualmachines"] == (8 if empty_pages else 4)


async def test_network_interfaces_of_an_empty_set_are_not_found_and_there_are_none(
    azure: Azure,
) -> None:
    fleet(azure, machines=1, uniform=0)
    (empty,) = (await listed(azure)).instances.values()
    assert empty == Instances()


async def test_azures_own_client_asks_for_the_same_lists_and_understands_them(
    azure: Azure,
) -> None:
    """Path by path and version by version; so the tests' Resource Manager is one to Azure's SDK."""
    azure.world.page = 200
    fleet(azure, machines=2, uniform=1)
    await listed(azure, public=True)
    ours = {(path.lower(), version) for path, version in azure.world.asked}
    azure.world.asked.clear()
    given = {
        "base_url": azure.server.url,
        "credential_scopes": [f"{azure.server.url}/.default"],
        "connection_verify": azure.server.cloud["ca"],
    }
    secret = credential(cloud(azure.server.cloud, azure.base), "client_secret")
    async with (
        secret,
        ComputeManagementClient(secret, SUBSCRIPTION, **given) as compute,
        NetworkManagementClient(secret, SUBSCRIPTION, **given) as network,
    ):
        vms = [each async for each in compute.virtual_machines.list_all()]
        states = [each async for each in compute.virtual_machines.list_all(status_only="true")]
        assert vms[0].network_profile.network_interfaces[0].id.endswith("/vm-0-nic")
        assert {s.code for s in states[0].instance_view.statuses} >= {"PowerState/running"}
        nics = [each async for each in network.network_interfaces.list_all()]
        assert nics[0].ip_configurations[0].private_ip_address == "10.0.0.0"
        assert [each async for each in network.public_ip_addresses.list_all()] == []
        sets = [each async for each in compute.virtual_machine_scale_sets.list_all()]
        assert [each.orchestration_mode for each in sets] == ["Uniform", "Flexible", "Uniform"]
        for one in ("uni0", "empty"):
            where = ("Rg-1", one)
            listing = compute.virtual_machine_scale_set_vms.list(*where, expand="instanceView")
            assert len([each async for each in listing]) == (2 if one == "uni0" else 0)
            of_nics = network.network_interfaces
            of_ips = network.public_ip_addresses
            for found in (
                of_nics.list_virtual_machine_scale_set_network_interfaces(*where),
                of_ips.list_virtual_machine_scale_set_public_ip_addresses(*where),
            ):
                with suppress(ResourceNotFoundError):
                    assert [each.id async for each in found] or one == "uni0"
        with pytest.raises(ResourceExistsError, match="orchestration mode flexible"):
            _ = [each async for each in compute.virtual_machine_scale_set_vms.list("Rg-1", "flex")]
    theirs = {(path.lower(), version) for path, version in azure.world.asked if "flex" not in path}
    assert ours == theirs


def role() -> list[str]:
    file = Path(__file__).parents[1] / "deploy" / "aks" / "role.json"
    actions: list[str] = json.loads(file.read_text())["Actions"]
    return actions


async def test_with_the_least_role_all_that_is_asked_is_answered(azure: Azure) -> None:
    fleet(azure, machines=2, uniform=1)
    azure.world.granted = frozenset(role())
    found = await listed(azure, public=True)
    assert [len(each.machines) for each in (found, *found.instances.values())] == [2, 2, 0]
    assert not any(each.fault for each in found.instances.values())
    assert await examined(azure, address="public") == [("all that is needed may be read", "")]


@pytest.mark.parametrize("right", role())
async def test_without_any_of_its_rights_something_is_not_and_doctor_names_the_right(
    azure: Azure, right: str
) -> None:
    fleet(azure, machines=2, uniform=1)
    azure.world.granted = frozenset(role()) - {right}
    said = [what for what, _ in await examined(azure, address="public")]
    assert any(right in each.removeprefix("403 AuthorizationFailed: needs ") for each in said)
    assert "all that is needed may be read" not in said


# Trouble


async def test_minutes_to_wait_are_told_and_not_slept(azure: Azure) -> None:
    azure.world.faults = [throttled(1200, where="networkInterfaces")]
    begun = time.monotonic()
    with pytest.raises(Refused, match="HighCostGet30Min") as caught:
        await listed(azure)
    assert caught.value.after == 1200
    assert time.monotonic() - begun < 5
    assert azure.world.calls["networkinterfaces"] == 1


async def test_a_second_to_wait_is_waited(azure: Azure) -> None:
    azure.world.faults = [throttled(1, where="networkInterfaces", times=1)]
    assert len((await listed(azure)).machines) == 2


async def test_a_refusal_without_a_time_is_not_tried_again_at_once(azure: Azure) -> None:
    azure.world.faults = [throttled()]
    with pytest.raises(Refused, match="429"):
        await listed(azure)
    assert azure.world.total <= 4


async def test_a_server_that_fails_is_tried_three_times(azure: Azure) -> None:
    azure.world.faults = [Fault(503, "ServerTimeout", where="networkInterfaces")]
    with pytest.raises(Refused, match="503 ServerTimeout"):
        await listed(azure)
    assert azure.world.calls["networkinterfaces"] == 3


async def test_a_token_is_asked_for_once_and_again_when_it_is_over(azure: Azure) -> None:
    async with reading(azure) as reader:
        for _ in range(2):
            await look(reader, SUBSCRIPTION, lambda _: True, public=False)
        assert azure.server.given == azure.given + 1


async def test_a_secret_that_is_over_is_said_and_a_new_one_is_found(azure: Azure) -> None:
    azure.server.refused = True
    async with reading(azure) as reader:
        with pytest.raises(Unreachable, match="AADSTS7000222"):
            await look(reader, SUBSCRIPTION, lambda _: True, public=False)
        assert azure.world.total == 0
        azure.server.refused = False
        assert len((await look(reader, SUBSCRIPTION, lambda _: True, public=False)).machines) == 2


async def test_a_pod_that_aks_prepared_is_its_workload_identity(
    azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text(ENVIRONMENT["AZURE_CLIENT_SECRET"])
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
    line = Line(cloud(azure.server.cloud, azure.base), "")
    try:
        path = lists.MACHINES.below(f"/subscriptions/{SUBSCRIPTION}")
        assert (await line.get(f"{azure.server.url}{path}")).status == 200
    finally:
        await line.close()


async def test_a_token_that_azure_does_not_take_is_said_and_is_not_shown_again(
    azure: Azure,
) -> None:
    azure.server.over = True
    line = Line(cloud(azure.server.cloud, azure.base), "client_secret")
    try:
        await line.get(f"{azure.server.url}/subscriptions")
        azure.server.over = True
        answer = await line.get(f"{azure.server.url}/subscriptions")
        assert (await line.get(f"{azure.server.url}/subscriptions")).status == 404  # it is no list
    finally:
        await line.close()
    assert str(lists.refusal(answer, ())) == "401 AuthenticationFailed: no token that is good"


async def test_a_credential_that_is_not_there_is_said(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    with pytest.raises(Unreachable, match="AZURE_CLIENT_SECRET is not set"):
        await listed(azure)


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("https://127.0.0.1:1", "Connect call failed"),
        ("https://management.invalid", "not known|name resolution"),
    ],
    ids=["nobody listens", "no such name"],
)
async def test_a_host_that_nobody_is_at_is_said_in_one_line(
    azure: Azure, there: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "RETRIES", 0)
    said = azure.server.cloud | {"endpoint": there, "audience": azure.server.url}
    line = Line(cloud(said, azure.base), "client_secret")
    try:
        with pytest.raises(Unreachable, match=why) as caught:
            await line.get(f"{there}/subscriptions")
    finally:
        await line.close()
    assert "\n" not in str(caught.value)


async def test_the_token_goes_nowhere_else(azure: Azure) -> None:
    azure.world.elsewhere = "https://localhost:1"
    with pytest.raises(Unreachable, match="goes on at another host, localhost:1"):
        await listed(azure)


async def examined(azure: Azure, **more: str) -> list[tuple[str, str]]:
    """What doctor is told, and what is to be done."""
    provider = azure.provider(**more)
    assert isinstance(provider, Examinable)
    return [(each.what, each.remedy) async for each in provider.examine()]


async def test_doctor_is_told_that_all_may_be_read_and_how_much_more(azure: Azure) -> None:
    fleet(azure, machines=3, uniform=2)
    azure.world.left = {"x-ms-ratelimit-remaining-subscription-reads": 200}
    assert await examined(azure) == [
        ("all that is needed may be read", ""),
        ("80% of what may be asked is left", ""),
    ]
    assert azure.world.total == 4 + 2  # a page of each, and one set


async def test_doctor_is_told_each_right_that_is_lacking(azure: Azure) -> None:
    fleet(azure, machines=1, uniform=1)
    azure.world.left = {"x-ms-ratelimit-remaining-subscription-reads": 10}
    azure.world.faults = [
        Fault(403, "AuthorizationFailed", "Microsoft.Network/networkInterfaces"),
        Fault(403, "AuthorizationFailed", "/uni0/networkInterfaces"),
    ]
    of_sets = "Microsoft.Compute/virtualMachineScaleSets/networkInterfaces/read"
    (network, sets, left) = await examined(azure)
    needs = "403 AuthorizationFailed: needs"
    assert network[0] == f"{needs} Microsoft.Network/networkInterfaces/read"
    assert sets[0] == f"{needs} {of_sets}"
    assert network[1].startswith("assign the role of deploy/aks/role.json")
    assert left[1].startswith("ask less often")


async def test_doctor_is_told_of_a_credential_once(azure: Azure) -> None:
    azure.server.refused = True
    ((what, remedy),) = await examined(azure)
    assert "AADSTS7000222" in what
    assert remedy.startswith("see `auth`")


def test_nothing_of_azures_sdk_is_loaded_before_azure_is_asked() -> None:
    script = (
        "import sys; from meshfed.providers.azure.provider import AzureProvider;"
        "print([name for name in sys.modules if name.split('.')[0] in ('azure', 'aiohttp')])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert out.stdout.strip() == b"[]"
