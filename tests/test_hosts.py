"""Host lists: what they may say, and what of them is believed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from listed import host

from meshfed.catalog.document import Unreadable
from meshfed.catalog.model import (
    Endpoint,
    Evidence,
    Identity,
    Interception,
    Locality,
    Observation,
    Platform,
    Port,
    Protocol,
    ServiceName,
    Workload,
)
from meshfed.providers import hostfile
from meshfed.providers.hostfile import check
from meshfed.providers.hostlist import schema
from meshfed.providers.hosts import HostsProvider
from meshfed.providers.listing import MOST_NAMES

HERE = Path(__file__).parent
BROKEN = HERE / "broken" / "hosts"
EXPECTED = (BROKEN / "expected.txt").read_text().splitlines()
ROOT = HERE.parent


def one(text: str, file: str = "hosts.yaml") -> tuple[Endpoint, Workload]:
    """The endpoint and the workload of a list that has one of each."""
    seen = sound(text, file)
    (endpoint,), (workload,) = seen.endpoints, seen.workloads
    return endpoint, workload


def sound(text: str, file: str = "hosts.yaml") -> Observation:
    seen = check(text, file, provider="rack")
    assert not seen.fault
    assert not seen.rejected
    return seen


def keys(seen: Observation) -> set[tuple[str, int, str, int]]:
    return {endpoint.key for endpoint in seen.endpoints}


# What a list says.


def test_the_native_format_says_everything() -> None:
    seen = sound("""
services:
  bookstore.shop: {ports: {http: 8080}, protocol: http}
  ledger.shop:    {ports: {mysql: {number: 3306, protocol: tcp, local: 13306}}}
hosts:
  - {name: store-1, address: 127.0.1.11, service: bookstore-v1.shop, port: 8080,
     identity: bookstore-v1.shop, locality: onprem/rack-1, weight: 3, labels: {version: v1},
     interception: explicit, bind: 127.0.1.11, application: 127.0.1.12, network: dmz, platform: vm,
     cluster: blue}
""")
    scope = "rack/hosts.yaml"
    workload = Workload(
        "store-1",
        "rack",
        scope,
        Platform.VM,
        Identity("bookstore-v1", "shop"),
        ("127.0.1.11",),
        Interception.EXPLICIT,
        "127.0.1.11",
        "127.0.1.12",
        "dmz",
        Locality("onprem", "rack-1"),
        (("version", "v1"),),
        cluster="blue",
    )
    assert seen.scope == scope
    assert seen.evidence is Evidence.STATED
    assert seen.workloads == {workload}
    assert seen.endpoints == {
        Endpoint(
            ServiceName("bookstore-v1", "shop"),
            8080,
            "127.0.1.11",
            8080,
            workload.id,
            "rack",
            scope,
            Platform.VM,
            workload.identity,
            Interception.EXPLICIT,
            workload.locality,
            3,
            cluster="blue",
            network="dmz",
        )
    }
    assert {str(service.name): service.ports for service in seen.services} == {
        "bookstore.shop": (Port(8080, "http"),),
        "ledger.shop": (Port(3306, "mysql", Protocol.TCP, local=13306),),
        "bookstore-v1.shop": (Port(8080, "http-8080"),),
    }


SAME = [
    pytest.param(
        "hosts.yaml",
        """
hosts:
  - {name: store-1, address: 10.0.0.1, service: store.shop, port: 80, identity: store.shop,
     locality: eu/a, weight: 2, interception: transparent, labels: {env: prod}}
""",
        id="native",
    ),
    pytest.param(
        "targets.json",
        """[
\t{"targets": ["10.0.0.1:80"],
\t "labels": {"service": "store.shop", "identity": "store.shop", "name": "store-1", "weight": "2",
\t            "locality": "eu/a", "interception": "transparent", "env": "prod", "__meta_x": "1"}},
\t{"targets": ["10.0.0.7:9100"], "labels": {"job": "node"}}
]""",
        id="Prometheus, in JSON with tabs",
    ),
    pytest.param(
        "targets.yml",
        """
- targets: ["10.0.0.1:80"]
  labels: {meshfed_service: store.shop, meshfed_identity: store.shop, meshfed_name: store-1,
           meshfed_weight: "2", meshfed_locality: eu/a, meshfed_interception: transparent,
           env: prod}
