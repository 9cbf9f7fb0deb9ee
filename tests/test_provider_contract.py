"""Every provider keeps the same promises: ours, and one from a package of its own."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from meshfed.providers.contract import Platform, ProviderContract
from meshfed.providers.hosts import HostsProvider
from meshfed.providers.provider import Provider, UnknownProvider, load

RACKDB = Path(__file__).parent / "third_party" / "rackdb"
NATIVE = """\
services:
  store.shop: {ports: {http: 8080}}
hosts:
  - {name: store-1, address: 10.0.0.1, service: store.shop, identity: store.shop}
"""


class FileOnDisk:
    """A platform that is one file; `more` is what a new endpoint adds to it."""

    def __init__(self, path: Path, text: str, more: str) -> None:
        self.path, self.text, self.more = path, text, more
        self.replace(text)

    def replace(self, text: str) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.path)

    def provider(self) -> Provider:
        return HostsProvider(name="rack", options={"path": self.path.name}, base=self.path.parent)

    def change(self) -> None:
        self.replace(self.text + self.more)

    def fail(self) -> None:
        self.path.unlink()

    def mend(self) -> None:
        self.replace(self.text)


class TestHosts(ProviderContract):
    @pytest.fixture
    def platform(self, tmp_path: Path) -> Platform:
        more = "  - {name: store-2, address: 10.0.0.2, service: store.shop, identity: store.shop}\n"
        return FileOnDisk(tmp_path / "hosts.yaml", NATIVE, more)


class TestHostsInATable(ProviderContract):
    @pytest.fixture
    def platform(self, tmp_path: Path) -> Platform:
        text = "name,address,service,port,identity\na,10.0.0.1,store.shop,80,store.shop\n"
        return FileOnDisk(tmp_path / "hosts.csv", text, "b,10.0.0.2,store.shop,80,store.shop\n")


class EmptiedFile(FileOnDisk):
    def fail(self) -> None:
        self.path.write_text("")


class TestHostsInAFileThatIsEmptied(ProviderContract):
    @pytest.fixture
    def platform(self, tmp_path: Path) -> Platform:
        more = "  - {name: store-2, address: 10.0.0.2, service: store.shop, identity: store.shop}\n"
        return EmptiedFile(tmp_path / "hosts.yaml", NATIVE, more)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed by pip as anybody would, without a network."""
    folder = tmp_path_factory.mktemp("third-party")
    source, target = copytree(RACKDB, folder / "rackdb"), folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    alone = ["--disable-pip-version-check", "--root-user-action", "ignore", "--no-build-isolation"]
    subprocess.run([*pip, *alone, "--target", target, source], check=True, cwd=folder)
    return target


@pytest.fixture
def rackdb(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Provider]]:
    monkeypatch.syspath_prepend(installed)
    importlib.invalidate_caches()
    yield load("rackdb")
    sys.modules.pop("rackdb", None)


class RackOnDisk(FileOnDisk):
    kind: type[Provider]

    def provider(self) -> Provider:
        return self.kind(name="rack", options={"path": self.path.name}, base=self.path.parent)


class TestAPackageOfItsOwn(ProviderContract):
    @pytest.fixture
    def platform(self, tmp_path: Path, rackdb: type[Provider]) -> Platform:
        line = "store-{0} 10.0.0.{0} store.shop 8080 store.shop\n".format
        platform = RackOnDisk(tmp_path / "racks.txt", line(1), line(2))
        platform.kind = rackdb
        return platform


def test_a_type_that_no_package_brings_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownProvider, match=r"type: 'rackdb' is none of .*hosts"):
        load("rackdb")
