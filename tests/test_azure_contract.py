"""The provider `azure` keeps every provider's promises, through Azure's own SDK and over TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from arm.resources import SUBSCRIPTION, vm
from arm.server import ENVIRONMENT, Server
from arm.world import Fault, World

from meshfed.providers.azure.pace import Pace
from meshfed.providers.azure.provider import AzureProvider
from meshfed.providers.contract import Platform, ProviderContract
from meshfed.providers.provider import Provider, load

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
        self.world.resources.vms = [vm("vm-1", "10.0.0.1", STORE), vm("vm-2", "10.0.0.2", STORE)]

    def provider(self) -> Provider:
        options = {
            "subscriptions": [SUBSCRIPTION],
            "cloud": self.server.cloud,
            "auth": "client_secret",
        }
        return AzureProvider(name="weu", options=options, base=self.base, pace=Pace(0.05))

    def change(self) -> None:
        self.world.resources.vms.append(vm("vm-3", "10.0.0.3", STORE))

    def fail(self) -> None:
        self.world.faults = [Fault(403, "AuthorizationFailed")]

    def mend(self) -> None:
        self.world.faults = []


class TestAzure(ProviderContract):
    @pytest.fixture
    def platform(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        return Azure(server, server.fresh(), tmp_path)


def test_it_is_found_by_its_type() -> None:
    assert load("azure") is AzureProvider
