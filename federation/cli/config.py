"""`meshfed proxy config`: what one proxy should have, and what it has."""

from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.explain import catalog_there, gathered
from meshfed.federation.cli.options import At, CatalogUrl, Config, Output
from meshfed.federation.cli.output import Finding, Format, rendered, say, terminal_width, write
from meshfed.federation.cli.past import pushed
from meshfed.federation.explain.kinds import Kind

if TYPE_CHECKING:
    from meshfed.catalog.model import Workload
    from meshfed.federation.explain.config import Held, Line

TABLE = ("type", "name", "wanted", "live", "state", "about")
COLUMNS = {
    Format.TABLE: TABLE,
    Format.CSV: (*TABLE, "acked"),
    Format.JSON: (*TABLE, "acked", "config"),
    Format.YAML: (*TABLE, "acked", "config"),
}


def config(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A workload's name, or its id.")],
    kind: Annotated[
        Kind | None, typer.Argument(metavar="[TYPE]", help="Only this.", show_default=False)
    ] = None,
    diff: Annotated[
        bool,
        typer.Option("--diff", help="Only what the live Envoy has otherwise; exit code 1 if any."),
    ] = False,
    at: At = None,
    output: Output = Format.TABLE,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Say what a proxy should have, what it acknowledged, and what its Envoy has.

    TYPE is clusters, listeners, routes, endpoints or secrets. What it should have is worked out
    from the catalog; the Envoy is asked where its admin port can be reached from here. Keys are
    never shown. With --at: the versions that it had been sent by then, where `serve` has recorded
    them (`history.record_pushes`).

    Example: meshfed proxy config store-1 listeners --diff
    """
    from meshfed.catalog.view import Anonymous
    from meshfed.federation.bootstrap import Unbootstrappable, named
    from meshfed.federation.explain.config import lines, wanted

    url = catalog_there(catalog, config)
    if at is not None:
        if diff:
            raise typer.BadParameter("no Envoy has what is past", param_hint="--diff")
        pushed(url, name, kind.short if kind else "", at, output)
        return
    facts = gathered(url)
    try:
        workload = named(name, facts.mesh.everyone)
        should = wanted(facts.mesh, workload, facts.resolved)
    except (Unbootstrappable, Anonymous) as why:
        raise Finding(why) from why
    has = _live(workload, diff=diff)
    every = lines(should, _acknowledged(url, workload), has)
    ours = [each for each in every if kind is None or each.type == kind.short]
    told = [each for each in ours if not diff or each.state != "same"]
    _print(told, output)
    if diff and told:
        raise Finding(*(f"{each.type} {each.name}: {each.state}" for each in told))
    if diff:
        say(f"{workload.name} has all {len(ours)} resources as they should be")


def _live(workload: "Workload", *, diff: bool) -> "tuple[Held, ...] | None":
    from meshfed.federation.explain.envoy import Elsewhere, held

    try:
        return held(workload)
    except Elsewhere as why:
        if diff:
            raise Finding(why) from why
        say(str(why))
        return None


def _acknowledged(url: str, workload: "Workload") -> dict[str, str]:
    from meshfed.federation.cli.reading import as_rows
    from meshfed.federation.cli.source import rows

    asked = f"select type, acked_version from mesh_proxy_sync where proxy = '{workload.id}'"
    return {str(row["type"]): str(row["acked_version"] or "") for row in as_rows(rows(url, asked))}


def _print(told: "list[Line]", output: Format) -> None:
    columns = COLUMNS[output]
    rows = [tuple(getattr(each, column) for column in columns) for each in told]
    write(rendered(columns, rows, output, terminal_width()) if rows else _empty(output))


def _empty(output: Format) -> str:
    return rendered(TABLE, [], output) if output is not Format.TABLE else ""
