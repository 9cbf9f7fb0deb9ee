"""`meshfed support`: what to send to whoever is to help."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import Finding, say, write

if TYPE_CHECKING:
    from meshfed.federation.explain.step import Step
    from meshfed.federation.settings import Settings

app = typer.Typer(no_args_is_help=True, help="What to send to whoever is to help.")


@app.callback()
def support() -> None:
    """A callback, so that `bundle` is a command of its own."""


@app.command()
def bundle(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .tgz to write.")],
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Pack versions, settings, the catalog's views and what `doctor` finds, without secrets.

    Example: meshfed support bundle meshfed-support.tgz
    """
    from meshfed.federation.cli.source import catalog_url, configured
    from meshfed.federation.explain.bundle import members, packed
    from meshfed.federation.explain.step import COLUMNS

    settings = configured(config)
    url = catalog_url(catalog, None) if catalog else settings.catalog
    steps = _steps(settings, url)
    findings = [{name: str(getattr(step, name)) for name in COLUMNS} for step in steps]
    _write(file, packed(members(settings, url, findings)))
    write(f"{file}\n")
    say("look through it before you send it: tar -xzOf FILE | less")


def _steps(settings: "Settings", url: str) -> "list[Step]":
    """What doctor finds; a catalog that cannot be read is one of its findings."""
    from meshfed.federation.cli.source import reachable
    from meshfed.federation.explain.examine import examined
    from meshfed.federation.explain.step import failing

    try:
        with reachable():
            return list(examined(settings, url))
    except Finding as finding:
        return [failing("database", "catalog", str(finding))]


def _write(file: Path, data: bytes) -> None:
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(data)
    except FileExistsError as error:
        raise Finding(f"{file}: is there already: name another") from error
    except OSError as error:
        if error.filename is None:  # it was begun: the disk is full
            file.unlink()
        raise Finding(f"{file}: {error.strerror}") from error