""",
        id="Prometheus, in YAML with our prefix",
    ),
    pytest.param(
        "inventory.json",
        """{"all": {"children": ["ungrouped"]}, "_meta": {"hostvars": {
  "jump": {"ansible_host": "10.0.0.9"},
  "store-1": {"ansible_host": "10.0.0.1", "ansible_user": "root", "meshfed_service": "store.shop",
    "meshfed_port": "80", "meshfed_identity": "store.shop", "meshfed_locality": "eu/a",
    "meshfed_weight": 2, "meshfed_interception": "transparent", "meshfed_labels": {"env": "prod"}}
}}}""",
        id="Ansible",
    ),
    pytest.param(
        "hosts.csv",
        "Name,address,service,port,identity,locality,weight,interception,labels,bind\r\n"
        '"store-1",10.0.0.1,store.shop,80,store.shop,eu/a,2,transparent,env=prod,\r\n\r\n',
        id="CSV",
    ),
    pytest.param(
        "hosts.txt",
        "name;address;service;port;identity;locality;weight;interception;labels\n"
        "store-1;10.0.0.1;store.shop;80;store.shop;eu/a;2;transparent;env=prod\n",
        id="CSV, as a German spreadsheet writes it",
    ),
]


@pytest.mark.parametrize(("file", "text"), SAME)
def test_every_format_says_the_same(file: str, text: str) -> None:
    endpoint, workload = one(text, file)
    assert endpoint.key == ("store.shop", 80, "10.0.0.1", 80)
    assert endpoint.weight == 2
    assert workload.name == "store-1"
    assert workload.identity == Identity("store", "shop")
    assert workload.locality == Locality("eu", "a")
    assert workload.interception is Interception.TRANSPARENT
    assert workload.labels == (("env", "prod"),)
    assert endpoint.workload == workload.id


def test_a_format_that_is_named_is_not_guessed() -> None:
    assert "not a Prometheus file_sd" in check("hosts: []\n", "f", kind="prometheus").fault
    assert "no _meta.hostvars" in check("hosts: []\n", "f", kind="ansible").fault
    assert "hosts: []: unknown column" in check("hosts: []\n", "f", kind="csv").fault


PORTS = "services:\n  s.n: {ports: {web: {number: 80, target: 8080}, admin: 9000}}\nhosts:\n"


@pytest.mark.parametrize(
    ("port", "serves"),
    [
        pytest.param("", {(80, 8080), (9000, 9000)}, id="without a port: all of them"),
        pytest.param("port: 8080", {(80, 8080)}, id="by the application's port"),
        pytest.param("port: 80", {(80, 8080)}, id="by the service's port"),
        pytest.param("port: admin", {(9000, 9000)}, id="by the port's name"),
    ],
)
def test_a_host_serves_a_port(port: str, serves: set[tuple[int, int]]) -> None:
    seen = sound(f"{PORTS}  - {{name: a, address: 10.0.0.1, service: s.n, identity: a.n, {port}}}")
    assert {(e.port, e.target) for e in seen.endpoints} == serves


def test_the_same_name_again_is_the_same_host() -> None:
    seen = sound("""
hosts:
  - {name: a, address: 10.0.0.1, service: one.n, port: 80}
  - {name: a, address: 10.0.0.1, service: [two.n, three.n], port: 81, identity: a.n, bind: 10.0.0.1}
