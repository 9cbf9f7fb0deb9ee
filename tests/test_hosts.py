"""Host lists: what they may say, how they change, and what of them is believed."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dns.asyncresolver import Resolver

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
from meshfed.providers.names import Names, hosts_file

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


def host(name: str, address: str, more: str = "") -> str:
    said = f"name: {name}, address: {address}, service: store.shop, port: 80, identity: store.shop"
    return f"  - {{{said}{more}}}\n"


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


# How a list changes.


class File:
    """A host list on disk, and the ways in which people write it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def replace(self, text: str) -> None:
        beside = self.path.with_name("new")
        beside.write_text(text)
        beside.replace(self.path)

    def provider(self, names: Names | None = None) -> HostsProvider:
        options = {"path": self.path.name}
        return HostsProvider(name="rack", options=options, base=self.path.parent, names=names)


@pytest.fixture
def file(tmp_path: Path) -> File:
    listed = File(tmp_path / "hosts.yaml")
    listed.replace("hosts:\n" + host("a", "10.0.0.1") + host("b", "10.0.0.2"))
    return listed


class Seeing:
    def __init__(self, observations: AsyncIterator[Observation]) -> None:
        self._observations = observations

    async def next(self) -> Observation:
        async with asyncio.timeout(10):
            return await anext(self._observations)

    async def until(self, addresses: set[str]) -> Observation:
        while True:
            seen = await self.next()
            if {endpoint.address for endpoint in seen.endpoints} == addresses:
                return seen


@asynccontextmanager
async def seeing(provider: HostsProvider) -> AsyncIterator[Seeing]:
    async with aclosing(provider.observe()) as observations:
        yield Seeing(observations)


async def test_an_entry_taken_out_is_stated(file: File) -> None:
    async with seeing(file.provider()) as seen:
        await seen.until({"10.0.0.1", "10.0.0.2"})
        file.replace("hosts:\n" + host("a", "10.0.0.1"))
        assert (await seen.next()).evidence is Evidence.STATED


async def test_a_file_written_in_place_is_read_when_it_rests(file: File) -> None:
    async with seeing(file.provider()) as seen:
        await seen.next()
        with file.path.open("w") as writing:
            for number in range(1, 6):
                writing.write("hosts:\n" if number == 1 else "")
                writing.write(host(f"h{number}", f"10.0.1.{number}"))
                writing.flush()
                await asyncio.sleep(0.01)  # a slow writer, not a wait
        assert len((await seen.next()).endpoints) == 5


async def test_hosts_missing_from_a_file_that_ends_within_a_line_are_in_doubt(file: File) -> None:
    text = "hosts:\n  - {name: a, address: 10.0.0.1, service: s.n, port: 80, identity: a.n}\n"
    block = "  - name: b\n    address: 10.0.0.2\n    identity: b.n\n    weight: 10\n"
    file.replace(text + block + "  - {name: c, address: 10.0.0.3, identity: c.n}\n")
    async with seeing(file.provider()) as seen:
        await seen.next()
        file.replace((text + block).removesuffix("0\n"))  # a full disk: `weight: 1`, and no c
        short = await seen.next()
        assert short.evidence is Evidence.LISTED
        assert short.fault == "hosts.yaml:6: the file ends in the middle of a line: end the line"
        file.replace(text + block)
        assert (await seen.next()).fault == ""


async def test_links_swapped_as_for_a_config_map_are_seen(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        (folder / "hosts.yaml").write_text("hosts:\n" + host("a", f"10.0.0.{version}"))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "hosts.yaml").symlink_to("..data/hosts.yaml")
    async with seeing(File(tmp_path / "hosts.yaml").provider()) as seen:
        await seen.until({"10.0.0.1"})
        for version in (2, 3):
            (tmp_path / "..data_tmp").symlink_to(f"..{version}")
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
            await seen.until({f"10.0.0.{version}"})


async def test_a_file_behind_a_link_is_watched_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = File(tmp_path / "real" / "list.yaml")
    real.replace("hosts:\n" + host("a", "10.0.0.1"))
    (tmp_path / "hosts.yaml").symlink_to(real.path)
    async with seeing(File(tmp_path / "hosts.yaml").provider()) as seen:
        await seen.until({"10.0.0.1"})
        real.replace("hosts:\n" + host("a", "10.0.0.2"))
        await seen.until({"10.0.0.2"})


async def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    late = File(tmp_path / "late" / "hosts.yaml")
    async with seeing(late.provider()) as seen:
        assert "No such file" in (await seen.next()).fault
        late.path.parent.mkdir()
        late.replace("hosts:\n" + host("a", "10.0.0.1"))
        await seen.until({"10.0.0.1"})


async def test_a_path_that_cannot_even_be_looked_at_is_a_fault(tmp_path: Path) -> None:
    unlikely = tmp_path / ("x" * 300) / "hosts.yaml"  # as root is not refused a look into a folder
    async with seeing(File(unlikely).provider()) as seen:
        assert "File name too long" in (await seen.next()).fault


async def test_a_neighbour_whose_name_is_not_text_does_no_harm(file: File) -> None:
    async with seeing(file.provider()) as seen:
        await seen.next()
        file.path.with_name(os.fsdecode(b"caf\xe9")).write_text("")
        file.replace("hosts:\n" + host("a", "10.0.0.3"))
        await seen.until({"10.0.0.3"})


async def test_a_link_to_itself_is_a_fault_until_it_is_a_file(tmp_path: Path) -> None:
    circular = File(tmp_path / "hosts.yaml")
    circular.path.symlink_to("hosts.yaml")
    async with seeing(circular.provider()) as seen:
        assert "Too many levels" in (await seen.next()).fault
        circular.replace("hosts:\n" + host("a", "10.0.0.1"))
        await seen.until({"10.0.0.1"})


