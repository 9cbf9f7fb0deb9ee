"""The rules of interception: put in place, missed, taken away, and printed beforehand."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import intercepting
import pytest
from attesting import LEAF
from cryptography.hazmat.primitives.serialization import Encoding
from namespaced import ABSENT, real

from meshfed.federation.agent.intercepting import Intercepted, listening, spare
from meshfed.federation.capture import (
    Capture,
    machine_in,
    machine_out,
    removed,
    replaced,
    stand,
    table,
)
from meshfed.federation.cli.main import main
from meshfed.federation.join.papers import CAPTURE, Unjoinable


@real
def test_who_leaves_without_a_folder_has_the_rules_taken_away_that_are_ours(
    tmp_path: Path,
) -> None:
    leaves = f"{sys.executable} -m meshfed.federation.cli leave --out {tmp_path}/gone 2>&1"
    stood, said, left, again = kernel(
        f"{OTHERS}\n{restored(table(RULES))}\n{SAVE}", leaves, SAVE, f"{leaves} || true"
    )
    assert stand(RULES, stood)
    assert "iptables: its rules are removed" in said
    assert f"{tmp_path}/gone: gone: `meshfed deregister NAME` on the control plane" in said
    assert "MESHFED" not in left
    assert "-d 10.0.0.1/32 -j RETURN" in left
    assert "this machine did not join: nothing of it is there" in again


def kernel(*commands: str) -> list[str]:
    """What the commands of a shell say, in a network of its own, each for itself."""
    lines = "\necho ---\n".join(commands)
    done = subprocess.run(
        ("unshare", "--net", "sh", "-ec", lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("---\n")


def restored(text: str) -> str:
    return f"iptables-restore --noflush <<'END'\n{text}END"


SAVE = "iptables-save -t nat"
OTHERS = "iptables-restore --noflush <<'END'\n*nat\n-A OUTPUT -d 10.0.0.1 -j RETURN\nCOMMIT\nEND"
RULES = (*machine_in((8080,), Capture(), 4), *machine_out(Capture(), 1500, 4))


@real
def test_rules_are_put_in_place_once_are_missed_and_are_taken_away_alone() -> None:
    fresh, others = kernel(SAVE, f"{OTHERS}\n{SAVE}")
    first = kernel(f"{OTHERS}\n{restored(replaced(RULES, others))}\n{SAVE}")[0]
    assert not stand(RULES, fresh)
    assert stand(RULES, first)
    # Again, and others instead: no rule is there twice.
    fewer = machine_in((8080,), Capture(), 4)
    again, other = kernel(
        f"{restored(table(RULES))}\n{restored(replaced(RULES, first))}\n{SAVE}",
        f"{restored(replaced(fewer, first))}\n{SAVE}",
    )
    assert stand(RULES, again)
    assert stand(fewer, other)
    assert not stand(RULES, other)
    (gone,) = kernel(
        f"{OTHERS}\n{restored(replaced(RULES, others))}\n{restored(removed(first))}\n{SAVE}"
    )
    assert lines(gone) == lines(others)
    assert removed(gone) == ""


def lines(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if not line.startswith("#")]


@real
def test_an_agent_puts_rules_in_place_and_back_and_takes_them_away(tmp_path: Path) -> None:
    said = {"url": "https://10.0.0.1:1", "trust_domain": "x", "name": "y", "ports": [8080]}
    (tmp_path / "join.json").write_text(json.dumps(said))
    for each in ("certificate.pem", "bundle.pem"):
        (tmp_path / each).write_bytes(LEAF.public_bytes(Encoding.PEM))
    Intercepted(1500).write(tmp_path)
    ended = subprocess.run(
        ("unshare", "--net", sys.executable, intercepting.__file__, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    both = ["MESHFED_IN", "MESHFED_OUT"]
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "nobody listens": ["MESHFED_IN"],
        "its sidecar listens": both,
        "its sidecar is dead": both,
        "somebody flushes": [],
        "it looks again": both,
        "another exclusion": both,
        "excluded": ["5432"],
        "another agent": both,
        "released": [],
        "left": [],
    }


def test_ssh_is_never_captured_however_it_is_asked_for() -> None:
    for family in (4, 6):
        came = machine_in((22, 8080), Capture(), family)
        assert [line for line in came if "REDIRECT" in line and "--dport 22 " in line] == []
        assert machine_in((22,), Capture(), family) == ()
        went = machine_out(Capture(only_ranges=("10.0.0.0/8", "fd00::/8")), 1500, family)
        to_ssh = next(n for n, line in enumerate(went) if "--dport 22 -j RETURN" in line)
        assert to_ssh < next(n for n, line in enumerate(went) if "REDIRECT" in line)


def test_a_user_is_spared_whom_somebody_has() -> None:
    assert spare(lambda number: number < 1502) == 1502


def test_who_listens_is_read_off_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in listening(Path("/proc/net/tcp").read_text())
    assert port not in listening(Path("/proc/net/tcp").read_text())


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    with pytest.raises(SystemExit):
        main(("join", *words))
    said = capsys.readouterr()
    return said.out, said.err.strip()


def test_a_dry_run_prints_rules_that_iptables_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--interception", "transparent", "--dry-run", "--out", str(tmp_path))
    out, _ = typed(capsys, *words, "--exclude-user", "root", "--exclude-outbound-port", "25")
    four, *_ = out.split("# ip6tables-restore --noflush\n")
    first = machine_out(Capture(outbound_ports=(25,), users=(0,)), spare(lambda _: False), 4)
    assert table(first) in four
    assert "--dport P -j REDIRECT --to-ports 15003" in four
    assert list(tmp_path.iterdir()) == []
    if not ABSENT and os.geteuid() == 0:
        assert stand(first, kernel(f"{restored(four)}\n{SAVE}")[0])


@pytest.mark.parametrize(
    "damaged", ['{"group":1500,"capt', '{"group":1500,"capture":{"outbound_ranges":["banana"]}}']
)
def test_what_is_damaged_is_said_and_written_anew_where_it_is_asked_for(
    tmp_path: Path, damaged: str
) -> None:
    (tmp_path / CAPTURE).write_text(damaged)
    with pytest.raises(Unjoinable, match="damaged: `meshfed join --interception transparent`"):
        Intercepted.read(tmp_path)
    assert Intercepted.legible(tmp_path) is None
    Intercepted(1500).write(tmp_path)
    assert Intercepted.read(tmp_path) == Intercepted(1500)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--interception", "iptables"), "--interception: 'iptables' is none of explicit,"),
        (("--exclude-user", "root"), "--exclude-…, --include-…: they go with --interception"),
        (("--exclude-user", "nobody-here"), "--exclude-user: this machine knows no user"),
        (("--exclude-outbound-range", "10/8"), "--exclude-outbound-range: '10/8' is not a range"),
        (("--dry-run",), "--dry-run: nothing is written where interception is explicit"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    if words[0] not in ("--interception", "--dry-run") and "root" not in words:
        words = ("--interception", "transparent", *words)
    _, err = typed(capsys, "--out", str(tmp_path), *words)
    assert why in err
