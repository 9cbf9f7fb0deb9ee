"""The agent of a machine that joined: what survives it, its Envoy and the control plane."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import imds
import live
import pytest
from agents import Look, Machine, Slow, answers, becomes, envoy_of, serving, verdict
from cryptography import x509
from joining import Ground, grounded, unheeded

from meshfed.catalog.leases import UNHEARD
from meshfed.federation.agent.alone import alone
from meshfed.federation.agent.envoy import Sidecar, binary
from meshfed.federation.agent.probing import Probing
from meshfed.federation.agent.renewal import Renewal
from meshfed.federation.agent.reporting import Reporting
from meshfed.federation.agent.run import CannotStart, run
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.join.papers import JOINED, TOKEN, Papers, keep
from meshfed.xds.bootstrap import CERTIFICATE

BUYER = "127.0.48.1"
HOSTS = f"""
hosts:
  - {{name: buyer, address: {BUYER}, bind: {BUYER}, identity: buyer.live}}
"""
MOST = 60_000  # kB of memory, beside its Envoy
LEASE = "4s"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with grounded(tmp_path_factory.mktemp("agent"), HOSTS, "127.0.48", lease=LEASE) as ground:
        yield ground


async def test_a_machine_outlives_its_agent_its_envoy_and_its_control_plane(
    ground: Ground,
) -> None:
    async with serving(ground) as (machine, slow):
        # Whoever kills the agent ends no request: the next one finds the Envoy that there is.
        before, first = machine.envoy, serial(machine.papers)
        machine.agent.kill()
        assert await answers(ground, machine)
        aged(machine.papers)
        machine.restart()
        await until("the Envoy that was there is found", found(machine))
        assert machine.envoy == before
        assert machine.said('"envoy started"') == 1

        # The certificate is renewed at two thirds of its life, and Envoy shows the new one.
        await until("a renewed certificate", renewed(machine, first))
        await until("Envoy shows it", shown(machine))
        assert await answers(ground, machine)

        # A killed Envoy is started again.
        os.kill(before, signal.SIGKILL)
        await until("another Envoy answers", lambda: answers(ground, machine))
        assert machine.envoy != before

        # Its Envoy says nothing below a warning.
        assert machine.said("[info]") == 0

        # It stays small.
        assert resident(machine.agent.popen.pid) <= MOST

        # Without a control plane it serves on.
        ground.mesh.process.kill()
        try:
            assert await answers(ground, machine)
        finally:
            await ground.mesh.serve()

        # Told to end, it lets what is under way end, and its Envoy is gone then.
        slow.heard.clear()
        asked = asyncio.create_task(answers(ground, machine, "/slow"))
        await until("the slow request", under_way(slow))
        machine.agent.popen.terminate()
        assert await asked
        assert await asyncio.to_thread(machine.agent.popen.wait, 10) == 0
        assert envoy_of(machine.papers) is None
        assert verdict(ground) == ("draining", "its agent is stopping")

        # Not heard for the time of its lease it is unhealthy, and well as soon as it is heard.
        silent = ("unhealthy", "its agent said nothing for 4 s")
        await until("its silence", lambda: becomes(ground, silent))
        machine.restart()
        await until("its agent is heard", lambda: becomes(ground, ("healthy", "")))
        assert await answers(ground, machine)

        # `leave` takes its folder away; where systemd does not stop it, that is what ends it.
        slow.heard.clear()
        asked = asyncio.create_task(answers(ground, machine, "/slow"))
        await until("the slow request", under_way(slow))
        aside = machine.papers.rename(machine.papers.with_suffix(".aside"))
        assert await asked
        assert await asyncio.to_thread(machine.agent.popen.wait, 10) == 0
        aside.rename(machine.papers)
        assert machine.said('"not drained"') == 0


def aged(papers: Path) -> None:
    """Its certificate was issued long ago, as far as its agent knows."""
    said = json.loads((papers / JOINED).read_text())
    (papers / JOINED).write_text(json.dumps({**said, "issued_at": time.time() - 30 * 86400}))


def resident(pid: int) -> int:
    """Memory in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