async def test_a_path_that_is_a_folder_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").mkdir()
    async with seeing(File(tmp_path / "hosts.yaml").provider()) as seen:
        assert (await seen.next()).fault.startswith("hosts.yaml:1: not a file")


# Names.


class Nameserver(asyncio.DatagramProtocol):
    """A DNS server on loopback; when mute, it does not answer."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.ttl = 1
        self.mute = False
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        (asked,) = question.question
        name = asked.name.to_text().removesuffix(".")
        self.asked.append(name)
        if self.mute:
            return
        answer = dns.message.make_response(question)
        kind = "AAAA" if asked.rdtype == dns.rdatatype.AAAA else "A"
        found = [a for a in self.addresses.get(name, []) if (":" in a) is (kind == "AAAA")]
        if found:
            answer.answer.append(dns.rrset.from_text(asked.name, self.ttl, "IN", kind, *found))
        elif name not in self.addresses:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)

    def resolver(self) -> Resolver:
        resolver = Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self.transport.get_extra_info("sockname")[1]
        resolver.timeout = 0.2
        return resolver


@pytest.fixture
async def nameserver() -> AsyncIterator[Nameserver]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(Nameserver, local_addr=("127.0.0.1", 0))
    yield server
    transport.close()


@pytest.fixture
def names(nameserver: Nameserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setattr("meshfed.providers.names.PATIENCE", 0.4)
    monkeypatch.setattr("meshfed.providers.names.AGAIN", 0.2)
    (tmp_path / "etc-hosts").write_text("10.0.9.9 \t pinned.corp  alias # why\n\n# nothing\n")
    return Names(nameserver.resolver, tmp_path / "etc-hosts")


async def test_every_address_of_a_name_is_an_endpoint_until_its_time_is_over(
    file: File, nameserver: Nameserver, names: Names
) -> None:
    nameserver.addresses["db.corp"] = ["10.0.1.1", "10.0.1.2", "2001:db8::1"]
    file.replace("hosts:\n" + host("db", "DB.corp.") + host("pin", "pinned.corp"))
    async with seeing(file.provider(names)) as seen:
        first = await seen.until({"10.0.1.1", "10.0.1.2", "10.0.9.9"})
        assert len(first.workloads) == 2
        assert first.evidence is Evidence.STATED
        assert "pinned.corp" not in nameserver.asked
        nameserver.addresses["db.corp"] = ["2001:db8::2"]
        await seen.until({"2001:db8::2", "10.0.9.9"})


async def test_the_last_answer_is_kept_while_dns_is_silent(
    file: File, nameserver: Nameserver, names: Names
) -> None:
    nameserver.addresses["db.corp"] = ["10.0.1.1"]
    file.replace("hosts:\n" + host("db", "db.corp") + host("c", "10.0.0.3"))
    async with seeing(file.provider(names)) as seen:
        await seen.next()
        nameserver.mute = True
        silent = await seen.until({"10.0.1.1", "10.0.0.3"})
        assert silent.fault == "db.corp: DNS does not answer (LifetimeTimeout)"
        assert silent.evidence is Evidence.STATED
        file.replace("hosts:\n" + host("db", "db.corp"))
        await seen.until({"10.0.1.1"})
        nameserver.mute = False
        assert (await seen.next()).fault == ""


async def test_a_name_that_nobody_knows_is_left_out_and_asked_again(
    file: File, nameserver: Nameserver, names: Names
) -> None:
    file.replace("hosts:\n" + host("db", "db.corp") + host("c", "10.0.0.3"))
    async with seeing(file.provider(names)) as seen:
        first = await seen.until({"10.0.0.3"})
        (rejected,) = first.rejected
        assert str(rejected) == (
            "hosts.yaml:2: hosts[0].address: db.corp: there is no such name; "
            "it is asked for again by itself: correct the name, or DNS"
        )
        assert first.evidence is Evidence.LISTED
        nameserver.addresses["db.corp"] = ["10.0.1.1"]
        assert not (await seen.until({"10.0.0.3", "10.0.1.1"})).rejected


def test_etc_hosts_prefers_ipv4_and_forgets_remarks() -> None:
    assert hosts_file("::1 Local\n127.0.0.1 local # home\n# 1.2.3.4 other\n::2 six\n") == {
        "local": ("127.0.0.1",),
        "six": ("::2",),
    }


def test_etc_hosts_is_asked_only_for_what_callers_can_connect_to() -> None:
    text = "fe80::1%eth0 zone\nnonsense word\n0.0.0.0 blocked\nff02::1 all\n2001:DB8:0:0::1 long\n"
    assert hosts_file(text) == {"long": ("2001:db8::1",)}


async def test_an_answer_that_nobody_can_connect_to_is_none(
    file: File, nameserver: Nameserver, names: Names
) -> None:
    nameserver.addresses["db.corp"] = ["0.0.0.0"]
    file.replace("hosts:\n" + host("db", "db.corp") + host("c", "10.0.0.3"))
    async with seeing(file.provider(names)) as seen:
        (rejected,) = (await seen.until({"10.0.0.3"})).rejected
    assert "db.corp: the name has no address that can be connected to" in str(rejected)


async def test_a_machine_whose_resolver_is_misconfigured_has_no_dns(tmp_path: Path) -> None:
    configuration = tmp_path / "resolv.conf"
    configuration.write_text("nameserver of-my-own\n")
    names = Names(lambda: Resolver(str(configuration)), tmp_path / "etc-hosts")
    answers = await names.answers(frozenset({"db.corp"}))
    assert answers["db.corp"].fault == "no DNS server is configured"
