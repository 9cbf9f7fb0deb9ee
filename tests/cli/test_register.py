"""Registering by hand, from the command line."""

import asyncio
import json
import re
import socket
from collections.abc import Callable
from contextlib import closing
from getpass import getuser
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshfed.catalog.model import Identity, Known, Port, Protocol, Service, ServiceName
from meshfed.catalog.store import Catalog
from meshfed.federation.cli import caller as callers

Run = Callable[..., Any]  # how it ended: code, out, err, lines
UNASKED = "nobody would ask for its address again: give that, or put the host in a list"
DB = ("--address", "10.0.0.9", "--service", "ledger.shop:3306", "--identity", "db.shop")


def listed(meshfed: Run, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(meshfed("get", kind, "-o", "json").out)
    return found


def test_a_workload_is_registered_as_it_is_said(meshfed: Run, url: str) -> None:
    ended = meshfed(
        "register", "db-1",
        *("--address", "10.0.0.9", "--address", "2001:DB8::9"),
        *("--service", "ledger.shop:3306", "--service", "stock.shop:80"),
        *("--identity", "db.shop", "--platform", "vm", "--locality", "onprem/rack-1"),
    )  # fmt: skip
    assert (ended.code, ended.out) == (0, "")
    assert ended.lines == ["db-1: registered, revision 1"]
    (workload,) = listed(meshfed, "workloads")
    assert (workload["name"], workload["platform"]) == ("db-1", "vm")
    assert workload["services"] == "ledger.shop, stock.shop"
    found = listed(meshfed, "endpoints")
    assert {(e["service"], e["address"], e["port"]) for e in found} == {
        ("ledger.shop", "10.0.0.9", 3306),
        ("ledger.shop", "2001:db8::9", 3306),
        ("stock.shop", "10.0.0.9", 80),
        ("stock.shop", "2001:db8::9", 80),
    }
    assert {(e["region"], e["zone"], e["identity"]) for e in found} == {
        ("onprem", "rack-1", "db.shop")
    }


def test_who_did_it_is_in_the_history(meshfed: Run, url: str) -> None:
    meshfed("register", "db-1", *DB)
    meshfed("deregister", "db-1")
    events = json.loads(meshfed("history", "db-1", "-o", "json").out)
    mine = [(e["change"], e["who"]) for e in events if e["what"] == "endpoint"]
    me = f"{getuser()}@{socket.gethostname()}"
    assert mine == [("joined", me), ("left", me)]


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(callers, "getuser", nobody)
    assert re.fullmatch(r"\d+@.+", callers.caller())


def test_the_same_again_is_unchanged_and_something_else_replaces_it(meshfed: Run, url: str) -> None:
    meshfed("register", "db-1", *DB)
    again = meshfed("register", "db-1", *DB)
    assert (again.code, again.lines) == (0, ["db-1: unchanged"])
    moved = meshfed("register", "db-1", *DB[2:], "--address", "10.0.0.10")
    assert moved.lines == ["db-1: registered, revision 2"]
    assert [e["address"] for e in listed(meshfed, "endpoints")] == ["10.0.0.10"]


def test_it_works_on_a_catalog_that_is_named(meshfed: Run, shop: str, tmp_path: Path) -> None:
    (tmp_path / "meshfed.db").rename(tmp_path / "elsewhere.db")
    there = ("--catalog", "sqlite:///elsewhere.db")
    assert meshfed("register", "db-1", *DB).code == 1
    assert meshfed("register", "db-1", *DB, *there).code == 0
    assert meshfed("deregister", "db-1", *there).code == 0


def test_a_name_that_another_provider_has_is_one_line(meshfed: Run, shop: str) -> None:
    taken = meshfed("register", "store-1", *DB)
    why = "store-1 is a workload of rack/hosts.yaml already: register it by another name"
    assert (taken.code, taken.lines) == (1, [why])
    gone = meshfed("deregister", "store-1")
    why = "store-1 was not registered: rack/hosts.yaml has it, so take it out there"
    assert (gone.code, gone.lines) == (1, [why])


def test_what_is_not_registered_cannot_be_deregistered(meshfed: Run, url: str) -> None:
    ended = meshfed("deregister", "db-1")
    assert (ended.code, ended.lines) == (1, ["no workload db-1 is registered"])
    meshfed("register", "db-1", *DB)
    assert meshfed("deregister", "db1").lines == [
        "no workload db1 is registered; did you mean db-1?"
    ]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        pytest.param(
            ("--address", "224.0.0.1", "--identity", "db.shop"),
            ["--address: 224.0.0.1 is a multicast address: nothing can connect to it"],
            id="no address",
        ),
        pytest.param(
            ("--address", "db.corp", "--identity", "db.shop"),
            [f"--address: 'db.corp' is a DNS name: {UNASKED}"],
            id="a DNS name",
        ),
        pytest.param(
            ("--address", "10.0.0.9"),
            ["--identity: missing: interception explicit needs one; or say `none` there"],
            id="nobody, as in host lists",
        ),
        pytest.param(
            (*DB, "--service", "ledger:80", "--service", "a.b:0", "--service", "a.b"),
            ["--service: 'ledger' is not <name>.<namespace>",
             "--service: 0 is neither a port number (1-65535) nor the name of a port",
             "--service: 'a.b' is not <name>.<namespace>:<port>"],
            id="each of several services",
        ),
        pytest.param(
            (*DB, "--service", "books.shop:web"),
            ["--service: 'web' is the name of none: nobody declares books.shop, so give a number"],
            id="the name of a port of a service that nobody declares",
        ),
        pytest.param(
            (*DB, "--service", "bookstore.shop:9090"),
            ["--service: 9090 is no port of bookstore.shop, which has http 8080"],
            id="a port that the service has not",
        ),
        pytest.param(
            (*DB, "--platform", "pod", "--locality", "a/b/c", "--interception", "iptables"),
            ["--interception: 'iptables' is none of 'transparent', 'explicit', 'grpc', 'none'",
             "--platform: 'pod' is none of 'host', 'vm'",
             "--locality: 'a/b/c' is not <region> or <region>/<zone>"],
            id="three mistakes",
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_a_line_and_nothing_is_written(
    meshfed: Run, shop: str, arguments: tuple[str, ...], lines: list[str]
) -> None:
    ended = meshfed("register", "db-1", *arguments)
    assert (ended.code, ended.lines) == (1, lines)
    assert "db-1" not in meshfed("get", "workloads").out


def test_a_name_that_is_none_is_refused(meshfed: Run, url: str) -> None:
    ended = meshfed("register", "db/1", *DB)
    assert (ended.code, ended.lines) == (
        1, ["NAME: 'db/1' is not a name: letters, digits and - inside"]
    )  # fmt: skip


def test_without_an_address_it_is_usage(meshfed: Run, url: str) -> None:
    assert meshfed("register", "db-1", "--identity", "db.shop").code == 2


def test_a_workload_without_a_sidecar_needs_no_identity(meshfed: Run, url: str) -> None:
    bare = ("--address", "10.0.0.9", "--service", "ledger.shop:3306", "--interception", "none")
    assert meshfed("register", "db-1", *bare).code == 0
    (endpoint,) = listed(meshfed, "endpoints")
    assert (endpoint["mtls"], endpoint["reached_at"]) == (False, "10.0.0.9:3306")


def test_a_workload_that_only_calls_serves_nothing(meshfed: Run, url: str) -> None:
    assert meshfed("register", "me", "--address", "10.0.0.9", "--identity", "me.shop").code == 0
    (workload,) = listed(meshfed, "workloads")
    assert (workload["identity"], workload["services"]) == ("me.shop", "")


def declare(url: str, service: Service) -> None:
    async def believed() -> None:
        with closing(Catalog(url)) as catalog:
            known = Known("rack", "rack/services.yaml", frozenset({service}))
            await catalog.believe(known, kind="hosts", cause="test")

    asyncio.run(believed())


@pytest.mark.parametrize("port", ["3306", "13306", "mysql"])
def test_a_port_is_the_number_the_target_or_the_name_that_the_service_has(
    meshfed: Run, url: str, port: str
) -> None:
    mysql = Port(3306, "mysql", Protocol.TCP, target=13306)
    declare(url, Service(ServiceName("ledger", "shop"), (mysql,)))
    who = ("--address", "10.0.0.9", "--identity", "db.shop")
    assert meshfed("register", "db-1", *who, "--service", f"ledger.shop:{port}").code == 0
    (endpoint,) = listed(meshfed, "endpoints")
    assert endpoint["port"] == 13306
    (service,) = listed(meshfed, "services")
    assert (service["ports"], service["protocol"]) == ("3306/mysql", "tcp")


def test_its_proxy_is_set_up_as_any_other(meshfed: Run, url: str, tmp_path: Path) -> None:
    meshfed("register", "db-1", *DB)
    ended = meshfed("proxy", "bootstrap", "db-1", "--xds", "mesh.example:15128")
    assert ended.code == 0, ended.err
    envoy = yaml.safe_load((tmp_path / "db-1" / "envoy.yaml").read_text())

    async def workloads() -> dict[str, Identity | None]:
        with closing(Catalog(url)) as catalog:
            mesh = await catalog.read()
            return {key: workload.identity for key, workload in mesh.workloads.items()}

    assert asyncio.run(workloads()) == {envoy["node"]["id"]: Identity("db", "shop")}


def test_a_catalog_that_lacks_its_tables_is_one_line(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "meshfed.db").touch()
    ended = meshfed("register", "db-1", *DB)
    assert ended.code == 1
    (line,) = ended.lines
    assert "meshfed migrate" in line


def test_no_provider_takes_the_name_of_what_is_registered(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("hosts: []\n")
    (tmp_path / "meshfed.yaml").write_text(
        "providers: [{name: registered, type: hosts, path: hosts.yaml}]\n"
    )
    ended = meshfed("get", "services")
    why = "'registered' is what `meshfed register` makes known: choose another"
    assert (ended.code, ended.lines) == (1, [f"meshfed.yaml:1: providers[0].name: {why}"])
