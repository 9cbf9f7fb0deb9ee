"""`meshfed sql`: ask the catalog anything, change nothing."""

import sys
from typing import Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config, Output
from meshfed.federation.cli.output import Finding, Format, rendered, say, terminal_width, write

SECONDS = 5.0
ROWS = 10_000


def sql(
    statement: Annotated[
        str | None,
        typer.Argument(
            metavar="STATEMENT",
            help="One select; else it is read from a pipe, else the views are listed.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Ask the catalog in SQL; nothing can be changed this way.

    An answer takes at most 5 seconds and 10,000 rows. Without a statement: the views there are.

    Example: meshfed sql "select service, count(*) from mesh_endpoints group by 1"
    """
    from meshfed.federation.cli.source import catalog_url, rows

    statement = _asked(statement)
    if not statement:
        _views(output)
        return
    answer = rows(catalog_url(catalog, config), statement, seconds=SECONDS, most=ROWS)
    write(rendered(answer.columns, answer.rows, output, terminal_width()))
    if not answer.rows:
        say("no rows")


def _asked(statement: str | None) -> str:
    try:
        if statement is None:
            statement = "" if sys.stdin.isatty() else sys.stdin.read().strip()
        statement.encode()  # what is no text arrives as lone surrogates
    except UnicodeError as error:
        raise Finding("the statement is not UTF-8 text") from error
    return statement


def _views(output: Format) -> None:
    from meshfed.catalog.views import VIEWS

    listed = [(view.name, view.comment) for view in VIEWS]
    write(rendered(("view", "about"), listed, output, terminal_width()))
    say('columns: meshfed sql "select * from VIEW limit 0" -o csv')
