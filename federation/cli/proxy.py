"""`meshfed proxy`: what proxies were told, and how one is set up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from meshfed.federation.cli.config import config as of_one
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

TYPES = ("CDS", "EDS", "LDS", "RDS", "SDS")
OVERVIEW = ("workload", "identity", "state", *TYPES, "reason")
DETAIL = ("type", "state", "sent_version", "acked_version", "sent_at", "acked_at", "nack")

app = typer.Typer(no_args_is_help=True, help="Which proxies have what, and how to set one up.")


def answered(sync: Row) -> str:
    """How a proxy stands with one type of resource."""
    if sync["nack"]:
        return "rejected"
    return "synced" if sync["sent_version"] == sync["acked_version"] else "waiting"


def overview(proxies: Sequence[Row], syncs: Sequence[Row]) -> list[Row]:
    """A row for each proxy, with a column for each type of resource."""
    by_proxy: dict[object, dict[object, str]] = {}
    for sync in syncs:
        by_proxy.setdefault(sync["proxy"], {})[sync["type"]] = answered(sync)
    return [
        {**proxy, **{kind: by_proxy.get(proxy["proxy"], {}).get(kind, "-") for kind in TYPES}}
        for proxy in proxies
    ]


def chosen(name: str, proxies: Sequence[Row], workloads: Sequence[object]) -> Row:
    """The proxy of a workload's name or id, or a Finding."""
    found = [proxy for proxy in proxies if name in (proxy["workload"], proxy["proxy"])]
    if len(found) > 1:
        ids = ", ".join(str(proxy["proxy"]) for proxy in found)
        raise Finding(f"{len(found)} proxies are called {name}: name one by its id: {ids}")
    if found:
        return found[0]
    if name in workloads:
        raise Finding(f"{name} has no proxy that is connected: see `meshfed why {name}`")
    raise Finding(f"no proxy {name}: {nearest(name, map(str, workloads))}")


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A workload's name, or its id.", show_default=False),
    ] = None,
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Say which proxies have what they were sent, or how one stands with each type of resource.

    Example: meshfed proxy status store-1
    """
    from meshfed.federation.cli.source import catalog_url

    url = catalog_url(catalog, config)
    proxies = _rows(url, "select * from mesh_proxies order by workload, proxy")
    syncs = _rows(url, "select * from mesh_proxy_sync order by proxy, type")
    if name is None:
        _print(overview(proxies, syncs), OVERVIEW, output)
        if not proxies:
            say("no proxies yet: an Envoy connects with what `meshfed proxy bootstrap NAME` writes")
        return
    workloads = [row["name"] for row in _rows(url, "select name from mesh_workloads")]
    proxy = chosen(name, proxies, workloads)
    theirs = [
        {**sync, "state": answered(sync)} for sync in syncs if sync["proxy"] == proxy["proxy"]
    ]
    _print(theirs, DETAIL, output)
    say(f"{proxy['workload']} is {proxy['state']}{_because(proxy)}")


@app.command()
def bootstrap(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A workload's name, or its id.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where to write; else ./NAME.", show_default=False
        ),
    ] = None,
    xds: Annotated[
        str | None,
        typer.Option(
            "--xds",
            metavar="HOST:PORT",
            help="Where the proxy finds the control plane; else this machine, as the workload"
            " sees it, and the port of xds.listen.",
            show_default=False,
        ),
    ] = None,
    grpc: Annotated[
        bool,
        typer.Option(
            "--grpc",
            help="Insist that it is a gRPC application without a sidecar, as the catalog must say"
            " by `interception: grpc`.",
        ),
    ] = False,
    config: Config = None,
) -> None:
    """Write key, certificate and configuration for one workload's Envoy, or its gRPC library.

    Run it where the control plane's key is, then copy the folder to the same place on the
    workload's machine. Run again, it renews the certificate, and whatever runs takes it up.

    Example: meshfed proxy bootstrap store-1 --out /etc/meshfed/proxy
    """
    import asyncio

    from meshfed.federation.bootstrap import Unbootstrappable
    from meshfed.federation.bootstrap import bootstrap as written
    from meshfed.federation.cli.source import configured, existing, migrated, reachable

    if out is not None and out.name in ("", ".."):
        raise Finding("--out: name a folder of its own")
    settings = configured(config)
    try:
        migrated(existing(settings.catalog))
        with reachable():
            made = asyncio.run(written(settings, name, out or Path(name), xds=xds, grpc=grpc))
    except Unbootstrappable as why:
        raise Finding(why) from why
    write("".join(f"{path}\n" for path in made.files))
    say(made.start)


app.command(name="config")(of_one)


def _rows(url: str, statement: str) -> list[Row]:
    from meshfed.federation.cli.reading import as_rows
    from meshfed.federation.cli.source import rows

    return as_rows(rows(url, statement))


def _print(rows: Sequence[Row], table: Sequence[str], output: Format) -> None:
    if output is Format.TABLE:
        write(rendered(table, picked(table, rows), output, terminal_width()) if rows else "")
    else:
        every = tuple(rows[0]) if rows else table
        write(rendered(every, picked(every, rows), output))


def _because(proxy: Row) -> str:
    return f": {proxy['reason']}" if proxy["reason"] else ""
