"""OSM's bookstore: what is measured of it, and that it keeps its promises through real Envoys."""

import json
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from demos import demo, heard, left_in, marked

from meshfed.federation.demo import envoys, measure
from meshfed.federation.demo.applications import application
from meshfed.federation.demo.folder import Folder, Host, furnish, hosts, weighted, without
from meshfed.federation.demo.measure import Call, Edit, Mark, Measured, Removal
from meshfed.federation.demo.processes import Broken, environment

SHIPPED = resources.files("meshfed.demo")
V1, V2 = measure.VERSIONS


def call(started: float, outcome: str = V1, path: str = "bookstore", took: float = 0.01) -> Call:
    return Call(started, started + took, path, outcome)


def evenly(since: float, until: float, *outcomes: str) -> list[Call]:
    """400 purchases a second, going round the outcomes."""
    count = int((until - since) * 400)
    return [call(since + i / 400, outcomes[i % len(outcomes)], took=0.001) for i in range(count)]


def run(**changed: object) -> Measured:
    """A run in which all went well: edits at 10, 20 and 30 s, the end at 40 s."""
    splits = (Edit(10.0, 10.030, 10.032), Edit(20.0, 20.038, 20.041))
    removal = Edit(30.0, 30.023, 30.025)
    marks = [Mark(0.0, 0.0, 0)] + [
        Mark(edit.renamed, edit.applied, 10 * number)
        for number, edit in enumerate((*splits, removal), 1)
    ]
    thief = [call(t / 2, "denied", "sidecar") for t in range(80)]
    thief += [
        call(t, "denied", path) for t in range(40) for path in ("store", "local ledger", "ledger")
    ]
    good = Measured(
        phases=measure.phases(((100, 0), (50, 50), (0, 100)), marks),
        splits=splits,
        removal=Removal(
            removal, 40.0, tuple(call(t / 10, "served", "counter") for t in range(300))
        ),
        buyer=(*evenly(0, 10, V1), *evenly(10, 20, V1, V2), *evenly(20, 40, V2)),
        thief=tuple(thief),
        warehouse=tuple(call(t, "ok", "ledger") for t in range(40)),
        ledger_refused=40,
        handshakes=12,
        plaintext_refused=True,
        proxies=8,
    )
    return replace(good, **changed)  # type: ignore[arg-type]


def test_the_object_has_the_promised_shape():
    said = measure.result(run())
    assert said["phases"][0] == {
        "split": {V1: 100, V2: 0},
        "bookbuyer": {V1: 4000, V2: 0, "failed": 0},
        "bookthief": {"allowed": 0, "denied": 20, "denied_by_server": 10},
    }
    assert said["ledger"] == {
        "bookwarehouse": {"ok": 40, "failed": 0},
        "bookthief": {"allowed": 0, "denied": 80},
    }
    assert said["host_removed"] == {"failed": 0, "requests_after": 0}
    assert said["propagation_ms"] == {"split": [2.0, 3.0], "host_removed": [2.0]}
    assert said["edit_to_ack_ms"] == {"split": [32.0, 41.0], "host_removed": [25.0]}
    assert said["mtls"] == {"handshakes": 12, "plaintext_refused": True}
    assert said["proxies"] == 8


def test_sides_are_counted_from_100_ms_after_the_last_acknowledgement():
    stragglers = (call(20.1, V1), call(20.1, V2))  # acknowledged at 20.041
    later = (call(20.2, V2), call(20.3, V2))
    said = measure.result(run(buyer=stragglers + later))
    assert said["phases"][2]["bookbuyer"] == {V1: 0, V2: 2, "failed": 0}


def test_a_request_that_was_under_way_at_the_next_edit_belongs_to_no_side():
    said = measure.result(run(buyer=(call(9.0), call(9.999, V2, took=0.5))))
    assert said["phases"][0]["bookbuyer"] == {V1: 1, V2: 0, "failed": 0}


def test_failures_are_counted_while_things_change_too():
    during = [call(at, "failed") for at in (10.01, 20.01, 30.01)]
    said = measure.result(run(buyer=tuple(during)))
    assert [phase["bookbuyer"]["failed"] for phase in said["phases"]] == [0, 1, 1]
    assert said["host_removed"]["failed"] == 1


def test_requests_after_are_those_that_reached_the_host_when_everyone_knew():
    seen = (call(30.01, "served", "counter"), call(30.2, "served", "counter"))
    removal = replace(run().removal, seen=seen)
    assert measure.result(run(removal=removal))["host_removed"]["requests_after"] == 1