def found(machine: Machine) -> Look:
    async def look() -> bool:
        return machine.said('"envoy found"') == 1

    return look


def renewed(machine: Machine, first: int) -> Look:
    async def look() -> bool:
        return serial(machine.papers) != first

    return look


def shown(machine: Machine) -> Look:
    """Whether the sidecar's inbound port shows the certificate that is in the file, or a newer."""

    async def look() -> bool:
        status = await asyncio.to_thread(
            live.envoys.get, machine.address, live.envoys.ADMIN, "/certs"
        )
        return f"{serial(machine.papers):x}" in status[1]

    return look


def under_way(slow: Slow) -> Look:
    async def look() -> bool:
        return bool(slow.heard)

    return look


def serial(papers: Path) -> int:
    return x509.load_pem_x509_certificate((papers / CERTIFICATE).read_bytes()).serial_number


# What Azure announces


async def test_before_azure_takes_it_every_proxy_drains_it_and_what_is_under_way_ends(
    ground: Ground,
) -> None:
    with imds.serving("vm-1") as azure:
        async with serving(ground, "--imds", azure.url) as (machine, slow):
            await until("its agent is heard", lambda: becomes(ground, ("healthy", "")))
            asked = asyncio.create_task(answers(ground, machine, "/slow"))
            await until("the slow request", under_way(slow))
            began = time.monotonic()
            azure.announce("e1", "Preempt")
            await until("it is drained in the caller's proxy", lambda: drained(ground, machine))
            assert time.monotonic() - began < 2.0
            assert azure.approved == []
            assert await asked
            await until("the event is approved", approved(azure))
            why = "Azure announces Preempt, not before 2026-11-30T18:29:47Z"
            assert verdict(ground) == ("draining", why)
            azure.over()
            await until("it is called again", lambda: becomes(ground, ("healthy", "")))
        assert azure.refused == []


def approved(azure: imds.Service) -> Look:
    async def look() -> bool:
        return azure.approved == ["e1"]

    return look


async def drained(ground: Ground, machine: Machine) -> bool:
    """As the caller's own Envoy says."""
    buyer = ground.mesh.sidecars["buyer"]
    said = await asyncio.to_thread(live.envoys.clusters, buyer.address)
    flags = [
        line for line in said.splitlines() if "::health_flags::" in line and machine.address in line
    ]
    return bool(flags) and all("eds_status_draining" in line for line in flags)


# A certificate that has ended


