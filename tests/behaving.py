"""The mesh of test_behaviour.py: its hosts, its policy, its applications and Envoys."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import live
from applications import Web, echo, greet, listening, trickle
from forged import own_tls

SERVER = "127.0.3.1"
WEBS = {"server": SERVER, "spare": "127.0.3.2", "leaver": "127.0.3.3", "six": "::1"}
WEB, RPC, LEDGER, GREETER, TRICKLE, SECURE = range(14001, 14007)  # where applications listen

HOSTS = """\
services:
  web.live:     {ports: {http: {number: 8080, target: 14001}}}
  shop.live:    {ports: {http: 8080}}
  shop-a.live:  {ports: {http: {number: 8080, target: 14001}}}
  shop-b.live:  {ports: {http: {number: 8080, target: 14001}}}
  pair.live:    {ports: {http: {number: 8080, target: 14001}}}
  six.live:     {ports: {http: {number: 8080, target: 14001}}}
  wide.live:    {ports: {http: {number: 8080, target: 14001}}}
  several.live:
    ports: {one: {number: 8081, target: 14001}, two: {number: 8082, target: 14001}}
  eighty.live:
    ports: {http: {number: 80, target: 14001}, two: {number: 8082, target: 14001}}
  rpc.live:     {ports: {grpc: {number: 9090, target: 14002}}, protocol: grpc}
  ledger.live:
    protocol: tcp
    ports:
      open:   {number: 3306, target: 14003, local: 13306}
      closed: {number: 3307, target: 14003, local: 13307}
  greeter.live: {ports: {smtp: {number: 25, target: 14004, local: 10025}}, protocol: tcp}
  trickle.live:
    protocol: tcp
    ports:
      feed:   {number: 7000, target: 14005, local: 17000}
      shared: {number: 7001, target: 14005, local: 17001}
  secure.live:
    protocol: https
    ports:
      open:   {number: 443, target: 14006, local: 10443}
      closed: {number: 8443, target: 14006, local: 18443}
hosts:
  - {name: caller, identity: caller.live,
     address: 127.0.2.1, bind: 127.0.2.1, application: 127.0.2.1}
  - {name: stranger, identity: stranger.live,
     address: 127.0.2.2, bind: 127.0.2.2, application: 127.0.2.2}
  - {name: server, identity: server.live,
     address: 127.0.3.1, bind: 127.0.3.1, application: 127.0.3.1,
     service: [web.live, shop-a.live, pair.live, several.live, eighty.live, rpc.live,
               ledger.live, greeter.live, trickle.live, secure.live]}
  - {name: spare, identity: spare.live, service: shop-b.live,
     address: 127.0.3.2, bind: 127.0.3.2, application: 127.0.3.2}
  - {name: six, identity: six.live, service: six.live,
     address: "::1", bind: "::1", application: "::1"}
  - {name: wide, identity: wide.live, service: wide.live, address: 127.0.3.9}
"""
LEAVER = """\
  - {name: leaver, identity: leaver.live, service: pair.live,
     address: 127.0.3.3, bind: 127.0.3.3, application: 127.0.3.3}
"""

ROUTES = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: web, namespace: live}
spec:
  matches:
    - {name: read, pathRegex: /read/.*, methods: [GET]}
    - {name: keyed, pathRegex: /keyed, methods: [GET, POST], headers: [{x-key: "open-.*"}]}
    - {name: socket, pathRegex: /socket, methods: [GET]}
    - {name: echo, pathRegex: /live.Echo/.*, methods: [POST]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: open, namespace: live}
spec:
  matches: {name: open, ports: [3306, 25, 443]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: feed, namespace: live}
spec:
  matches: {name: feed, ports: [7000, 7001]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: shared, namespace: live}
spec:
  matches: {name: shared, ports: [7001]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: shop, namespace: live}
spec:
  service: shop
  backends: [{service: shop-a, weight: 75}, {service: shop-b, weight: 25}]
"""


def target(source: str, destination: str, kind: str, route: str) -> str:
    return f"""\
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {source}-{destination}-{route}, namespace: live}}
spec:
  destination: {{kind: ServiceAccount, name: {destination}, namespace: live}}
  sources: [{{kind: ServiceAccount, name: {source}, namespace: live}}]
  rules: [{{kind: {kind}, name: {route}}}]
"""


HTTP = [target("caller", destination, "HTTPRouteGroup", "web") for destination in WEBS]
TCP = [target(source, "server", "TCPRoute", "open") for source in ("caller", "wide")]
TCP.append(target("stranger", "server", "TCPRoute", "shared"))
FEED = target("caller", "server", "TCPRoute", "feed")
POLICY = {"routes.yaml": ROUTES, "access.yaml": "".join(HTTP + TCP), "feed.yaml": FEED}


@dataclass
class World:
    """Everything that runs, shared by every test: each leaves it as it was."""

    mesh: live.Mesh
    webs: dict[str, Web]
    own_tls: ssl.SSLContext  # what callers of secure.live trust

    @property
    def caller(self) -> live.Sidecar:
        return self.mesh.sidecars["caller"]

    @property
    def stranger(self) -> live.Sidecar:
        return self.mesh.sidecars["stranger"]


@asynccontextmanager
async def rpc(host: str, port: int) -> AsyncIterator[None]:
    """A gRPC server: live.Echo/Say answers once, live.Echo/Count many times, as asked."""

    async def say(request: bytes, _: object) -> bytes:
        return b"you said " + request

    async def count(request: bytes, _: object) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    methods = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Shout": grpc.unary_unary_rpc_method_handler(say),
    }
    server = grpc.aio.server()
    for service in ("live.Echo", "live.Other"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[World]:
    webs = {name: Web(name) for name in WEBS if name != "six" or live.ipv6()}
    served, trusted = own_tls("secure.live")
    applications = [
        *(listening(web, WEBS[name], WEB) for name, web in webs.items()),
        listening(echo, SERVER, LEDGER),
        listening(greet, SERVER, GREETER),
        listening(trickle, SERVER, TRICKLE),
        listening(Web("secure"), SERVER, SECURE, served),
        rpc(SERVER, RPC),
    ]
    async with AsyncExitStack() as stack:
        for application in applications:
            await stack.enter_async_context(application)
        mesh = live.mesh(folder, HOSTS + LEAVER, POLICY, "caller", "stranger", *webs)
        yield World(await stack.enter_async_context(mesh), webs, trusted)
