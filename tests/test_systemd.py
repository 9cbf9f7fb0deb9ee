"""The unit that runs `serve`: systemd understands it, and it starts what there is."""

import shlex
import subprocess
from configparser import ConfigParser
from pathlib import Path
from shutil import which
from sys import executable

import pytest
import typer

from meshfed.federation.cli.main import app
from meshfed.federation.settings import Settings

FOLDER = Path(__file__).parent.parent / "deploy" / "systemd"
UNIT = FOLDER / "meshfed.service"


def command() -> list[str]:
    # Keys may stand twice in a unit, and `%` is systemd's.
    unit = ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT)
    return shlex.split(unit["Service"]["ExecStart"])


def test_it_starts_a_command_with_options_that_exist() -> None:
    program, name, option, _ = command()
    assert Path(program).name == "meshfed"
    verb = typer.main.get_command(app).commands[name]
    assert option in [spelling for each in verb.params for spelling in each.opts]


def test_what_is_written_goes_where_the_service_may_write() -> None:
    settings = Settings.read(FOLDER / "meshfed.yaml", {})
    assert settings.certificates.seal.path == Path("/var/lib/meshfed/meshfed.key")
    assert "/var/lib/meshfed/meshfed.db" in str(settings.catalog)
    assert command()[-1] == "/etc/meshfed/meshfed.yaml"


@pytest.mark.skipif(not which("systemd-analyze"), reason="no systemd-analyze on this machine")
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    # It also looks for the program, which is not installed here.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(command()[0], executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    about_it = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, about_it) == (0, [])
