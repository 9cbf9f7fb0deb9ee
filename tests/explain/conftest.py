"""One real mesh for all who explain it: a control plane, Envoys, and applications."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import live
import pytest
import pytest_asyncio
from applications import Web, echo, listening

from meshfed.federation.cli.main import main
from meshfed.federation.explain.callers import callers
from meshfed.federation.explain.facts import Facts, gathered
from meshfed.federation.explain.judge import Asked, Known, Path
from meshfed.federation.explain.path import path

WEBS = {"server": "127.0.5.1", "spare": "127.0.5.2"}
WEB, LEDGER = 14101, 14103

HOSTS = """\
services:
  web.live:    {ports: {http: {number: 8080, target: 14101}}}
  both.live:   {ports: {http: {number: 8080, target: 14101}}}
  lost.live:   {ports: {http: 8080}}
  shop.live:   {ports: {http: 8080}}
  shop-a.live: {ports: {http: {number: 8080, target: 14101}}}
  shop-b.live: {ports: {http: {number: 8080, target: 14101}}}
  empty.live:  {ports: {http: 8080}}
  several.live:
    ports: {one: {number: 8081, target: 14101}, two: {number: 8082, target: 14101}}
  open.live:   {ports: {http: {number: 8080, target: 14101}}, plaintext: allow}
  shut.live:   {ports: {http: {number: 8080, target: 14101}}}
  ledger.live:
    protocol: tcp
    ports:
      open:   {number: 3306, target: 14103, local: 14306}
      closed: {number: 3307, target: 14103, local: 14307}
      bare:   {number: 3308, target: 14103}
hosts:
  - {name: caller, identity: caller.live,
     address: 127.0.4.1, bind: 127.0.4.1, application: 127.0.4.1}
  - {name: stranger, identity: stranger.live,
     address: 127.0.4.2, bind: 127.0.4.2, application: 127.0.4.2}
  - {name: late, identity: late.live,
     address: 127.0.4.3, bind: 127.0.4.3, application: 127.0.4.3}
  - {name: gone, identity: gone.live, service: lost.live,
     address: 127.0.5.9, bind: 127.0.5.9, application: 127.0.5.9}
  - {name: server, identity: server.live,
     address: 127.0.5.1, bind: 127.0.5.1, application: 127.0.5.1,
     service: [web.live, both.live, shop-a.live, several.live, ledger.live]}
  - {name: spare, identity: spare.live, service: [both.live, shop-b.live],
     address: 127.0.5.2, bind: 127.0.5.2, application: 127.0.5.2}
  - {name: bare, identity: bare.live, service: [open.live, shut.live], interception: none,
     address: 127.0.5.1}
"""

ROUTES = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: web, namespace: live}
spec:
  matches:
    - {name: read, pathRegex: /read/.*, methods: [GET]}
    - {name: keyed, pathRegex: /keyed, methods: [GET, POST], headers: [{x-key: "open-.*"}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: writing, namespace: live}
spec:
  matches: [{name: write, pathRegex: /write/.*, methods: ["*"]}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: open, namespace: live}
spec:
  matches: {name: open, ports: [3306, 3308]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: shop, namespace: live}
spec:
  service: shop
  backends: [{service: shop-a, weight: 75}, {service: shop-b, weight: 25}]
"""


def target(source: str, destination: str, *rules: str) -> str:
    told = ", ".join(f"{{kind: {rule.split()[0]}, name: {rule.split()[1]}}}" for rule in rules)
    return f"""\
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {source}-{destination}, namespace: live}}
spec:
  destination: {{kind: ServiceAccount, name: {destination}, namespace: live}}
  sources: [{{kind: ServiceAccount, name: {source}, namespace: live}}]
  rules: [{told}]
"""


ACCESS = (
    target("caller", "server", "HTTPRouteGroup web", "HTTPRouteGroup writing")
    # Beside an HTTPRouteGroup a TCPRoute narrows it: one of its own.
    + target("caller", "spare", "HTTPRouteGroup web")
    + target("caller", "bare", "HTTPRouteGroup web")
    + target("caller", "gone", "HTTPRouteGroup web")
    + target("caller", "server", "TCPRoute open").replace("caller-server", "caller-server-tcp")
)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def ran(*arguments: object) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@dataclass
class World:
    mesh: live.Mesh
    facts: Facts

    @property
    def url(self) -> str:
        return f"sqlite:///{self.mesh.folder}/meshfed.db"

    async def ask(self, *arguments: object) -> "Ended":
        """Runs a command beside the mesh, with its configuration."""
        return await asyncio.to_thread(ran, *arguments, "--config", self.mesh.config)

    def told(self, source: str, asked: Asked) -> Path:
        (who,) = callers(self.facts.mesh, source, self.facts.resolved)
        known = Known(self.facts.bearings.policies, self.facts.trouble())
        return path(self.facts.mesh, who, asked, known, self.facts.resolved)


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("path")
    async with AsyncExitStack() as running:
        for name, address in WEBS.items():
            web = listening(Web(name), address, WEB)
            await running.enter_async_context(web)
        await running.enter_async_context(listening(echo, WEBS["server"], LEDGER))
        policy = {"routes.yaml": ROUTES, "access.yaml": ACCESS}
        mesh = live.mesh(folder, HOSTS, policy, "caller", "stranger", *WEBS)
        made = await running.enter_async_context(mesh)
        yield World(made, await asyncio.to_thread(gathered, f"sqlite:///{folder}/meshfed.db"))


@pytest.fixture
def command() -> Callable[..., Ended]:
    """Runs a command; each names its catalog or configuration."""
    return ran
