"""docs/troubleshooting.md names commands and states that exist."""

import re
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from meshfed.federation.cli.main import app

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
SAID = sorted(set(re.findall(r"`(meshfed [^`]+)`", PAGE)))


@pytest.mark.parametrize("said", SAID)
def test_a_command_of_the_page_exists(said: str) -> None:
    command = typer.main.get_command(app)
    words = said.split()[1:]
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("step", sorted(set(re.findall(r"`([a-z ]+) failing`", PAGE))))
def test_a_step_of_the_page_exists(step: str) -> None:
    explain = Path(__file__).parents[2] / "federation" / "explain"
    assert any(f'"{step}"' in file.read_text() for file in explain.glob("*.py"))
