"""How long a pod's readiness takes to reach everyone: from a cluster, through a real `serve`.

The API server, the control plane and the proxies are processes of their own, on the same cores. A
pod in an EndpointSlice becomes unready and ready in turn, by PATCH; what the API server takes until
it tells its watchers is in the figure.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext, create_default_context

import aiohttp
import given
from figures import Figure
from propagation import APART, connected

from meshfed.demo.kube.papers import Authority
from meshfed.federation.demo.control import Control
from meshfed.federation.demo.folder import Folder, free_ports
from meshfed.federation.demo.measure import Edit

NAMESPACE = "bench"
TOKEN = "bench"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
PATCH = "application/json-patch+json"

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Cluster:
    host: str
    tls: SSLContext

    async def patch(self, session: aiohttp.ClientSession, *, ready: bool) -> float:
        """The first pod of the first service is this; when that was asked for."""
        path = "/endpoints/0/conditions/ready"
        change = [{"op": "replace", "path": path, "value": ready}]
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": PATCH}
        url = f"{self.host}{SLICES}/app-0"
        asked = time.time()
        async with session.patch(
            url, data=json.dumps(change), headers=headers, ssl=self.tls
        ) as answer:
            answer.raise_for_status()
        return asked


async def readiness(folder: Path, proxies: int, times: int) -> list[Figure]:
    """Of a pod that is not ready and of one that is, so many times in all."""
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    where = Folder(folder, given.DOMAIN, admin)
    async with apiserver(folder, proxies) as cluster:
        furnish(where, proxies, xds)
        names = [f"pod-{n}.{NAMESPACE}" for n in range(proxies)]
        async with connected(where, xds, names) as control, aiohttp.ClientSession() as session:
            # The first pair is not counted: a connection is made, and modules are loaded.
            taken = [
                await measured(control, cluster, session, ready=bool(n % 2))
                for n in range(times + 2)
            ]
    return list(told(taken[2:], proxies))


async def measured(
    control: Control, cluster: Cluster, session: aiohttp.ClientSession, *, ready: bool
) -> Edit:
    before = await control.revision()
    asked = await cluster.patch(session, ready=ready)
    edit = await control.acknowledged(before + 1, asked)
    await asyncio.sleep(APART)
    return edit


def told(edits: list[Edit], proxies: int) -> Iterator[Figure]:
    everyone = f"the last of {proxies} proxies acknowledged"
    yield Figure(
        "a pod's readiness: event → last ACK",
        tuple(edit.edit_to_ack_ms for edit in edits),
        f"from the PATCH of an EndpointSlice until {everyone}",
    )
    yield Figure(
        "a pod's readiness: commit → last ACK",
        tuple(edit.propagation_ms for edit in edits),
        f"from the catalog's commit until {everyone}",
    )


# The cluster


@asynccontextmanager
async def apiserver(folder: Path, pods: int) -> AsyncIterator[Cluster]:
    """An API server with so many pods, ten in a service, and its kubeconfig in the folder."""
    authority = Authority.make(folder)
    paper = authority.serves()
    tokens, objects = folder / "tokens.csv", folder / "objects.json"
    tokens.write_text(f"{TOKEN},bench,bench,system:masters\n")
    objects.write_text("".join(f"{json.dumps(each)}\n" for each in things(pods)))
    (port,) = free_ports(1)
    flags = {
        "secure-port": port,
        "client-ca-file": authority.file,
        "tls-cert-file": paper.certificate,
        "tls-private-key-file": paper.key,
        "token-auth-file": tokens,
        "plant": objects,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "meshfed.demo.kube",
        *(f"--{name}={value}" for name, value in flags.items()),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        host = (await process.stdout.readline()).decode().strip()
        (folder / "kubeconfig.json").write_text(json.dumps(kubeconfig(host, authority.file)))
        yield Cluster(host, create_default_context(cafile=str(authority.file)))
    finally:
        process.kill()
        await process.wait()


def kubeconfig(host: str, authority: Path) -> Json:
    cluster = {"server": host, "certificate-authority": str(authority)}
    return {
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [{"name": "bench", "cluster": cluster}],
        "users": [{"name": "bench", "user": {"token": TOKEN}}],
    }


def furnish(where: Folder, pods: int, xds: str) -> None:
    where.split.parent.mkdir()
    (where.split.parent / "access.yaml").write_text(given.access(pods))
    provider = {
        "name": "bench",
        "type": "kubernetes",
        "kubeconfig": "kubeconfig.json",
        "namespaces": [NAMESPACE],
    }
    where.config.write_text(given.configuration(xds, where.admin, provider))


def things(pods: int) -> Iterator[Json]:
    yield thing("v1", "Namespace", NAMESPACE, "")
    for n, name in enumerate(given.services(pods)):
        ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
        spec = {"clusterIP": f"10.96.0.{n + 1}", "selector": {"app": name}, "ports": ports}
        yield thing("v1", "Service", name, spec=spec)
        members = range(n * given.GROUP, min(pods, (n + 1) * given.GROUP))
        for m in members:
            spec = {"serviceAccountName": name, "containers": [{"name": "app", "image": "app"}]}
            status = {"phase": "Running", "podIPs": [{"ip": address(m)}]}
            yield thing("v1", "Pod", f"pod-{m}", spec=spec, status=status)
        yield thing(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            name,
            addressType="IPv4",
            endpoints=[endpoint(m) for m in members],
            ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
        )


def endpoint(pod: int) -> Json:
    named = {"kind": "Pod", "name": f"pod-{pod}", "namespace": NAMESPACE, "uid": f"uid-pod-{pod}"}
    conditions = {"ready": True, "serving": True, "terminating": False}
    return {"addresses": [address(pod)], "conditions": conditions, "targetRef": named}


def address(pod: int) -> str:
    return f"10.{pod >> 16}.{pod >> 8 & 255}.{pod & 255}"


def thing(version: str, kind: str, name: str, namespace: str = NAMESPACE, **rest: object) -> Json:
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "labels": {"kubernetes.io/service-name": name},
        "annotations": {"meshfed.io/interception": "transparent"},
    }
    home = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": metadata | home, **rest}
