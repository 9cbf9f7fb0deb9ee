"""Hosts without an agent: the control plane asks them whether they are well."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, closing
from pathlib import Path

import pytest
from applications import listening, read_request
from prometheus_client import CollectorRegistry

from meshfed.catalog.model import Evidence, Health, Observation
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.demo.folder import free_ports, replace
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence
from meshfed.providers import asking, probing
from meshfed.providers.asking import SILENT
from meshfed.providers.hostfile import check
from meshfed.providers.hosts import HostsProvider
from meshfed.providers.hysteresis import DOWN, UP, Verdict
from meshfed.providers.probe import Probe
from meshfed.providers.probing import Believed, Held, Probing, Target, believed, recalled

HERE, DEAD = "127.0.55.1", "127.0.55.2"
PERIOD = 0.05
REFUSED = "Connection refused"


def host(name: str, address: str, port: int, more: str = "") -> str:
    said = f"name: {name}, address: {address}, service: store.shop, port: {port}"
    return f"  - {{{said}, interception: none{more}}}\n"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PERIOD", PERIOD)
    monkeypatch.setattr(probing, "SETTLE", PERIOD)


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 204 so\r\n\r\n")
    await writer.drain()


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until whoever asks has lost patience


async def ill(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 503 no\r\n\r\n")
    await writer.drain()


def verdicts(seen: Observation) -> dict[str, tuple[Health, str]]:
    return {each.address: (each.health, each.health_reason) for each in seen.endpoints}


async def sees(provider: AsyncIterator[Observation], wanted: tuple[Health, str]) -> Observation:
    """What is observed once a host is that."""
    async with asyncio.timeout(10):
        async for seen in provider:
            if verdicts(seen)[HERE] == wanted:
                return seen
    raise AssertionError("nothing more is observed")


@pytest.mark.usefixtures("often")
async def test_a_host_is_called_while_it_answers_and_not_after_it_failed_some_times(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    probe = f", probe: 'http:{port}/healthz'"
    hosts = "hosts:\n" + host("a", HERE, port, probe) + host("b", DEAD, port)
    replace(tmp_path / "hosts.yaml", hosts)
    provider = HostsProvider(name="rack", options={"path": "hosts.yaml"}, base=tmp_path)
    async with aclosing(provider.observe()) as observed:
        async with listening(well, HERE, port):
            first = verdicts(await anext(observed))
            # Of who has no probe nothing is known but what the list says.
            assert first == {HERE: (Health.HEALTHY, ""), DEAD: (Health.HEALTHY, "")}
        async with listening(ill, HERE, port):
            why = f"http:{port}/healthz: answered 503"
            seen = await sees(observed, (Health.UNHEALTHY, why))
            assert verdicts(seen)[DEAD] == (Health.HEALTHY, "")
        async with listening(well, HERE, port):
            await sees(observed, (Health.HEALTHY, ""))


async def test_who_does_not_answer_when_the_list_is_first_read_is_never_called(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    replace(tmp_path / "hosts.yaml", "hosts:\n" + host("a", HERE, port, f", probe: 'tcp:{port}'"))
    provider = HostsProvider(name="rack", options={"path": "hosts.yaml"}, base=tmp_path)
    async with aclosing(provider.observe()) as observed:
        seen = await anext(observed)
    refused = (Health.UNHEALTHY, f"tcp:{port}: {REFUSED}")
    assert (seen.evidence, seen.fault) == (Evidence.STATED, "")
    assert verdicts(seen) == {HERE: refused}


async def fed(catalog: Catalog, folder: Path, many: int) -> Mapping[str, tuple[Health, str]]:
    """What one control plane has believed of so many hosts, when it ends."""
    provider = HostsProvider(name="rack", options={"path": "hosts.yaml"}, base=folder)
    feed = Feed(provider, "hosts", catalog, Presence(Metrics(CollectorRegistry())), time.monotonic)
    running = asyncio.create_task(feed.run())
    await feed.observed.wait()
    running.cancel()
    await asyncio.wait([running])
    known = await catalog.known("rack", "rack/hosts.yaml")
    assert known
    assert len(known.endpoints) == many
    return {each.address: (each.health, each.health_reason) for each in known.endpoints}


async def test_who_was_silent_is_so_for_the_next_control_plane_though_most_are_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.2)
    (port,) = free_ports(1)
    addresses = [f"127.0.55.{n}" for n in range(11, 15)]
    hosts = (host(each, each, port, f", probe: 'http:{port}/'") for each in addresses)
    replace(tmp_path / "hosts.yaml", "hosts:\n" + "".join(hosts))
    url = f"sqlite:///{tmp_path}/meshfed.db"
    migrate(url)
    silent = Health.UNHEALTHY, f"http:{port}/: {SILENT}"
    for speaking in (3, 1):  # of four: the first is silent all the time
        async with AsyncExitStack() as open_:
            for n, each in enumerate(reversed(addresses)):
                answer = well if n < speaking else mute
                await open_.enter_async_context(listening(answer, each, port))
            with closing(Catalog(url)) as catalog:
                found = await fed(catalog, tmp_path, len(addresses))
        assert found == dict.fromkeys(addresses, (Health.HEALTHY, "")) | {addresses[0]: silent}


def test_what_another_probe_found_is_nothing_that_is_known_of_this_one() -> None:
    failing = {("10.0.0.1", 80): "http:80/a: answered 503", ("10.0.0.2", 80): ""}
    target = "10.0.0.1", Probe.parse("http:80/a")
    assert recalled(target, failing) == "answered 503"
    for other in ("http:80/ab", "http:80", "tcp:80", "http:81/a"):
        assert recalled(("10.0.0.1", Probe.parse(other)), failing) == ""
    assert recalled(("10.0.0.2", target[1]), failing) == ""


def test_it_takes_some_looks_in_a_row_either_way() -> None:
    held = Held().after("")
    for n in range(1, DOWN + 1):
        held = held.after("refused")
        assert bool(held.verdict.why) == (n == DOWN)
    for n in range(1, UP + 1):
        held = held.after("")
        assert bool(held.verdict.why) == (n < UP)


def asked(*last: str) -> Mapping[Target, Held]:
    """Hosts that were found to be so."""
    return {
        (f"10.0.0.{n}", Probe.parse("tcp:1")): Held(Verdict(why, known=True), why)
        for n, why in enumerate(last)
    }


@pytest.mark.parametrize(
    ("last", "failing"),
    [
        pytest.param(("", SILENT, ""), 1, id="one that is silent"),
        pytest.param((SILENT, SILENT, ""), 0, id="most are silent: who asks is cut off"),
        pytest.param((REFUSED, "answered 503", ""), 2, id="most say no"),
        pytest.param((REFUSED, SILENT, SILENT), 1, id="who answers is believed"),
        pytest.param((SILENT,), 1, id="an only one"),
    ],
)  # fmt: skip
def test_silence_of_most_hosts_at_once_is_not_believed(last: tuple[str, ...], failing: int) -> None:
    now = believed(asked(*last), Believed())
    assert len(now.failing) == failing
    assert bool(now.doubt) == (2 * last.count(SILENT) > len(last) > 1)


def test_a_host_is_one_however_many_of_its_ports_are_asked() -> None:
    held = {
        (host, Probe.parse(f"tcp:{port}")): why
        for host, ports, why in (("10.0.0.1", 3, SILENT), ("10.0.0.2", 1, ""), ("10.0.0.3", 1, ""))
        for port in range(1, ports + 1)
    }
    now = believed(
        {at: Held(Verdict(why, known=True), why) for at, why in held.items()}, Believed()
    )
    assert {host for host, _ in now.failing} == {"10.0.0.1"}
    assert now.doubt == ""


def test_who_was_silent_before_most_were_stays_so() -> None:
    before = believed(asked(SILENT, "", "", ""), Believed())
    now = believed(asked(SILENT, SILENT, SILENT, ""), before)
    assert now.failing == before.failing
    assert now.doubt == "2 of 3 hosts do not answer probes at once"


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("tcp:81", "probe: tcp:81: its applications' ports are 80"),
        ("udp:80", "probe: 'udp:80' is no probe, such as"),
        ("[tcp:80, 'http:80']", "probe: tcp:80: another one looks at port 80"),
    ],
)
def test_a_probe_that_cannot_be_leaves_its_host_out(probe: str, why: str) -> None:
    seen = check("hosts:\n" + host("a", HERE, 80, f", probe: {probe}"), "hosts.yaml")
    assert [why in str(each) for each in seen.rejected] == [True]


@pytest.mark.soak
async def test_thousands_of_hosts_are_asked_by_one_control_plane() -> None:
    many = 5000
    async with asyncio.TaskGroup() as tasks:
        (port,) = free_ports(1)
        async with listening(well, "0.0.0.0", port):
            asking = Probing(asyncio.Event())
            asking.watch(
                (f"127.1.{n // 250}.{n % 250 + 1}", Probe.parse(f"http:{port}"))
                for n in range(many)
            )
            run = tasks.create_task(asking.run())
            began, spent = time.monotonic(), time.process_time()
            await asyncio.sleep(3 * probing.PERIOD)
            share = (time.process_time() - spent) / (time.monotonic() - began)
            assert asking.believed == Believed()
            print(f"{many} hosts: {share:.0%} of a core, with those that answer")
            assert share < 0.8
            run.cancel()
