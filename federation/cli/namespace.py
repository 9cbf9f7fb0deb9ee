"""`meshfed namespace`: which namespaces of a cluster are in the mesh."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from meshfed.federation.cli.options import Output
from meshfed.federation.cli.output import Finding, Format, nearest, rendered, say, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshfed.providers.kubernetes.access import Line
    from meshfed.providers.kubernetes.membership import Namespace

T = TypeVar("T")

MESH = "meshfed"
COLUMNS = ("namespace", "mesh", "label")

app = typer.Typer(no_args_is_help=True, help="Put namespaces of a cluster into the mesh, or out.")

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="One namespace or several.")]
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="C", help="The kubeconfig's context; else its current one."),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig", metavar="FILE", help="Else what KUBECONFIG names, else ~/.kube/config."
    ),
]


@app.command()
def add(
    names: Names,
    mesh: Annotated[
        str, typer.Option("--mesh", metavar="M", help="The mesh, as providers select it.")
    ] = MESH,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Put namespaces into a mesh: its providers see their services and pods from now on.

    Pods that are made there from now on get sidecars; `kubectl rollout restart` makes them anew.

    Example: meshfed namespace add shop --context aks-weu
    """

    async def added(api: "Line") -> None:
        from meshfed.providers.kubernetes.membership import label
        from meshfed.providers.kubernetes.options import OURS

        for found in await _found(api, names):
            name = found.metadata.name
            before = next((m.mesh for m in found.members if m.label == OURS), mesh)
            if before != mesh:
                why = f"take it out of that first: meshfed namespace remove {name}"
                raise Finding(f"{name}: is in the mesh {before}; {why}")
            await label(api, name, mesh)
            say(f"{name}: in the mesh {mesh}")

    asked(added, context, kubeconfig)


@app.command()
def remove(names: Names, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Take namespaces out of the mesh: their services and pods leave it.

    Pods that are made there from now on get no sidecars; `kubectl rollout restart` makes them anew.

    Example: meshfed namespace remove shop --context aks-weu
    """

    async def removed(api: "Line") -> None:
        from meshfed.providers.kubernetes.membership import label
        from meshfed.providers.kubernetes.options import OSM

        for found in await _found(api, names):
            name = found.metadata.name
            await label(api, name, None)
            still = any(each.label == OSM for each in found.members)
            more = f"; still labelled {OSM}, which kubectl takes away" if still else ""
            say(f"{name}: in no mesh{more}")

    asked(removed, context, kubeconfig)


@app.command("list")
def list_(
    output: Output = Format.TABLE, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """List the namespaces that are in a mesh, by meshfed's label or Open Service Mesh's.

    Example: meshfed namespace list --context aks-weu
    """

    async def listed(api: "Line") -> list[tuple[str, str, str]]:
        from meshfed.providers.kubernetes.membership import namespaces

        members = [each for found in await namespaces(api) for each in found.members]
        return [(each.namespace, each.mesh, each.label) for each in members]

    write(rendered(COLUMNS, asked(listed, context, kubeconfig), output))


async def _found(api: "Line", names: list[str]) -> "list[Namespace]":
    """All of them, before anything is done to any. Raises Finding."""
    from meshfed.providers.kubernetes.membership import namespaces

    there = {found.metadata.name: found for found in await namespaces(api)}
    missing = [name for name in names if name not in there]
    if missing:
        raise Finding(*(f"no namespace {name}: {nearest(name, there)}" for name in missing))
    return [there[name] for name in names]


def asked(act: "Callable[[Line], Awaitable[T]]", context: str | None, kubeconfig: Path | None) -> T:
    """What `act` finds out of a cluster, or does there. Raises Finding."""
    import asyncio

    import msgspec

    from meshfed.providers.kubernetes.access import line
    from meshfed.providers.kubernetes.messages import Refused, Unreachable
    from meshfed.providers.kubernetes.options import Where
    from meshfed.providers.kubernetes.reflect import PACE

    async def whole() -> T:
        api = line(Where(context or "", kubeconfig), PACE)
        try:
            return await act(api)
        finally:
            await api.close()

    try:
        return asyncio.run(whole())
    except (Unreachable, Refused) as error:
        raise Finding(error) from error
    except msgspec.DecodeError as error:
        raise Finding(f"the cluster does not answer as Kubernetes does: {error}") from error
