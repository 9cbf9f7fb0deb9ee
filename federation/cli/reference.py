"""docs/cli.md, made from the commands themselves: `python -m meshfed.federation.cli.reference`."""

from collections.abc import Iterator

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from meshfed.federation.cli.main import app
from meshfed.federation.cli.options import GROUPS
from meshfed.federation.cli.output import write

HEAD = """# The command line

Made by `python -m meshfed.federation.cli.reference > docs/cli.md`; a test keeps it true.

Data goes to stdout, everything else to stderr. Exit code 0; 1 for a finding or a refused input,
with one line for each (`file:line: field: why`); 2 for usage; 130 for Ctrl-C. No command needs a
configuration file: `--config`, else `./meshfed.yaml`, else `/etc/meshfed/meshfed.yaml`, else the
defaults; every key can be set in the environment (`MESHFED_CATALOG`, `MESHFED_XDS__LISTEN`).
"""


def reference() -> str:
    """The page: a heading for each group, and for each command what it is for and takes."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    parts = [HEAD]
    for group in GROUPS:
        commands = [each for each in root.commands.values() if _panel(each) == group]
        parts += [f"## {group}\n"] if commands else []
        for command in commands:
            parts += _sections("meshfed", command)
    return "\n".join(parts)


def _sections(prefix: str, command: object) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for each in command.commands.values():
            yield from _sections(f"{prefix} {command.name}", each)
    elif isinstance(command, TyperCommand):
        yield _section(prefix, command)


def _section(prefix: str, command: TyperCommand) -> str:
    about, _, example = (command.help or "").partition("Example: ")
    words = [prefix, str(command.name), *(_argument(each) for each in _arguments(command))]
    options = [f"- `{', '.join(each.opts)}`: {_about(each)}" for each in _options(command)]
    arguments = [f"- `{_argument(each)}`: {_about(each)}" for each in _arguments(command)]
    return "\n".join(
        [
            f"### {' '.join(words)}\n",
            f"{about.strip()}\n",
            *arguments,
            *options,
            f"\n```console\n$ {example.strip()}\n```\n",
        ]
    )


def _arguments(command: TyperCommand) -> list[TyperArgument]:
    return [each for each in command.params if isinstance(each, TyperArgument)]


def _options(command: TyperCommand) -> list[TyperOption]:
    return [
        each for each in command.params if isinstance(each, TyperOption) and each.name != "help"
    ]


def _argument(argument: TyperArgument) -> str:
    return argument.metavar or str(argument.name).upper()


def _about(parameter: TyperArgument | TyperOption) -> str:
    return (parameter.help or "").strip()


def _panel(command: object) -> str:
    return str(getattr(command, "rich_help_panel", ""))


if __name__ == "__main__":
    write(reference())