""")
    (workload,) = seen.workloads
    assert workload.identity == Identity("a", "n")
    assert workload.bind == "10.0.0.1"
    assert {str(e.service) for e in seen.endpoints} == {"one.n", "two.n", "three.n"}
    assert {e.identity for e in seen.endpoints} == {workload.identity}


def test_a_host_that_only_calls_is_a_workload_without_endpoints() -> None:
    seen = sound("hosts: [{name: buyer, address: 10.0.0.1, identity: buyer.shop}]")
    assert [w.name for w in seen.workloads] == ["buyer"]
    assert not seen.endpoints


@pytest.mark.parametrize(
    ("said", "address", "bind"),
    [
        pytest.param('"2001:DB8:0::7"', "2001:db8::7", "::", id="IPv6, in its shortest form"),
        pytest.param("10.0.0.1", "10.0.0.1", "0.0.0.0", id="IPv4"),
        pytest.param('"::ffff:10.0.0.1"', "10.0.0.1", "0.0.0.0", id="IPv4, written as IPv6"),
    ],
)
def test_a_sidecar_listens_everywhere_in_its_family(said: str, address: str, bind: str) -> None:
    endpoint, workload = one("hosts:\n" + host("a", said))
    assert endpoint.address == address
    assert workload.bind == bind
    assert workload.application == "127.0.0.1"


def test_a_list_of_services_alone_declares_them() -> None:
    seen = sound("services: {db.n: {ports: {sql: {number: 5432, protocol: tcp}}}}")
    assert [str(service.name) for service in seen.services] == ["db.n"]


# What is wrong with a list.


def verdict(file: Path) -> Observation:
    try:
        return check(hostfile.read(file, file.name), file.name)
    except Unreadable as unreadable:
        return Observation(file.name, evidence=Evidence.FAULT, fault=str(unreadable.rejected))


@pytest.mark.parametrize("line", EXPECTED, ids=lambda line: line.partition(":")[0])
def test_a_broken_list_is_one_line_and_its_healthy_rest_stands(line: str) -> None:
    seen = verdict(BROKEN / line.partition(":")[0])
    if seen.evidence is Evidence.FAULT:
        assert (seen.fault, seen.rejected) == (line, ())
        assert not seen.endpoints
    else:
        assert [str(rejected) for rejected in seen.rejected] == [line]
        assert ("well.shop", 80, "10.0.0.9", 80) in keys(seen) or "services." in line
        assert seen.evidence is Evidence.LISTED


def test_every_broken_list_is_expected() -> None:
    assert {line.partition(":")[0] for line in EXPECTED} | {"expected.txt"} == {
        file.name for file in BROKEN.iterdir()
    }


def test_a_list_without_a_sound_host_is_not_believed_at_all() -> None:
    seen = check("hosts:\n  - {name: a, adress: 10.0.0.1}\n  - {name: b, adress: x}\n", "h.yaml")
    assert seen.evidence is Evidence.FAULT
    assert "not one of its hosts is sound" in seen.fault
    assert len(seen.rejected) == 2


def test_a_faulty_service_says_how_many_hosts_it_takes_with_it() -> None:
    text = "services: {store.shop: {ports: {}}}\nhosts:\n" + host("a", "10.0.0.1")
    text += host("b", "10.0.0.2") + "  - {name: c, address: 10.0.0.3, identity: c.shop}\n"
    seen = check(text, "h.yaml")
    (rejected,) = seen.rejected
    assert str(rejected) == (
        "h.yaml:1: services.store.shop.ports: empty: name at least one"
        " (its 2 hosts are left out with it)"
    )
    assert not seen.endpoints


def test_a_faulty_service_is_about_no_more_of_its_hosts_than_fit_into_a_row() -> None:
    text = "services: {store.shop: {ports: {}}}\nhosts:\n"
    text += "".join(host(f"h{n}", f"10.0.{n >> 8}.{n & 255}") for n in range(MOST_NAMES))
    (rejected,) = check(text, "h.yaml").rejected
    assert f"its {MOST_NAMES} hosts are left out" in rejected.why
    assert len(rejected.about) == MOST_NAMES
    assert {"store.shop", "h0", "10.0.0.0"} < {*rejected.about}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param({}, "path: missing", id="no path"),
        pytest.param({"path": "a", "fromat": "csv"}, "fromat: unknown.*format", id="a misspelling"),
        pytest.param({"path": "a", "format": "xml"}, "format: 'xml' is none of", id="no format"),
        pytest.param({"path": 3}, "path: ", id="a path that is none"),
    ],
)
def test_wrong_options_are_refused(options: Mapping[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        HostsProvider(name="rack", options=options, base=Path())


def test_the_schema_that_ships_is_the_one_that_is_meant() -> None:
    shipped = json.loads((ROOT / "providers" / "hosts.schema.json").read_text())
    assert shipped == schema(), "python -m meshfed.providers.hostlist > providers/hosts.schema.json"


def test_the_examples_of_the_documentation_are_sound() -> None:
    page = (ROOT / "docs" / "hosts.md").read_text()
    examples = re.findall(r"```(yaml|json|csv)\n(.*?)```", page, re.DOTALL)
    lists = [text for _, text in examples if not text.startswith("providers:")]
    assert len(lists) == 5
    for text in lists:
        assert sound(text, "docs.md").workloads
