"""`meshfed migrate`: a catalog brought up or back, moved to another database, opened to readers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import Finding, say, write

if TYPE_CHECKING:
    from meshfed.catalog.migrating import Step


def migrate(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    to_revision: Annotated[
        str | None,
        typer.Option(
            "--to-revision",
            metavar="SCHEMA",
            help="Up to this schema, or back to it: what later ones added is lost.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="URL",
            help="Copy the whole catalog, with its history, into a new database.",
            show_default=False,
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            "--reader",
            metavar="ROLE",
            help="Let a role of Postgres read the views, and nothing else.",
            show_default=False,
        ),
    ] = None,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Make the catalog, or bring it up to this version; `serve` does so by itself.

    It says each migration, from which schema to which and what it is for, before it does them all
    in one transaction. With --to-revision, --to or --reader it does that instead.

    Example: meshfed migrate --dry-run
    """
    from meshfed.federation.cli.source import catalog_url

    if sum(each is not None for each in (to_revision, to, reader)) > 1:
        raise typer.BadParameter("one of --to-revision, --to and --reader at a time")
    if dry_run and (to is not None or reader is not None):
        raise typer.BadParameter("it goes with migrations only", param_hint="--dry-run")
    url = catalog_url(catalog, config)
    with _told():
        if to is not None:
            _move(url, to)
        elif reader is not None:
            _let_read(url, reader)
        else:
            _migrate(url, to_revision, dry_run=dry_run)


def shown(steps: Sequence["Step"]) -> str:
    """A line for each."""
    return "".join(
        f"{step.before or 'nothing'} → {step.after or 'nothing'}: "
        f"{'undoes: ' if step.back else ''}{step.meaning}\n"
        for step in steps
    )


def _migrate(url: str, to: str | None, *, dry_run: bool) -> None:
    from meshfed.catalog.copy import held
    from meshfed.catalog.migrating import carried_out, planned

    steps = planned(url, to)
    write(shown(steps))
    back = bool(steps) and steps[0].back
    if dry_run:
        say("nothing was changed" if steps else _nothing_to_do(to))
        return
    if back and (who := held(url)):
        raise Finding(f"{who} has this catalog open: stop `meshfed serve` first")
    done = carried_out(url, to)
    say(f"done: the catalog's schema is {done[-1].after}" if done else _nothing_to_do(to))


def _nothing_to_do(to: str | None) -> str:
    return f"nothing to do: the catalog is {f'at {to}' if to else 'up to date'}"


def _move(url: str, to: str) -> None:
    from meshfed.catalog.copy import moved
    from meshfed.federation.cli.source import catalog_url, existing

    source, target = existing(url), catalog_url(to, None, "--to")
    if source == target:
        raise Finding("--to: this is the catalog itself: name a new one")
    counts = moved(source, target)
    write("".join(f"{rows:>9,} {table}\n" for table, rows in sorted(counts.items()) if rows))
    say(
        f"done: all is copied, and counted: {sum(counts.values()):,} rows. Name the new one as"
        " `catalog` in the configuration, and start `meshfed serve`; the old one is as it was"
    )


def _let_read(url: str, role: str) -> None:
    from meshfed.catalog.database import Database
    from meshfed.catalog.viewing import let_read
    from meshfed.federation.cli.source import existing, migrated

    migrated(existing(url))
    database = Database(url)
    try:
        database.write(lambda connection: let_read(connection, role))
    finally:
        database.close()
    say(f"done: {role} may read the mesh_… views of this catalog, and nothing else by that")


@contextmanager
def _told() -> Iterator[None]:
    from meshfed.catalog.copy import Uncopied
    from meshfed.catalog.migrating import Unmigratable
    from meshfed.catalog.viewing import NoRole
    from meshfed.federation.cli.source import reachable

    try:
        with reachable():
            yield
    except (Uncopied, Unmigratable, NoRole) as why:
        raise Finding(why) from why
