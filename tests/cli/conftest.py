"""Runs commands in an empty folder, over real catalogs."""

import asyncio
import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.reports import ProxyState, Receipt
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.cli.main import main

SCOPE = "rack/hosts.yaml"
BOOKSTORE = ServiceName("bookstore", "shop")
STORE = Identity("bookstore", "shop")


def workload(name: str, address: str) -> Workload:
    return Workload(name, "rack", SCOPE, identity=STORE, addresses=(address,))


def endpoint(of: Workload) -> Endpoint:
    (address,) = of.addresses
    return Endpoint(BOOKSTORE, 8080, address, 8080, of.id, "rack", of.scope, identity=of.identity)


def known(*workloads: Workload) -> Known:
    return Known(
        "rack",
        SCOPE,
        frozenset({Service(BOOKSTORE, (Port(8080, "http"),))}),
        frozenset(workloads),
        frozenset(map(endpoint, workloads)),
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Run = Callable[..., Ended]


@pytest.fixture
def meshfed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command in an empty folder, with nothing in the environment."""
    for name in [name for name in os.environ if name.startswith("MESHFED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog as a first migration leaves it; migrating once is enough."""
    path = tmp_path_factory.mktemp("catalog") / "meshfed.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def url(new: Path, tmp_path: Path) -> str:
    """A new catalog, where commands look for it without being told."""
    return f"sqlite:///{shutil.copy(new, tmp_path / 'meshfed.db')}"


@pytest.fixture
def store() -> Workload:
    """One of the two that the shop knows."""
    return workload("store-1", "10.0.0.1")


@pytest.fixture
def shop(url: str, store: Workload) -> str:
    """A catalog that knows two stores."""

    async def fill() -> None:
        with closing(Catalog(url)) as catalog:
            await catalog.configure("shop.example", permissive=False)
            both = known(store, workload("store-2", "10.0.0.2"))
            await catalog.believe(both, kind="hosts", cause="test")

    asyncio.run(fill())
    return url


@pytest.fixture
def one_leaves(shop: str, store: Workload) -> Callable[[], None]:
    """Takes the other store away."""

    async def leave() -> None:
        with closing(Catalog(shop)) as catalog:
            await catalog.believe(known(store), kind="hosts", cause="one left")

    return lambda: asyncio.run(leave())


@pytest.fixture
def connect(shop: str, store: Workload) -> Callable[..., None]:
    """Connects the store's proxy, in some state and with what it has answered."""

    def connected(*receipts: Receipt, **state: object) -> None:
        asyncio.run(record(receipts, state))

    async def record(receipts: tuple[Receipt, ...], state: dict[str, object]) -> None:
        proxy = ProxyState(store.id, STORE, store.name, time.time(), **state)  # type: ignore[arg-type]
        with closing(Catalog(shop)) as catalog:
            await catalog.record("replica-1", 2, [proxy], (), receipts)

    return connected