def test_a_good_run_has_no_findings():
    assert measure.findings(run()) == ()


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        pytest.param(
            {"buyer": (*run().buyer, call(5.0, V2))},
            "100/0: 99.98 % of the requests went to bookstore-v1",
            id="one request on the wrong side",
        ),
        pytest.param(
            {"buyer": tuple(c for c in run().buyer if not 10 < c.started < 18)},
            "50/50: 50.0 % of 800 requests went to bookstore-v1",
            id="too few requests to say 50/50",
        ),
        pytest.param(
            {"buyer": (*run().buyer, call(15.0, "failed"))},
            "50/50: 1 of the bookbuyer's requests failed",
            id="a failed request",
        ),
        pytest.param(
            {"thief": (*run().thief, call(25.0, "allowed", "store"))},
            "0/100: the bookthief was allowed 1 times",
            id="the thief got a book past its own sidecar",
        ),
        pytest.param(
            {"thief": (*run().thief, call(25.0, "allowed", "ledger"))},
            "the bookthief wrote 1 times in the ledger",
            id="the thief got at the ledger",
        ),
        pytest.param(
            {"ledger_refused": 0},
            "the ledger's sidecar refused the bookthief nothing",
            id="a missing listener alone is no enforcement",
        ),
    ],
)
def test_a_broken_promise_is_named(changed: dict[str, object], finding: str):
    assert measure.findings(run(**changed)) == (finding,)


def test_reports_are_read_back_as_calls():
    line = json.loads('{"calls": [[1.5, 1.75, "bookstore", "bookstore-v1"]]}')
    assert list(measure.calls(line)) == [Call(1.5, 1.75, "bookstore", V1)]
    assert list(measure.calls({"ready": True})) == []


def test_envoys_counters_are_summed_by_name():
    text = """\
http.inbound|bookstore-v1.shop|8080.rbac.denied: 4
http.inbound|bookstore-v1.shop|8080.rbac.shadow_denied: 9
inbound|ledger.shop|3306.rbac.denied: 2
listener.127.0.1.11_15003.ssl.handshake: 3
listener.127.0.1.11_15003.ssl.connection_error: 5
listener.127.0.1.31_15003.ssl.fail_verify_san: 1
listener.127.0.1.11_15001.downstream_cx_total: 7
cluster.xds.upstream_cx_length_ms: P0(nan,1) P25(nan,2)
"""
    counted = envoys.counters(text)
    assert envoys.total(counted, envoys.REFUSED) == 7
    assert envoys.total(counted, envoys.HANDSHAKE) == 3


def test_moving_the_split_changes_the_weights_alone():
    before = (SHIPPED / "policy" / "split.yaml").read_text()
    after = weighted(before, {V1: 50, V2: 25})
    assert [b["weight"] for b in yaml.safe_load(after)["spec"]["backends"]] == [50, 25]
    assert len(before.splitlines()) == len(after.splitlines())
    assert after.startswith("#")


def test_removing_a_host_leaves_the_others():
    text = (SHIPPED / "hosts.yaml").read_text()
    gone = {host.name for host in hosts(text)} - {
        host.name for host in hosts(without(text, "store-4"))
    }
    assert gone == {"store-4"}


def test_every_host_runs_an_application_that_is_there(tmp_path: Path):
    everyone = hosts((SHIPPED / "hosts.yaml").read_text())
    folder = Folder(tmp_path, "shop.example", "127.0.0.1:1")
    modules = [application(host, everyone, folder)[0] for host in everyone]
    assert all((SHIPPED / f"{module}.py").is_file() for module in modules)
    assert len(everyone) == 8


def test_a_taken_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "meshfed.federation.demo.folder.hosts", lambda _: (Host("x", "192.0.2.1", "x", None),)
    )
    with pytest.raises(Broken, match=r"192\.0\.2\.1:15000: .*: is another demo running\?"):
        furnish(tmp_path)


def test_somebodys_settings_do_not_reach_the_demo():
    assert environment({"MESHFED_CATALOG": "x", "HOME": "/root"}) == {"HOME": "/root"}


# --- The whole of it, through real Envoys ---------------------------------------------------------

ETH_P_IP = 0x0800


@dataclass(frozen=True)
class Segment:
    """What one TCP segment on the loopback carried, and between which ports."""

    ports: tuple[int, int]
    payload: bytes


def segment(frame: bytes) -> Segment:
    """Of an Ethernet frame with IPv4 and TCP in it."""
    ip = frame[14:]
    tcp = ip[4 * (ip[0] & 15) :]
    return Segment(struct.unpack("!HH", tcp[:4]), tcp[4 * (tcp[12] >> 4) :])


