"""The options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

from meshfed.federation.cli.output import Format

RUN = "Run"
SEE = "See"
EXPLAIN = "Explain"
REGISTER = "Register"
MAINTAIN = "Maintain"
GROUPS = (RUN, SEE, EXPLAIN, REGISTER, MAINTAIN)

Output = Annotated[
    Format,
    typer.Option("-o", "--output", help="How to print; all but the table give every column."),
]
CatalogUrl = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        metavar="URL",
        help="The catalog's URL, instead of the configuration's.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration; else ./meshfed.yaml, else /etc/meshfed/meshfed.yaml.",
        show_default=False,
    ),
]
At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="MOMENT",
        help="As it was then: 14:05, 2026-11-23T14:05 (local, or with a zone), `10m ago`, or a"
        " revision.",
        show_default=False,
    ),
]
