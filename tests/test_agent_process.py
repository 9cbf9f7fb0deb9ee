"""The agent's unit, and how it starts, knows and counts processes: without a mesh."""

import shlex
import subprocess
from configparser import ConfigParser
from pathlib import Path
from shutil import which

import pytest
import typer

from meshfed.federation.agent import unit
from meshfed.federation.agent.envoy import (
    FIRST,
    LONGEST,
    Busy,
    binary,
    busy,
    pause,
    programs,
)
from meshfed.federation.agent.process import Process, running
from meshfed.federation.cli.main import app

# The unit


def test_the_unit_starts_a_command_with_options_that_exist(tmp_path: Path) -> None:
    program, *_, name, option, folder = exec_start(unit.write(unit.command(tmp_path), tmp_path))
    assert Path(program).is_file()
    verb = typer.main.get_command(app).commands[name]
    assert option in [spelling for each in verb.params for spelling in each.opts]
    assert folder == str(tmp_path)


def exec_start(path: Path) -> list[str]:
    # Keys may stand twice in a unit, and `%` is systemd's.
    read = ConfigParser(strict=False, interpolation=None)
    read.read(path)
    return shlex.split(read["Service"]["ExecStart"])


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/etc/meshfed/proxy", "/etc/meshfed/proxy"),
        ("a folder", '"a folder"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "x"\\', '"say \\"x\\"\\\\"'),
    ],
)
def test_words_stand_in_it_as_systemd_reads_them(word: str, written: str) -> None:
    assert unit.quoted(word) == written


@pytest.mark.skipif(not which("systemd-analyze"), reason="no systemd-analyze on this machine")
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    path = unit.write(unit.command(tmp_path / "a folder"), tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    about_it = [line for line in done.stderr.splitlines() if unit.NAME in line]
    assert (done.returncode, about_it) == (0, [])


def test_it_is_taken_away_as_it_came(tmp_path: Path) -> None:
    unit.write(unit.command(tmp_path), tmp_path)
    assert unit.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not unit.remove(tmp_path)


# Without a mesh


def test_http_connections_are_busy_by_their_requests_alone() -> None:
    stats = """\
http.admin.downstream_cx_active: 1
http.admin.downstream_rq_active: 1
http.inbound.downstream_cx_active: 3
http.inbound.downstream_rq_active: 2
listener.0.0.0.0_15003.downstream_cx_active: 4
listener.0.0.0.0_15003.worker_0.downstream_cx_active: 4
listener.admin.downstream_cx_active: 1
"""
    assert busy(stats) == Busy(requests=2, connections=1)
    idle = "http.inbound.downstream_cx_active: 3\nlistener.x.downstream_cx_active: 3\n"
    assert not busy(idle)


def test_what_keeps_ending_is_started_ever_more_rarely() -> None:
    assert [pause(n) for n in (1, 2, 3)] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert pause(50) == LONGEST


async def test_a_process_says_how_it_ended() -> None:
    for script, how in (("exit 3", "exit code 3"), ("kill -9 $$", "killed by SIGKILL")):
        started = Process.start(["sh", "-c", script])
        assert await started.ended() == how
        started.close()


def process(proc: Path, pid: str, command: str, program: str = "/bin/envoy", ns: str = "1") -> None:
    """As proc(5) has it."""
    (proc / pid / "ns").mkdir(parents=True)
    (proc / pid / "cmdline").write_bytes((command.replace(" ", "\0") + "\0").encode())
    (proc / pid / "exe").symlink_to(program)
    for kind in ("pid", "mnt"):
        (proc / pid / "ns" / kind).symlink_to(f"{kind}:[{ns}]")


def test_an_envoy_is_known_by_program_configuration_and_namespaces(tmp_path: Path) -> None:
    command = "envoy --config-path /x/envoy.yaml"
    process(tmp_path, "self", "python")
    process(tmp_path, "7", "envoy /x/envoy.yaml")
    process(tmp_path, "8", command, program="/bin/sleep")  # anybody may call itself so
    (tmp_path / "9").mkdir()  # it ends while it is looked at
    process(tmp_path, "10", command, ns="2")  # a container's /x is another
    ours = {Path("/bin/envoy")}
    assert running(Path("/x/envoy.yaml"), ours, tmp_path) is None
    process(tmp_path, "12", command, program="/bin/envoy (deleted)")  # it was upgraded since
    assert running(Path("/x/envoy.yaml"), ours, tmp_path) == 12
    assert running(Path("/y/envoy.yaml"), ours, tmp_path) is None


def test_whoever_only_looks_like_its_envoy_is_left_alone(tmp_path: Path) -> None:
    config = tmp_path / "envoy.yaml"
    script = ["sh", "-c", "read x", "envoy", "--config-path", str(config)]
    with subprocess.Popen(script, stdin=subprocess.PIPE) as other:
        assert running(config, programs(binary())) is None
        other.communicate(b"end\n")
