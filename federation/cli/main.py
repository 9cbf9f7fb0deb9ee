"""The command line: `meshfed`, its five groups, and how it ends."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from meshfed.federation.cli import (
    agent,
    archive,
    attach,
    bench,
    config,
    explain,
    inject,
    install,
    join,
    migrate,
    namespace,
    past,
    provider,
    proxy,
    reading,
    register,
    serve,
    sql,
    support,
    token,
    top,
    validate,
    workload,
)
from meshfed.federation.cli.options import EXPLAIN, MAINTAIN, REGISTER, RUN, SEE
from meshfed.federation.cli.output import Finding, say

app = typer.Typer(
    name="meshfed",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        serve.version()
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


app.command(rich_help_panel=RUN)(serve.serve)
app.command(rich_help_panel=RUN)(serve.demo)
app.command(rich_help_panel=RUN)(bench.bench)
app.command(rich_help_panel=RUN)(migrate.migrate)
app.command(rich_help_panel=RUN)(install.install)
app.command(rich_help_panel=RUN)(install.upgrade)
app.command(rich_help_panel=RUN)(install.uninstall)
app.command(rich_help_panel=RUN)(serve.version)
app.command(rich_help_panel=SEE)(reading.get)
app.command(rich_help_panel=SEE)(top.top)
app.command(rich_help_panel=SEE)(sql.sql)
proxy.app.command()(config.config)
app.add_typer(proxy.app, name="proxy", rich_help_panel=SEE)
app.command(rich_help_panel=EXPLAIN)(explain.path)
app.command(rich_help_panel=EXPLAIN)(explain.why)
app.command(rich_help_panel=EXPLAIN)(explain.plan)
app.command(rich_help_panel=EXPLAIN)(explain.wait)
app.command(rich_help_panel=EXPLAIN)(explain.doctor)
app.command(rich_help_panel=EXPLAIN)(past.history)
app.command(rich_help_panel=EXPLAIN)(past.diff)
app.command(rich_help_panel=EXPLAIN)(validate.validate)
app.command(rich_help_panel=REGISTER)(register.register)
app.command(rich_help_panel=REGISTER)(register.deregister)
app.command(rich_help_panel=REGISTER)(attach.attach)
app.command(rich_help_panel=REGISTER)(attach.detach)
app.add_typer(workload.app, name="workload", rich_help_panel=REGISTER)
app.add_typer(token.app, name="token", rich_help_panel=REGISTER)
app.command(rich_help_panel=REGISTER)(join.join)
app.command(rich_help_panel=REGISTER)(join.leave)
app.command(rich_help_panel=REGISTER)(agent.agent)
app.add_typer(namespace.app, name="namespace", rich_help_panel=REGISTER)
app.command(rich_help_panel=REGISTER)(inject.inject)
app.command(rich_help_panel=MAINTAIN)(archive.backup)
app.command(rich_help_panel=MAINTAIN)(archive.restore)
app.add_typer(provider.app, name="provider", rich_help_panel=MAINTAIN)
app.add_typer(support.app, name="support", rich_help_panel=MAINTAIN)


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
