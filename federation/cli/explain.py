"""The commands that explain: `path`, `why`, `wait`, `plan`, `doctor`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config, Output
from meshfed.federation.cli.output import Finding, Format, rendered, say, terminal_width, write

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
    answers, as where no sidecar of what is called is connected.

    Example: meshfed path bookbuyer.shop bookstore.shop:8080 --path /books-bought
    """
    from meshfed.federation.explain.callers import Unknown, callers
    from meshfed.federation.explain.judge import Known
    from meshfed.federation.explain.path import path as found

    asked = _asked(destination, port, _request(method, at, header or [], destination))
    facts = gathered(catalog_there(catalog, config))
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

    url = catalog_there(catalog, config)
    try:
        with reachable():
            steps = asked(gathered(url), url, name)
    except (Unknown, Refused) as reason:
        raise Finding(reason) from reason
    shown(steps, output)


def wait(
    revision: Annotated[
        int | None,
        typer.Option(
            "--revision", metavar="N", min=0, help="Else the newest there is.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="As 30s, 2m or 1h.")
    ] = "30s",
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Wait until every connected proxy has acknowledged a revision; name those that have not.

    It asks the catalog, so it works from any machine that reaches that. Exit code 1: the time is
    over.

    Example: meshfed wait --timeout 30s && echo it is everywhere
    """
    from meshfed.federation.cli.source import reachable
    from meshfed.federation.explain.wait import waited
    from meshfed.federation.fields import duration

    try:
        seconds = duration(timeout).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from error
    url = catalog_there(catalog, config)
    with reachable():
        found = waited(url, revision, seconds)
    columns = ("revision", "proxies", "lacking", "why")
    lacking = [str(lag) for lag in found.lacking]
    row = (found.revision, found.proxies, len(lacking), found.why)
    write(rendered(columns, [row], output, terminal_width()))
    if not found.there:
        late = [f"revision {found.revision}: {lag}" for lag in lacking]
        raise Finding(*late, *([f"revision {found.revision}: {found.why}"] if found.why else []))


def plan(
    files: Annotated[
        list[Path],
        typer.Option("-f", "--file", metavar="FILES", help="SMI files, or folders; - is stdin."),
    ],
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="They are all there is: policies that are not in them are gone."
        ),
    ] = False,
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Say what policy files would change: access gained and lost, splits, and whom it concerns.

    They stand in for the objects of the same names; what one of the same files says now and no
    longer says then is gone. Nothing is changed. Exit code 1: a file is wrong.

    Example: meshfed plan -f policy/
    """
    from meshfed.federation.explain.files import given
    from meshfed.federation.explain.plan import planned, removed

    said = given(files, sys.stdin)
    if said.rejected:
        raise Finding(*said.rejected)
    facts = gathered(catalog_there(catalog, config))
    standing = facts.bearings.policies
    gone = removed(facts.mesh, said.specified, standing, said.files, whole=whole)
    found = planned(facts.mesh, said.specified, standing, gone)
    rows = [(each.what, each.object, each.change, each.by) for each in found.effects]
    columns = ("what", "object", "change", "by")
    write(rendered(columns, rows, output, terminal_width()) if rows or output != "table" else "")
    say(f"{found.proxies} of {found.of} proxies would be told something new; nothing was changed")


def doctor(
    output: Output = Format.TABLE, catalog: CatalogUrl = None, config: Config = None
) -> None:
    """Examine the mesh: database, providers, policies, certificates, clock, ports, proxies.

    Run it where `serve` runs to have its ports and key looked at too, and Azure asked as it asks.
    It tries up to 200 ports of endpoints, and writes nothing. Exit code 1: something is wrong; each
    with its remedy.

    Example: meshfed doctor
    """
    from meshfed.federation.cli.source import catalog_url, configured, reachable
    from meshfed.federation.explain.examine import examined

    settings = configured(config)
    url = catalog_url(catalog, None) if catalog else settings.catalog
    with reachable():
        shown(examined(settings, url), output)


def catalog_there(catalog: CatalogUrl, config: Config) -> str:
    """The URL of a catalog that is there, and of this version."""
    from meshfed.federation.cli.source import catalog_url, existing, migrated

    url = existing(catalog_url(catalog, config))
    migrated(url)
    return url


def gathered(url: str) -> "Facts":
    from meshfed.federation.cli.source import reachable
    from meshfed.federation.explain import facts

    with reachable():
        return facts.gathered(url)


def _asked(destination: str, port: int | None, request: "Request | None") -> "Asked":
    from meshfed.catalog.model import ServiceName
    from meshfed.federation.explain.judge import Asked

    name, colon, number = destination.lower().partition(":")
    if colon and not number.isdecimal():
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
