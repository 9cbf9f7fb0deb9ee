"""SMI as somebody applies it to a cluster, and all that a source tells of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from clusters import SOON, namespace
from kube.cluster import Cluster

from meshfed.catalog.model import Specified, TcpRoute
from meshfed.federation.specification.cluster import ClusterSpecification
from meshfed.federation.specification.specification import Specification
from meshfed.providers.kubernetes.options import OSM, OURS, Monitored, Where
from meshfed.providers.kubernetes.reflect import Pace

PATIENCE = 10.0
CRDS = Path(__file__).parent.parent / "deploy/crds"
ALL = Monitored(labels=(OURS, OSM))
Object = dict[str, Any]


def crds(*kinds: str) -> list[Object]:
    read = [yaml.load(file.read_text(), yaml.CSafeLoader) for file in sorted(CRDS.glob("*.yaml"))]
    return [each for each in read if not kinds or each["spec"]["names"]["kind"] in kinds]


def route(name: str, *ports: int, home: str = "shop") -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "TCPRoute",
        "metadata": {"name": name, "namespace": home},
        "spec": {"matches": {"ports": list(ports)}},
    }


def group(name: str, regex: str, home: str = "shop") -> Object:
    """OpenAPI takes any expression; the mesh does not."""
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "HTTPRouteGroup",
        "metadata": {"name": name, "namespace": home},
        "spec": {"matches": [{"name": "all", "pathRegex": regex}]},
    }


def split(version: str, **weights: int) -> Object:
    backends = [{"service": name, "weight": weight} for name, weight in weights.items()]
    return {
        "apiVersion": f"split.smi-spec.io/{version}",
        "kind": "TrafficSplit",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "backends": backends},
    }


BROKEN = "(?=never"


def prepared(cluster: Cluster) -> Cluster:
    """A monitored namespace, and the kinds of SMI."""
    for crd in crds():
        cluster.create(crd)
        cluster.established(crd)
    cluster.put(namespace())
    return cluster


def source(cluster: Cluster, monitored: Monitored = ALL, pace: Pace = SOON) -> ClusterSpecification:
    where = Where(cluster.name, cluster.kubeconfig)
    return ClusterSpecification(f"kubernetes:{cluster.name}", where, monitored, pace)


class Told:
    """All that a source told."""

    def __init__(self, specification: Specification) -> None:
        self.specification = specification
        self.all: list[Specified] = []
        self._moved = asyncio.Event()

    async def run(self) -> None:
        async for said in self.specification.watch():
            self.all.append(said)
            self._moved.set()

    @property
    def newest(self) -> Specified:
        return self.all[-1]

    @property
    def ports(self) -> dict[str, list[int]]:
        """Of TCPRoutes, by name."""
        policies = [policy for policy, _ in self.newest.policies]
        return {p.name.name: sorted(p.ports) for p in policies if isinstance(p, TcpRoute)}

    async def until(self, so: Callable[["Told"], object]) -> Specified:
        async with asyncio.timeout(PATIENCE):
            while not (self.all and so(self)):
                self._moved.clear()
                await self._moved.wait()
        return self.newest


@asynccontextmanager
async def telling(specification: Specification) -> AsyncIterator[Told]:
    told = Told(specification)
    task = asyncio.create_task(told.run())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
