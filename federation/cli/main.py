"""The command line: `meshfed`, its five groups, and how it ends."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from meshfed.federation.cli.options import EXPLAIN, MAINTAIN, REGISTER, RUN, SEE
from meshfed.federation.cli.output import Finding, say

# Each command's group, and the module of the function of its name, or of the `app` of its verbs.
COMMANDS = {
    "serve": (RUN, "serve"),
    "demo": (RUN, "serve"),
    "bench": (RUN, "bench"),
    "migrate": (RUN, "migrate"),
    "install": (RUN, "install"),
    "upgrade": (RUN, "install"),
    "uninstall": (RUN, "install"),
    "version": (RUN, "serve"),
    "get": (SEE, "reading"),
    "top": (SEE, "top"),
    "sql": (SEE, "sql"),
    "path": (EXPLAIN, "explain"),
    "why": (EXPLAIN, "explain"),
    "plan": (EXPLAIN, "explain"),
    "wait": (EXPLAIN, "explain"),
    "doctor": (EXPLAIN, "explain"),
    "history": (EXPLAIN, "past"),
    "diff": (EXPLAIN, "past"),
    "validate": (EXPLAIN, "validate"),
    "register": (REGISTER, "register"),
    "deregister": (REGISTER, "register"),
    "attach": (REGISTER, "attach"),
    "detach": (REGISTER, "attach"),
    "join": (REGISTER, "join"),
    "leave": (REGISTER, "join"),
    "agent": (REGISTER, "agent"),
    "inject": (REGISTER, "inject"),
    "backup": (MAINTAIN, "archive"),
    "restore": (MAINTAIN, "archive"),
    "proxy": (SEE, "proxy"),
    "workload": (REGISTER, "workload"),
    "token": (REGISTER, "token"),
    "namespace": (REGISTER, "namespace"),
    "provider": (MAINTAIN, "provider"),
    "support": (MAINTAIN, "support"),
}


@cache
def loaded(name: str) -> object:
    """The command of this name, whose module is loaded for it."""
    group, module = COMMANDS[name]
    part = import_module(f"meshfed.federation.cli.{module}")
    alone = typer.Typer()
    if verbs := getattr(part, "app", None):
        alone.add_typer(verbs, name=name, rich_help_panel=group)
    else:
        alone.command(rich_help_panel=group)(getattr(part, name))
    return typer.main.get_group(alone).commands[name]


class Commands(Mapping[str, object]):
    """All commands; who runs one waits for no other's imports."""

    def __getitem__(self, name: str) -> object:
        return loaded(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Meshfed(TyperGroup):
    """The commands of the table, where typer also looks for what a misspelt one was meant to be."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = Commands()  # type: ignore[assignment]  # nobody adds to them


app = typer.Typer(
    name="meshfed",
    cls=Meshfed,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from meshfed.federation.cli.serve import version

        version()
        raise typer.Exit


@app.callback()
def meshfed(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say which version."),
    ] = False,
) -> None:
    """One mesh over Kubernetes, Azure VMs and your own hosts, whose state is a SQL database.

    Example: meshfed demo
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """0 when all is well, 1 for a finding or a refused input, 2 for usage, 130 for Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    if not all(map(_is_text, given)):
        say("an argument is not UTF-8 text")
        sys.exit(2)
    try:
        app(given, prog_name="meshfed")
    except Finding as finding:
        say(str(finding))
        sys.exit(1)
    except OSError as error:  # a file that cannot be read, a full disk
        say(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        sys.exit(1)


def _is_text(argument: str) -> bool:
    """A shell passes any bytes; those that are no text cannot be looked up, or printed."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    main()