async def test_who_was_off_for_too_long_is_told_what_to_do_in_one_line(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    papers = await asyncio.to_thread(ground.joined, "sleeper")
    after = Renewal(papers.folder, unheeded, clock=lambda: time.time() + 8 * 86400)
    before = serial(papers.folder)
    await after.look()
    assert serial(papers.folder) == before
    said = capsys.readouterr().out
    assert "the certificate of sleeper ended at" in said
    assert "join with a new token, after `meshfed deregister sleeper` if need be" in said
    await after.look()
    assert capsys.readouterr().out == ""  # once


async def test_a_token_that_was_kept_lets_it_in_again_once_its_name_is_free(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    token = ground.token(uses=2)
    papers = await asyncio.to_thread(ground.joined, "cattle", token)
    keep(papers.folder, token)
    assert (papers.folder / TOKEN).stat().st_mode & 0o777 == 0o600
    before, later = serial(papers.folder), time.time() + 8 * 86400
    await Renewal(papers.folder, unheeded, clock=lambda: later).look()
    assert "cattle is registered already" in capsys.readouterr().out
    await asyncio.to_thread(ground.deregister, "cattle")
    await Renewal(papers.folder, unheeded, clock=lambda: later).look()
    assert serial(papers.folder) != before
    again = Papers.read(papers.folder)
    assert again is not None
    assert again.addresses == papers.addresses


async def test_who_is_let_in_again_is_called_once_its_agent_has_said_so_which_it_does_at_once(
    ground: Ground, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfed.federation.agent.reporting.doubled", lambda *_: 600.0)
    token = ground.token(uses=2)
    papers = await asyncio.to_thread(ground.joined, "phoenix", token)
    keep(papers.folder, token)
    await asyncio.to_thread(ground.deregister, "phoenix")
    reporting = Reporting(papers.folder, dict, str)

    async def refused() -> bool:
        return "not heard" in capsys.readouterr().out

    before = []

    async def renewed() -> None:
        before.append(verdict(ground, "phoenix"))
        await reporting.again()

    saying = asyncio.create_task(reporting.run())
    try:
        await until("a word that is refused", refused)
        later = time.time() + 8 * 86400
        await Renewal(papers.folder, renewed, clock=lambda: later).look()
        assert before == [("unhealthy", UNHEARD.lost)]
        await until("its word", lambda: becomes(ground, ("healthy", ""), "phoenix"))
    finally:
        saying.cancel()
        await asyncio.wait([saying])


# Files that are damaged


def agent(folder: Path) -> str:
    """What it says, where it does not start."""
    with pytest.raises(CannotStart) as why:
        run(folder)
    return str(why.value)


def test_where_it_cannot_start_it_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / JOINED).mkdir()
    assert agent(tmp_path) == f"{tmp_path / JOINED}: Is a directory"
    (tmp_path / "file").touch()
    assert agent(tmp_path / "file") == f"{tmp_path / 'file' / JOINED}: Not a directory"


async def test_a_second_agent_names_the_first(ground: Ground) -> None:
    papers = await asyncio.to_thread(ground.joined, "twice")
    with alone(papers.folder):
        second = f"{papers.folder}: another agent is running, pid {os.getpid()}"
        assert await asyncio.to_thread(agent, papers.folder) == second
    with alone(papers.folder):
        pass


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("url", "nonsense", "join.json: url: 'nonsense' is not https://HOST:PORT"),
        ("url", "https://x:y", "join.json: url: Port could not be cast to integer value as 'y'"),
        ("issued_at", float("inf"), "damaged: remove it, and join with a token"),
        ("issued_at", float("nan"), "damaged: remove it, and join with a token"),
    ],
)
async def test_what_is_damaged_is_said_once_and_the_agent_goes_on(
    ground: Ground, capsys: pytest.CaptureFixture[str], key: str, value: object, why: str
) -> None:
    folder = ground.folder / "damaged"
    if not folder.exists():
        await asyncio.to_thread(ground.joined, "damaged")
    before = (folder / JOINED).read_text()
    (folder / JOINED).write_text(json.dumps({**json.loads(before), "issued_at": 0, key: value}))
    reporting = Reporting(folder, dict, lambda: "")
    assert not await reporting.drained("test", "a test")
    renewal = Renewal(folder, unheeded)
    await renewal.look()
    await renewal.look()
    said = capsys.readouterr().out.splitlines()
    assert [line.count(why) for line in said] == [1, 1]
    (folder / JOINED).write_text(before)


async def test_an_envoy_whose_bootstrap_is_no_yaml_is_not_ready(tmp_path: Path) -> None:
    sidecar = Sidecar(binary(), tmp_path)
    for text in ("a: [", "\x00", "- 1", ""):
        (tmp_path / "envoy.yaml").write_text(text)
        assert sidecar.unready() == "its Envoy does not answer"
        assert not await sidecar.busy()


async def test_what_is_no_probe_is_not_probed(capsys: pytest.CaptureFixture[str]) -> None:
    (free,) = free_ports(1)
    probing = Probing(["tcp:x", f"tcp:{free}"])
    assert "'tcp:x' is no probe" in capsys.readouterr().out
    await probing.look()
    assert list(probing.failing) == [free]
