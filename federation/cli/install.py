"""`meshfed install`, `upgrade` and `uninstall`: the chart into a cluster, and out of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from meshfed.federation.cli.namespace import Context, Kubeconfig
from meshfed.federation.cli.output import Finding, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshfed.federation.install.release import Release, Values, Where
    from meshfed.providers.kubernetes.access import Line

T = TypeVar("T")

Namespace = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NS", help="Where the control plane is.")
]
ValuesFile = Annotated[
    Path | None,
    typer.Option("-f", "--values", metavar="FILE", help="Values of the chart.", show_default=False),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One value, over the file's; again for more."),
]


def install(
    values: ValuesFile = None,
    assigned: Set = None,
    namespace: Namespace = "meshfed",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Install the control plane into a cluster of Kubernetes, by this package's chart and Helm.

    The namespace is made if it is not there. Values are checked before anything is written.

    Example: meshfed install --set image.repository=shop.azurecr.io/meshfed --context aks-weu
    """
    from meshfed.federation.install.cluster import housed

    where, said = _where(namespace, context, kubeconfig), _said(values, assigned)
    with _released(where) as release:
        if release.manifest() is not None:
            raise Finding(f"{namespace}: meshfed is installed there already: meshfed upgrade")
        release.checked(said, over=False)
        if _asked(where, lambda api: housed(api, namespace)):
            say(f"namespace {namespace} made, for pods of the level `restricted`")
        release.install(said)
    say(f"installed: kubectl -n {namespace} rollout status deployment/meshfed")


def upgrade(
    values: ValuesFile = None,
    assigned: Set = None,
    namespace: Namespace = "meshfed",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Bring the control plane to this package's version and to other values, its CRDs too.

    What was said before still holds where nothing else is said.

    Example: meshfed upgrade --set settings.mesh.permissive=true
    """
    where, said = _where(namespace, context, kubeconfig), _said(values, assigned)
    with _released(where) as release:
        before = release.manifest()
        if before is None:
            raise Finding(f"{namespace}: meshfed is not installed there: meshfed install")
        release.checked(said, over=True)
        release.upgrade(said)
        changed = release.manifest() != before
    say("upgraded" if changed else "upgraded: nothing is different")


def uninstall(
    crds: Annotated[
        bool, typer.Option("--crds", help="Delete CRDs that have objects, and these with them.")
    ] = False,
    namespace: Namespace = "meshfed",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take the control plane out of a cluster: the webhook first, then all that was installed.

    The catalog on its volume goes too, and the mesh's root key in it: `meshfed backup` keeps them.
    CRDs with objects stay, and whatever is of another release or namespace. Pods keep their
    sidecars until they are restarted.

    Example: meshfed uninstall --context aks-weu
    """
    from meshfed.federation.install.chart import RELEASE
    from meshfed.federation.install.cluster import Owner

    where, owner = _where(namespace, context, kubeconfig), Owner(RELEASE, namespace)

    async def found(api: "Line") -> bool:
        """Whether the webhook was there, which is gone now, or a CRD is."""
        from meshfed.federation.install.cluster import definitions, unhooked

        return await unhooked(api, owner) or bool(await definitions(api, owner))

    async def left(api: "Line") -> None:
        from meshfed.federation.install.cluster import counted, definitions, undefined, unhoused
        from meshfed.providers.kubernetes.membership import namespaces

        for each in await definitions(api, owner):
            count = 0 if crds else await counted(api, each.spec)
            if count == 0:
                await undefined(api, each)
            else:
                many = f"there are {count}" if count else "no version is served"
                say(f"kept: {each.metadata.name}, of which {many}; --crds deletes them")
        members = sorted({m.namespace for ns in await namespaces(api) for m in ns.members})
        if members:
            say(f"still labelled for a mesh: {', '.join(members)}: restart their pods")
        if await unhoused(api, namespace):
            say(f"namespace {namespace} deleted, which install had made")

    with _released(where) as release:
        installed = release.manifest() is not None
        # Without the release, what an uninstall that was interrupted left of it.
        if not (_asked(where, found) or installed):
            raise Finding(f"{namespace}: nothing of meshfed is installed there")
        release.uninstall()
    _asked(where, left)
    say("uninstalled")


def _where(namespace: str, context: str | None, kubeconfig: Path | None) -> "Where":
    from meshfed.federation.install.release import Where

    return Where(namespace, context or "", kubeconfig)


def _said(file: Path | None, assigned: list[str] | None) -> "Values":
    from meshfed.federation.install.release import Values

    return Values(file, tuple(assigned or ()))


@contextmanager
def _released(where: "Where") -> "Iterator[Release]":
    from meshfed.federation.install.chart import Refused
    from meshfed.federation.install.release import Failed, Release

    try:
        yield Release(where)
    except Refused as refused:
        raise Finding(*refused.lines) from refused
    except Failed as failed:
        raise Finding(failed) from failed


def _asked(where: "Where", act: "Callable[[Line], Awaitable[T]]") -> T:
    from meshfed.federation.cli.namespace import asked

    return asked(act, where.context, where.kubeconfig)
