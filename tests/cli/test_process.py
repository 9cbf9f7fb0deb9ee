"""The command as a process, its usage, and the page about it."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from meshfed.federation.cli.main import app
from meshfed.federation.cli.options import GROUPS
from meshfed.federation.cli.reference import reference

COMMANDS = Path(__file__).parents[2] / "docs" / "cli.md"
Run = Callable[..., Any]  # how it ended: code, out, err, lines


# Checking files


def test_files_are_checked_together_and_each_mistake_is_a_line(
    meshfed: Run, tmp_path: Path
) -> None:
    (tmp_path / "meshfed.yaml").write_text(
        "providers:\n  - {name: rack, type: hosts, path: hosts.yaml}\n"
    )
    hosts = tmp_path / "hosts.yaml"
    host = "{name: a, address: 10.0.0.1, service: shop.shop, port: 80, identity: shop.shop}"
    hosts.write_text(f"hosts:\n  - {host}\n")
    right = meshfed("validate")
    assert (right.code, right.err) == (0, "")
    assert right.out.splitlines() == [
        "meshfed.yaml: a configuration, and right",
        "hosts.yaml: a host list, and right",
    ]
    hosts.write_text(f"hosts:\n  - {host}\n  - {{name: b, adress: 10.0.0.2}}\n")
    wrong = meshfed("validate", "meshfed.yaml")
    assert (wrong.code, wrong.out) == (1, "")
    assert all(line.startswith("hosts.yaml:3: ") for line in wrong.lines)


def test_an_argument_that_is_no_text_is_one_line(meshfed: Run) -> None:
    ended = meshfed("why", b"\xff\xfe".decode(errors="surrogateescape"))
    assert (ended.code, ended.lines) == (2, ["an argument is not UTF-8 text"])


def test_a_pipe_is_checked(meshfed: Run) -> None:
    ended = meshfed("validate", "-", stdin="mesh: {trust_domian: shop.example}\n")
    assert ended.code == 1
    assert re.match(r"stdin:1: mesh.trust_domian: unknown; did you mean trust_domain", ended.err)


def test_checking_nothing_is_not_success(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert meshfed("validate", "empty").code == 1
    assert meshfed("validate").code == 2


# The command as a process


def test_a_full_disk_is_one_line(shop: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "meshfed.federation.cli.main", "get", "services"],
            cwd=tmp_path,
            text=True,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (ended.returncode, ended.stderr) == (1, "stdout: No space left on device\n")


def start(*arguments: object, folder: Path, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "meshfed.federation.cli", *map(str, arguments)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
        **options,
    )


def heed_ctrl_c() -> None:
    """What nohup, or a script's `&`, starts is deaf to it, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from meshfed.federation.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'sqlalchemy', 'fastapi', 'pydantic', 'cryptography', 'envoy'}\n"
        "heavy |= {'kubernetes', 'aiohttp'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_ctrl_c_while_it_is_still_loading_is_quiet() -> None:
    program = (
        "import sys\n"
        "from meshfed.federation.cli.__main__ import main\n"
        "class Pressed:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_a_reader_that_has_seen_enough_ends_it_quietly(shop: str, tmp_path: Path) -> None:
    many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) "
    with start("sql", many + "select i from n", "-o", "json", folder=tmp_path) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.readline()
        command.stdout.close()
        assert command.stderr.read() == ""
    assert command.returncode == 0


def test_watching_prints_again_when_something_changed_until_ctrl_c(
    one_leaves: Callable[[], None], tmp_path: Path
) -> None:
    with start("get", "workloads", "-w", "-o", "csv", folder=tmp_path) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        lines = iter(command.stdout.readline, "")
        assert next(lines).startswith("name,")
        assert [next(lines).partition(",")[0] for _ in range(2)] == ["store-1", "store-2"]

        one_leaves()
        assert next(lines).startswith("name,")
        assert next(lines).startswith("store-1,")
        command.send_signal(signal.SIGINT)
        assert command.stderr.read() == ""
    assert command.returncode == 130


# Usage


@pytest.mark.parametrize(
    "arguments",
    [("gett",), ("get", "things"), ("get",), ("get", "services", "-o", "xml"), ("sql", "a", "b")],
    ids=" ".join,
)
def test_what_is_no_command_is_usage(meshfed: Run, arguments: tuple[str, ...]) -> None:
    ended = meshfed(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage" in ended.err


def test_a_misspelt_command_is_answered_with_the_nearest(meshfed: Run) -> None:
    assert "Did you mean 'get'" in meshfed("gett").err


def test_a_wrong_configuration_is_one_line_for_each_mistake(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "meshfed.yaml").write_text("mesh: {trust_domain: shop.example}\ncatalogue: x\n")
    ended = meshfed("get", "services")
    assert ended.code == 1
    (line,) = ended.lines
    assert re.match(r".*meshfed\.yaml:2: catalogue: unknown; did you mean catalog\?", line)


def commands(prefix: str = "meshfed", within: object = None) -> Iterator[tuple[str, TyperCommand]]:
    group = within or typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(f"{prefix} {name}", command)
        else:
            assert isinstance(command, TyperCommand)
            yield f"{prefix} {name}", command


@pytest.mark.parametrize(
    ("name", "command"), [pytest.param(*each, id=each[0]) for each in commands()]
)
def test_every_help_shows_an_example_of_the_command(name: str, command: TyperCommand) -> None:
    assert f"Example: {name}" in (command.help or "")


def test_help_has_the_groups_in_their_order(meshfed: Run) -> None:
    said = meshfed("--help").out
    found = [group for group in GROUPS if f"─ {group} ─" in said]
    assert found == ["Run", "See", "Explain", "Register", "Maintain"]
    assert [said.index(f"─ {group} ─") for group in found] == sorted(
        said.index(f"─ {group} ─") for group in found
    )


def test_the_page_about_the_command_line_is_what_the_commands_say() -> None:
    assert COMMANDS.read_text() == reference(), (
        "python -m meshfed.federation.cli.reference > docs/cli.md"
    )
