"""Setting up a proxy from the catalog alone."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import structs

from meshfed.catalog.model import Interception, Known, Workload
from meshfed.catalog.store import Catalog
from meshfed.federation.bootstrap import Unbootstrappable, control_plane, named

Run = Callable[..., Any]  # how it ended: code, out, err, lines


def test_a_proxy_is_set_up_from_the_catalog_alone(
    meshfed: Run, shop: str, store: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHFED_MESH__TRUST_DOMAIN", "shop.example")
    ended = meshfed("proxy", "bootstrap", "store-1", "--xds", "mesh.example:15128")
    assert ended.code == 0, ended.err
    written = [Path(line) for line in ended.out.splitlines()]
    assert {path.name for path in written} >= {"envoy.yaml", "key.pem", "certificate.pem"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    envoy = (tmp_path / "store-1" / "envoy.yaml").read_text()
    assert "mesh.example" in envoy
    assert yaml.safe_load(envoy)["node"]["id"] == store.id
    assert f"--log-level warning --config-path {tmp_path}/store-1/envoy.yaml" in ended.err
    before = (tmp_path / "store-1" / "certificate.pem").read_text()
    assert meshfed("proxy", "bootstrap", "store-1").code == 0
    assert (tmp_path / "store-1" / "certificate.pem").read_text() != before


def declared(url: str, workload: Workload) -> None:
    async def tell() -> None:
        told = Known(workload.provider, workload.scope, workloads=frozenset({workload}))
        with closing(Catalog(url)) as catalog:
            await catalog.believe(told, kind="hosts", cause="test")

    asyncio.run(tell())


def test_a_grpc_application_is_set_up_as_the_catalog_says(
    meshfed: Run, shop: str, store: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared(shop, structs.replace(store, interception=Interception.GRPC))
    monkeypatch.setenv("MESHFED_MESH__TRUST_DOMAIN", "shop.example")
    monkeypatch.setenv("MESHFED_XDS__NAMES", '["mesh.example"]')
    ended = meshfed("proxy", "bootstrap", "store-1", "--grpc", "--xds", "mesh.example:15128")
    assert ended.code == 0, ended.err
    names = {Path(line).name for line in ended.out.splitlines()}
    assert names == {"grpc.json", "key.pem", "certificate.pem", "bundle.pem"}
    assert f"GRPC_XDS_BOOTSTRAP={tmp_path}/store-1/grpc.json" in ended.err
    written = json.loads((tmp_path / "store-1" / "grpc.json").read_text())
    assert written["xds_servers"][0]["server_uri"] == "mesh.example:15128"
    assert written["node"]["id"] == store.id
    # Also where nobody insists, and on this machine's own names.
    assert meshfed("proxy", "bootstrap", "store-1", "--xds", "localhost:15128").code == 0


@pytest.mark.parametrize(
    ("interception", "host", "why"),
    [
        pytest.param(
            "explicit",
            "localhost",
            "--grpc: the interception of store-1 is explicit: write `grpc` where rack/hosts.yaml"
            " says",
            id="it has a sidecar",
        ),
        pytest.param(
            "grpc",
            "mesh.example",
            "--xds: the control plane's certificate does not name mesh.example, which gRPC looks"
            " for: add it to xds.names",
            id="an unknown name of the control plane",
        ),
    ],
)
def test_a_grpc_application_that_cannot_be_set_up_is_one_line(
    meshfed: Run, shop: str, store: Workload, interception: str, host: str, why: str
) -> None:
    declared(shop, structs.replace(store, interception=Interception(interception)))
    ended = meshfed("proxy", "bootstrap", "store-1", "--grpc", "--xds", f"{host}:15128")
    assert (ended.code, ended.lines) == (1, [why])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(("store1",), "no workload store1; did you mean store-1?", id="misspelt"),
        pytest.param(
            ("store-1", "--xds", "here"), "--xds: 'here' is not host:port", id="no address"
        ),
        pytest.param(("store-1", "--out", ""), "--out: name a folder of its own", id="no folder"),
        pytest.param(("store-1", "--out", "."), "--out: name a folder of its own", id="this one"),
    ],
)
def test_a_proxy_that_cannot_be_set_up_is_one_line(
    meshfed: Run, shop: str, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    ended = meshfed("proxy", "bootstrap", *arguments)
    assert (ended.code, ended.lines) == (1, [why])
    assert not (tmp_path / "store-1").exists()


def test_two_workloads_of_one_name_are_told_apart_by_id(store: Workload) -> None:
    here, there = store, structs.replace(store, scope="rack/others.yaml")
    with pytest.raises(Unbootstrappable, match=rf"2 workloads.*{here.id} \(rack/hosts\.yaml\)"):
        named("store-1", [here, there])
    assert named(there.id, [here, there]) is there


@pytest.mark.parametrize(
    ("listen", "addresses", "found_at"),
    [
        pytest.param("10.1.1.1:15128", ("10.0.0.1",), "10.1.1.1:15128", id="one address"),
        pytest.param("0.0.0.0:15128", ("127.0.1.11",), "127.0.0.1:15128", id="on this machine"),
        pytest.param("0.0.0.0:15128", ("::1", "127.0.0.1"), "127.0.0.1:15128", id="IPv4 only"),
        pytest.param("[::]:15128", ("127.0.1.11",), "127.0.0.1:15128", id="both families"),
        pytest.param("0.0.0.0:15128", (), f"{socket.getfqdn()}:15128", id="no address: by name"),
    ],
)
def test_where_a_proxy_finds_the_control_plane(
    listen: str, addresses: tuple[str, ...], found_at: str
) -> None:
    assert control_plane(listen, addresses) == found_at


def test_a_catalog_of_an_older_version_says_what_to_do(meshfed: Run, shop: str) -> None:
    assert meshfed("migrate", "--to-revision", "0001").code == 0
    ended = meshfed("proxy", "bootstrap", "store-1")
    assert (ended.code, ended.lines) == (
        1,
        ["the catalog is new, or of an older version: run `meshfed migrate` first"],
    )
