"""Where replicas, proxies and the files of policies stand, and whether one may write."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy.engine import make_url

from meshfed.catalog.bearings import unwritable
from meshfed.catalog.model import (
    Identity,
    Known,
    ObjectName,
    Rejected,
    Specified,
    TcpRoute,
    Workload,
)
from meshfed.catalog.reports import ProxyState
from meshfed.catalog.store import Catalog
from meshfed.federation.cli.main import main

NOW = 1_800_000_000.0
STORE = Workload("store-1", "rack", "rack/hosts.yaml", identity=Identity("store", "shop"))


def state(**differently: object) -> ProxyState:
    assert STORE.identity is not None
    well = ProxyState(STORE.id, STORE.identity, STORE.name, NOW, envoy_version="1.40.0")
    return replace(well, **differently)


async def test_replicas_and_proxies_as_they_last_said(catalog: Catalog) -> None:
    lagging = state(state="behind", reason="late", behind=3)
    await catalog.record("r1", 4, [lagging], (), ())
    found = await catalog.bearings()
    (replica,) = found.replicas
    (proxy,) = found.proxies
    assert (replica.name, replica.evaluated) == ("r1", 4)
    assert abs(replica.seen_at - time.time()) < 60
    assert (proxy.proxy, proxy.workload, proxy.replica) == (STORE.id, "store-1", "r1")
    assert (proxy.state, proxy.reason, proxy.behind) == ("behind", "late", 3)
    assert proxy.connected_since == NOW


async def test_an_empty_catalog_has_no_past(catalog: Catalog) -> None:
    found = await catalog.bearings()
    assert (found.revision, found.committed_at, found.replicas) == (0, None, ())


async def test_the_newest_revision_and_when_it_was(catalog: Catalog) -> None:
    await catalog.configure("shop.example", permissive=False)
    found = await catalog.bearings()
    assert found.revision == 1
    assert found.committed_at is not None
    assert abs(found.committed_at - time.time()) < 60


async def test_policies_with_their_files_and_entries_that_were_left_out(catalog: Catalog) -> None:
    wrong = Rejected("hosts.yaml:7", "adress", "unknown", ("web-7", "10.0.0.7"))
    await catalog.believe(
        Known("rack", "rack/hosts.yaml", workloads=frozenset({STORE}), rejected=(wrong,)),
        kind="hosts",
        cause="",
    )
    route = TcpRoute(ObjectName("shop", "mysql"))
    await catalog.specify(Specified("files:policy", ((route, "policy/tcp.yaml:3"),)))
    found = await catalog.bearings()
    assert found.policies == {("TCPRoute", "shop/mysql"): "policy/tcp.yaml"}
    assert found.rejected == {("rack", "rack/hosts.yaml"): (wrong,)}


async def test_a_server_has_a_clock_of_its_own(catalog: Catalog, url: str) -> None:
    found = await catalog.bearings()
    if url.startswith("sqlite"):
        assert found.now is None
    else:
        assert found.now == pytest.approx(time.time(), abs=60)


async def test_whether_one_may_write_is_tried_without_a_trace(catalog: Catalog, url: str) -> None:
    before = (await catalog.bearings()).revision
    assert unwritable(url) == ""
    assert (await catalog.bearings()).revision == before


def test_a_standby_cannot_be_written(postgres_url: str) -> None:
    readonly = f"{postgres_url}&options=-c%20default_transaction_read_only%3Don"
    assert "read-only transaction" in unwritable(readonly)


@pytest.fixture
def reader(postgres_url: str) -> Iterator[str]:
    """The catalog as somebody who may only read the views."""
    owner = make_url(postgres_url)
    name = f"reader_{os.getpid()}"
    with psycopg.connect(
        owner.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    ) as admin:
        admin.execute(f"create role {name} login")
        admin.execute(f"grant meshfed_reader to {name}")
        yield owner.set(username=name).render_as_string(hide_password=False)
        admin.execute(f"drop role {name}")


@pytest.mark.parametrize("asked", ["why store.shop", "path a.shop b.shop", "wait", "doctor"])
def test_a_role_that_may_only_read_the_views_is_told_so(
    reader: str, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*asked.split(), "--catalog", reader])
    assert ended.value.code == 1
    assert "ask as the role that `serve` has" in capsys.readouterr().err
