"""Host lists with names: what DNS and /etc/hosts say, and what counts while they are silent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dns.asyncresolver import Resolver
from listed import File, host, seeing

from meshfed.catalog.model import Evidence
from meshfed.providers.names import Names, hosts_file


@pytest.fixture
def file(tmp_path: Path) -> File:
    listed = File(tmp_path / "hosts.yaml")
    listed.replace("hosts:\n" + host("a", "10.0.0.1") + host("b", "10.0.0.2"))
    return listed


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
