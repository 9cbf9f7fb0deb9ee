"""The commands that explain: `path`, `why`, `wait`, `plan`, `doctor`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config, Output
from meshfed.federation.cli.output import Finding, Format, rendered, terminal_width, write

if TYPE_CHECKING:
    from meshfed.federation.explain.facts import Facts
    from meshfed.federation.explain.judge import Asked
    from meshfed.federation.explain.matching import Request
    from meshfed.federation.explain.step import Step


def shown(steps: Iterable["Step"], output: Format) -> None:
    """The steps on stdout; the failing ones are what the command found."""
    from meshfed.federation.explain.step import COLUMNS, failures

    steps = tuple(steps)
    bare = output is Format.TABLE and not any(step.remedy for step in steps)
    columns = COLUMNS[:-1] if bare else COLUMNS
    rows = [tuple(str(getattr(step, name)) for name in columns) for step in steps]
    write(rendered(columns, rows, output, terminal_width()))
    found = failures(steps)
    causes = [step for step in found if step.step != "answer"]
    if found:
        raise Finding(*(causes or found))


def path(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Who calls: an identity, or a workload.")
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="What is called: SERVICE or SERVICE:PORT.")
    ],
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="The service's port.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="METHOD", help="Of an HTTP request; else GET.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--path", metavar="PATH", help="Of an HTTP request; else /.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="K=V", help="Of an HTTP request; may be repeated."),
    ] = None,
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Say what becomes of a call: allowed or not, by which policy, to which endpoints, encrypted.

    Without --method, --path and --header it is about any request. Exit code 1: refused, or nobody
    answers.

    Example: meshfed path bookbuyer.shop bookstore.shop:8080 --path /books-bought
    """
    from meshfed.federation.explain.callers import Unknown, callers
    from meshfed.federation.explain.judge import Known
    from meshfed.federation.explain.path import path as found

    asked = _asked(destination, port, _request(method, at, header or [], destination))
    facts = _gathered(_catalog(catalog, config))
    known = Known(facts.bearings.policies, facts.trouble())
    try:
        who = callers(facts.mesh, source, facts.resolved)
    except Unknown as unknown:
        raise Finding(unknown) from unknown
    paths = [found(facts.mesh, each, asked, known, facts.resolved) for each in who]
    shown((step for each in paths for step in each.steps), output)


def why(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="An endpoint (ADDRESS or ADDRESS:PORT), a service, a workload or its proxy.",
        ),
    ],
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Say why something is in use, or is not: who saw it, is it believed, who is sent it.

    It walks from the provider to the acknowledgements of proxies. Exit code 1: a step fails; it is
    named with what to do.

    Example: meshfed why 192.0.2.11
    """
    from meshfed.catalog.reader import Refused
    from meshfed.federation.cli.source import reachable
    from meshfed.federation.explain.asked import why as asked
    from meshfed.federation.explain.callers import Unknown

    url = _catalog(catalog, config)
    try:
        with reachable():
            steps = asked(_gathered(url), url, name)
    except (Unknown, Refused) as reason:
        raise Finding(reason) from reason
    shown(steps, output)


def _catalog(catalog: CatalogUrl, config: Config) -> str:
    """The URL of a catalog that is there, and of this version."""
    from meshfed.federation.cli.source import catalog_url, existing, migrated

    url = existing(catalog_url(catalog, config))
    migrated(url)
    return url


def _gathered(url: str) -> "Facts":
    from meshfed.federation.cli.source import reachable
    from meshfed.federation.explain.facts import gathered

    with reachable():
        return gathered(url)


def _asked(destination: str, port: int | None, request: "Request | None") -> "Asked":
    from meshfed.catalog.model import ServiceName
    from meshfed.federation.explain.judge import Asked

    name, colon, number = destination.lower().partition(":")
    if colon and not number.isdigit():
        raise typer.BadParameter(f"{number!r} is not a port", param_hint="DESTINATION")
    if colon and port is not None and port != int(number):
        raise typer.BadParameter(f"{port} is not {number}: name one", param_hint="--port")
    try:
        service = ServiceName.parse(name.rstrip("."))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="DESTINATION") from error
    return Asked(service, int(number) if colon else port, request)


def _request(
    method: str | None, path: str | None, headers: list[str], authority: str
) -> "Request | None":
    from meshfed.federation.explain.matching import Request

    if method is None and path is None and not headers:
        return None
    given = {":authority": authority}
    for header in headers:
        name, equals, value = header.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{header!r} is not NAME=VALUE", param_hint="--header")
        given[name.strip().lower()] = value
    path = path or "/"
    if not path.startswith("/"):
        raise typer.BadParameter(f"{path!r} does not begin with /", param_hint="--path")
    return Request((method or "GET").upper(), path, given)
