"""`meshfed bench`: how fast this machine is, beside what gRPC alone costs here."""

from typing import Annotated

import typer

from meshfed.federation.cli.output import Finding, Format, rendered, say, write
from meshfed.federation.cli.source import catalog_url

COLUMNS = (
    "name",
    "times",
    "p50",
    "p99",
    "last",
    "last p99",
    "floor",
    "ratio",
    "µs/push",
    "× floor",
)


def bench(
    services: Annotated[int, typer.Option(min=3, help="Services in the catalog.")] = 100,
    endpoints: Annotated[
        int, typer.Option(min=3, help="Their endpoints, of all together.")
    ] = 10_000,
    proxies: Annotated[int, typer.Option(min=1, help="Proxies that are connected.")] = 100,
    identities: Annotated[int, typer.Option(min=1, help="Identities of those proxies.")] = 10,
    clusters: Annotated[
        int, typer.Option(min=3, help="Services that each of them may call.")
    ] = 100,
    envoys: Annotated[int, typer.Option(min=0, help="How many of them are real Envoys.")] = 0,
    dialect: Annotated[
        str, typer.Option(metavar="delta|sotw", help="What the simulated ones speak.")
    ] = "delta",
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What is done to the mesh, again for another; else all, one after another.",
            show_default=False,
        ),
    ] = None,
    times: Annotated[int, typer.Option(min=2, help="How often each change is made.")] = 20,
    catalog: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="`sqlite`, or an empty database, which is empty again then.",
        ),
    ] = "sqlite",
    output: Annotated[Format, typer.Option("-o", "--output", help="How to print.")] = Format.TABLE,
) -> None:
    """Measure a control plane of its own, with simulated proxies over real gRPC and mutual TLS.

    Beside each figure stands the floor: the same bytes through gRPC alone, with the same mutual
    TLS and as many streams, in the same run.

    Example: meshfed bench --proxies 1000 --scenario one-endpoint -o json
    """
    from meshfed.catalog.store import Away, Unfit
    from meshfed.federation.bench.given import Size
    from meshfed.federation.bench.run import SQLITE, machine, measured
    from meshfed.federation.bench.scenarios import SCENARIOS
    from meshfed.federation.demo.processes import Broken
    from meshfed.federation.demo.run import Stopped

    names = list(scenario or SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        why = f"{unknown[0]} is none of {', '.join(SCENARIOS)}"
        raise typer.BadParameter(why, param_hint="--scenario")
    if dialect not in ("delta", "sotw"):
        raise typer.BadParameter("neither delta nor sotw", param_hint="--dialect")
    try:
        size = Size(services, endpoints, proxies, identities, min(clusters, services), envoys)
    except ValueError as error:
        option, _, why = str(error).partition(": ")
        raise typer.BadParameter(why, param_hint=f"--{option}") from error
    where, url = machine(), catalog if catalog == SQLITE else catalog_url(catalog, None)
    try:
        found = measured(size, names, times=times, dialect=dialect, url=url, said=say)
    except* (Broken, Away, Unfit) as broken:
        raise Finding(*broken.exceptions) from None
    except* Stopped as stopped:
        first = stopped.exceptions[0]
        raise typer.Exit(128 + first.number if isinstance(first, Stopped) else 1) from None
    told = [each.json() for each in found]
    if output in (Format.JSON, Format.YAML):
        import json

        import yaml

        whole = {"machine": where, "mesh": size.json(), "scenarios": told}
        as_json = output is Format.JSON
        text = json.dumps(whole, indent=2) if as_json else yaml.safe_dump(whole, sort_keys=False)
        write(f"{text}\n")
    else:
        write(rendered(COLUMNS, map(cells, told), output))


def cells(told: dict[str, object]) -> list[object]:
    """One scenario as a row; milliseconds."""
    p50, p99, last = told["p50_ack_ms"], told["p99_ack_ms"], told["last_ack_ms"]
    assert isinstance(p50, dict)
    assert isinstance(p99, dict)
    assert isinstance(last, dict)
    return [
        told["name"],
        told["times"],
        *(each.get("p50", "") for each in (p50, p99, last)),
        last.get("p99", ""),
        *(told.get(key, "") for key in ("floor_ms", "ratio", "cpu_us_per_push", "cpu_ratio")),
    ]