def captured(seconds: float) -> list[Segment] | None:
    """Everything that TCP carried over the loopback for so long; None without the right to look."""
    try:
        looking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    except PermissionError:
        return None
    frames, until = [], time.monotonic() + seconds
    with looking:
        looking.bind(("lo", 0))
        looking.settimeout(0.5)
        while time.monotonic() < until:
            frames.append(looking.recv(1 << 16))
    return [segment(frame) for frame in frames if frame[23] == socket.IPPROTO_TCP]


@dataclass(frozen=True)
class Played:
    """One run of the demo, looked at from outside."""

    found: dict[str, Any]
    segments: list[Segment] | None
    processes: list[int]
    files: list[Path]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for whatever makes sockets in it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def played() -> Played:
    mark = uuid4().hex
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        with demo(mark, Path(name), "--seconds", "10", "-o", "json") as process:
            heard(process, "split 50/50")
            segments = captured(1.0)
            out, err = process.communicate()
        assert process.returncode == 0, err
        return Played(json.loads(out), segments, marked(mark), left_in(Path(name)))


def test_the_split_is_kept_to_the_request(played: Played):
    first, even, last = played.found["phases"]
    assert [each["split"][V1] for each in (first, even, last)] == [100, 50, 0]
    assert [each["split"][V2] for each in (first, even, last)] == [0, 50, 100]
    assert first["bookbuyer"][V1] > 0 == first["bookbuyer"][V2]
    assert last["bookbuyer"][V2] > 0 == last["bookbuyer"][V1]
    bought = even["bookbuyer"][V1] + even["bookbuyer"][V2]
    assert bought >= 2000
    assert 0.45 <= even["bookbuyer"][V1] / bought <= 0.55


def test_nothing_fails_while_the_split_changes_and_a_host_is_removed(played: Played):
    assert [phase["bookbuyer"]["failed"] for phase in played.found["phases"]] == [0, 0, 0]
    assert played.found["host_removed"] == {"failed": 0, "requests_after": 0}
    assert played.found["ledger"]["bookwarehouse"]["failed"] == 0
    assert played.found["ledger"]["bookwarehouse"]["ok"] > 0


def test_the_thief_gets_nothing_at_home_nor_from_other_sidecars(played: Played):
    for phase in played.found["phases"]:
        assert phase["bookthief"]["allowed"] == 0
        assert phase["bookthief"]["denied"] > 0
        assert phase["bookthief"]["denied_by_server"] > 0
    forged = played.found["ledger"]["bookthief"]
    assert (forged["allowed"], forged["denied"] > 0) == (0, True)


def test_every_change_is_measured(played: Played):
    for times in (played.found["propagation_ms"], played.found["edit_to_ack_ms"]):
        assert (len(times["split"]), len(times["host_removed"])) == (2, 1)
        assert min(*times["split"], *times["host_removed"]) > 0
    assert played.found["proxies"] == 8


def test_a_packet_capture_finds_no_plaintext_between_sidecars(played: Played):
    assert played.found["mtls"]["handshakes"] > 0
    assert played.found["mtls"]["plaintext_refused"] is True
    if played.segments is None:
        pytest.skip("capturing packets needs root")
    readable = [
        carried.ports
        for carried in played.segments
        if any(word in carried.payload for word in (b"buy-a-book", b"restock-books", b"delivered"))
    ]
    assert readable, "applications and their own sidecars do speak plaintext"
    assert [ports for ports in readable if envoys.INBOUND in ports] == []
    encrypted = [each for each in played.segments if envoys.INBOUND in each.ports and each.payload]
    assert len(encrypted) > 100


def test_the_demo_leaves_no_process_and_no_file(played: Played):
    assert played.processes == []
    assert played.files == []


def test_ctrl_c_leaves_no_process_and_no_file(folder: Path):
    mark = uuid4().hex
    with demo(mark, folder, "-o", "json") as process:
        heard(process, "starting 8 sidecars")
        assert len(marked(mark)) > 1
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert marked(mark) == []
    assert left_in(folder) == []


def test_a_demo_killed_outright_leaves_no_process(folder: Path):
    mark = uuid4().hex
    with demo(mark, folder, "-o", "json") as process:
        heard(process, "starting 8 sidecars")
    until = time.monotonic() + 10
    while left := marked(mark):  # a stranger's end has no event to wait for
        assert time.monotonic() < until, left
        time.sleep(0.05)
