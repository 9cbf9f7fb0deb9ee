"""The mesh whose xDS port is attacked: two namespaces that know nothing of each other."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

from live import Mesh
from strangers import Client

HOSTS = """\
services:
  store.shop:   {ports: {http: {number: 8080, target: 14001}}}
  counter.cafe: {ports: {http: {number: 8080, target: 14002}}}
  till.cafe:    {ports: {mysql: {number: 3306, protocol: tcp, local: 13306}}}
hosts:
  - {name: buyer, address: 127.0.7.1, identity: buyer.shop, interception: explicit}
  - {name: store, address: 127.0.7.2, service: store.shop, identity: store.shop}
  - {name: barista, address: 127.0.7.3, service: counter.cafe, identity: barista.cafe}
  - {name: till, address: 127.0.7.4, service: till.cafe, identity: till.cafe}
  - {name: guest, address: 127.0.7.5, identity: guest.cafe, interception: explicit}
  - {name: leaver, address: 127.0.7.6, identity: leaver.shop, interception: explicit}
  - {name: turncoat, address: 127.0.7.7, identity: loyal.shop, interception: explicit}
"""
MORE = "  - {name: late, address: 127.0.7.8, identity: late.shop}\n"
TARGET = """\
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {destination}, namespace: {namespace}}}
spec:
  destination: {{kind: ServiceAccount, name: {destination}, namespace: {namespace}}}
  sources: [{{kind: ServiceAccount, name: {source}, namespace: {namespace}}}]
  rules: [{{kind: {rule}, name: any}}]
---
"""
ROUTES = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {{name: any, namespace: {namespace}}}
spec: {{matches: [{{name: any, pathRegex: /.*, methods: ["*"]}}]}}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {{name: any, namespace: {namespace}}}
spec: {{matches: {{ports: [3306]}}}}
---
"""
TARGETS = (
    ("buyer", "store", "shop", "HTTPRouteGroup"),
    ("guest", "barista", "cafe", "HTTPRouteGroup"),
    ("guest", "till", "cafe", "TCPRoute"),
)
POLICY = "".join(ROUTES.format(namespace=each) for each in ("shop", "cafe")) + "".join(
    TARGET.format(source=source, destination=destination, namespace=namespace, rule=rule)
    for source, destination, namespace, rule in TARGETS
)

Connect = Callable[..., AbstractAsyncContextManager[Client]]


@contextmanager
def attacked(folder: Path) -> Iterator[Mesh]:
    """The control plane alone: clients are what these tests are about."""
    made = Mesh(folder, HOSTS, {"policy.yaml": POLICY})
    try:
        asyncio.run(made.serve())
        yield made
    finally:
        made.end()
