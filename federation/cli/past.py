"""What was, and what has become different since: `get --at`, `history` and `diff`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshfed.federation.cli.options import CatalogUrl, Config, Output
from meshfed.federation.cli.output import (
    Finding,
    Format,
    Row,
    nearest,
    picked,
    rendered,
    say,
    terminal_width,
    write,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from meshfed.catalog.events import Happened
    from meshfed.catalog.moment import Moment
    from meshfed.catalog.reader import Answer

EVENTS = ("at", "revision", "object", "change", "detail", "provider", "cause", "who")
CHANGES = ("what", "object", "change", "detail")
PUSHES = ("type", "name", "version", "valid_from_revision", "valid_from")


def history(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A service, an endpoint (ADDRESS or ADDRESS:PORT), or a workload.",
        ),
    ],
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only what is newer: 1h, 14:05, 2026-11-23T14:05; else all that is kept.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Say what happened to a service, an endpoint or a workload: when, who saw it, and why.

    Example: meshfed history bookstore.shop --since 1h
    """
    from meshfed.catalog.database import stamp
    from meshfed.catalog.events import Event
    from meshfed.catalog.moment import begun
    from meshfed.federation.cli.source import catalog_url, existing

    url = existing(catalog_url(catalog, config))
    with _known(url):
        begin = "" if since is None else stamp(begun(since, datetime.now(UTC)).timestamp())
        found = _happened(url, name, begin)
    if not found.known:
        raise Finding(f"nothing is known of {name}: {nearest(name, _names(url))}")
    _print(Event, found.events, EVENTS, output)
    if not found.events:
        say(f"nothing happened to {name} since {begin}")


def diff(
    begin: Annotated[
        str,
        typer.Option("--from", metavar="MOMENT", help="14:05, `10m ago`, or a revision, as --at."),
    ],
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="MOMENT", help="The same; else now.", show_default=False),
    ] = None,
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Say what differs between two moments: services, endpoints, policies, and who may call whom.

    Example: meshfed diff --from "10m ago"
    """
    from meshfed.catalog.compare import Changed, compared
    from meshfed.catalog.moment import named
    from meshfed.federation.cli.source import catalog_url, existing

    url = existing(catalog_url(catalog, config))
    now = datetime.now(UTC)
    with _known(url):
        last = None if end is None else named(end, now)
        found = compared(url, named(begin, now), last)
    _print(Changed, found.changed, CHANGES, output)
    between = f"between {found.before} and {found.after}"
    say(between if found.changed else f"nothing differs {between}")


def as_it_was(url: str, view: str, order: str, at: str) -> "tuple[Moment, Answer]":
    """The rows of a view at a moment, and which that is."""
    from meshfed.catalog import past
    from meshfed.catalog.moment import named
    from meshfed.federation.cli.source import existing

    def look(connection: "Connection", moment: "Moment") -> "tuple[Moment, Answer]":
        return moment, past.listing(connection, view, order)

    existing(url)
    with _known(url):
        return past.at(url, named(at, datetime.now(UTC)), look)


def pushed(url: str, name: str, kind: str, at: str, output: Format) -> None:
    """Which versions a proxy had been sent by a moment; of one type, or of all."""
    from meshfed.catalog import past, pushes, reading
    from meshfed.catalog.moment import named
    from meshfed.federation.bootstrap import Unbootstrappable
    from meshfed.federation.bootstrap import named as workload_named

    def look(connection: "Connection", moment: "Moment") -> "tuple[Moment, str, list[Row]]":
        workload = workload_named(name, reading.read(connection).everyone)
        sent = pushes.sent(connection, workload.id, moment.revision)
        return moment, workload.name, [row for row in sent if kind in ("", row["type"])]

    with _known(url):
        try:
            moment, workload, sent = past.at(url, named(at, datetime.now(UTC)), look)
        except Unbootstrappable as why:
            raise Finding(why) from why
    if not sent:
        raise Finding(
            f"nothing is recorded of what {workload} was sent by {moment}: it was not connected,"
            " or `history.record_pushes` was off"
        )
    write(rendered(PUSHES, picked(PUSHES, sent), output, terminal_width()))
    say(f"as of {moment}")


@contextmanager
def _known(url: str) -> Iterator[None]:
    """Turns a moment of which nothing is known, or a catalog that is away, into a Finding."""
    from meshfed.catalog.moment import Unknown
    from meshfed.federation.cli.source import reachable, unmigrated

    try:
        with reachable():
            yield
    except (Unknown, Finding) as why:
        raise Finding(unmigrated(url) or why) from why


def _happened(url: str, name: str, since: str) -> "Happened":
    from meshfed.catalog.events import happened
    from meshfed.catalog.past import looked
    from meshfed.federation.explain.asked import parsed
    from meshfed.xds.endpoints import INBOUND_PORT

    place = parsed(name)
    if place is None:
        return looked(url, lambda connection: happened(connection, name, since))
    target = None if place.port == INBOUND_PORT else place.port  # the sidecar's is everybody's
    return looked(url, lambda connection: happened(connection, place.address, since, target))


def _names(url: str) -> list[str]:
    from meshfed.federation.cli.source import rows

    asked = "select service from mesh_services union select address from mesh_endpoints"
    return [
        str(name) for (name,) in rows(url, f"{asked} union select name from mesh_workloads").rows
    ]


def _print(kind: type, values: Sequence[Any], table: Sequence[str], output: Format) -> None:
    found = [asdict(value) for value in values]
    columns = table if output is Format.TABLE else [field.name for field in fields(kind)]
    if found or output is not Format.TABLE:
        write(rendered(columns, picked(columns, found), output, terminal_width()))
