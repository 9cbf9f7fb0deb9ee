"""What one workload needs to connect: its key, its certificate, and where to ask."""

import asyncio
import shlex
import socket
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from meshfed.catalog.model import Interception, Workload
from meshfed.catalog.store import Catalog
from meshfed.federation.called import called, source
from meshfed.federation.certificates import proxyfiles
from meshfed.federation.certificates.issuer import Unissuable, UnknownIssuer, load
from meshfed.federation.certificates.keys import Unsealable
from meshfed.federation.findings import nearest
from meshfed.federation.settings import Settings
from meshfed.xds.bootstrap import ENVOY, LEVEL


class Unbootstrappable(Exception):
    """Nothing can be set up for this name; one line, with what to do."""


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What was written, and how to start what uses it."""

    files: tuple[Path, ...]
    start: str


def named(name: str, workloads: Iterable[Workload]) -> Workload:
    """The workload of a name or an id. Raises Unbootstrappable."""
    everyone = tuple(workloads)
    found = [workload for workload in everyone if name in (workload.name, workload.id)]
    if not found:
        raise Unbootstrappable(f"no workload {name}{_perhaps(name, everyone)}")
    if len(found) > 1:
        which = ", ".join(f"{each.id} ({each.scope})" for each in found)
        raise Unbootstrappable(f"{len(found)} workloads are called {name}; use an id: {which}")
    if found[0].identity is None:
        raise Unbootstrappable(f"{name} has no identity: give it one where {found[0].scope} says")
    return found[0]


def control_plane(listen: str, addresses: Sequence[str]) -> str:
    """Where a workload at these addresses finds what listens on `listen`.

    A wildcard is replaced by the address of this machine that the kernel would send from to that
    workload: on its own machine 127.0.0.1, on a machine of several networks the right one.
    """
    host, _, port = listen.rpartition(":")
    if not (wildcard := _wildcard(host)):
        return listen
    families = (socket.AF_INET,) if wildcard == 4 else (socket.AF_INET6, socket.AF_INET)
    for family in families:
        for address in addresses:
            if found := source(family, address):
                return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"
    return f"{socket.getfqdn()}:{port}"


def _wildcard(host: str) -> int:
    """The IP version of which this is the wildcard, or 0."""
    try:
        address = ip_address(host.strip("[]") or "::")
    except ValueError:
        return 0
    return address.version if address.is_unspecified else 0


def _perhaps(name: str, workloads: Sequence[Workload]) -> str:
    if not workloads:
        return ": none is known yet; is `meshfed serve` running?"
    near = nearest(name, {workload.name for workload in workloads})
    return f"; did you mean {near}?" if near else "; see `meshfed get workloads`"


def proxyless(workload: Workload, *, asked: bool) -> bool:
    """Whether it is told through its own gRPC library. Raises Unbootstrappable."""
    itself = workload.interception is Interception.GRPC
    if asked and not itself:
        said = f"the interception of {workload.name} is {workload.interception}"
        raise Unbootstrappable(f"--grpc: {said}: write `grpc` where {workload.scope} says")
    return itself


def verifiable(where: str, settings: Settings) -> None:
    """gRPC looks for the name that it dials in the certificate. Raises Unbootstrappable."""
    host = where.rpartition(":")[0].strip("[]")
    if host not in called(settings.xds.listen, settings.xds.names):
        why = f"the control plane's certificate does not name {host}, which gRPC looks for"
        raise Unbootstrappable(f"--xds: {why}: add it to xds.names")


async def bootstrap(
    settings: Settings, name: str, folder: Path, *, xds: str | None = None, grpc: bool = False
) -> Bootstrapped:
    """Write all that it needs into a folder, or renew it. Raises Unbootstrappable, Away.

    It signs with the authority in the catalog, so it works where the control plane's key is, and
    `serve` need not run.
    """
    domain = settings.mesh.trust_domain
    with closing(Catalog(settings.catalog)) as catalog:
        workload = named(name, (await catalog.read()).everyone)
        try:
            where = xds or control_plane(settings.xds.listen, workload.addresses)
            if itself := proxyless(workload, asked=grpc):
                start = proxyfiles.start_grpc(workload, where, folder)
                verifiable(where, settings)
            else:
                start = proxyfiles.start(
                    workload, domain, where, proxyfiles.admin(workload), folder
                )
            issuer = await load(settings.certificates.issuer).open(
                trust_domain=domain, safe=catalog, seal=settings.certificates.seal
            )
            secrets = await proxyfiles.credentials(
                issuer, workload, domain, settings.certificates.proxy_lifetime
            )
        except (Unissuable, UnknownIssuer, Unsealable) as why:
            raise Unbootstrappable(str(why)) from why
        except ValueError as why:
            raise Unbootstrappable(f"--xds: {why}") from why
    at = await asyncio.to_thread(folder.absolute)
    files = {**start, **secrets}
    await asyncio.to_thread(proxyfiles.write, at, files)
    envoy = shlex.join((*ENVOY, "--log-level", LEVEL, "--config-path", str(at / proxyfiles.ENVOY)))
    told = f"start it with: {envoy}"
    if itself:
        told = f"start it with {proxyfiles.VARIABLE}={shlex.quote(str(at / proxyfiles.GRPC))}"
    return Bootstrapped(tuple(at / name for name in files), told)
