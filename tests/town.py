"""The bookstore on four machines of a network, for test_town.py: `town.py FOLDER ROUNDS`.

Run as root in a network namespace of its own, which is that network; each machine is another on its
bridge: two pods of a cluster, a VM and a host. It prints what the machines' applications saw.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import shops
import yaml
from captured import ip
from clusters import endpoint, pod, service, slices
from kube.cluster import Cluster, running
from kube.given import labelled, namespace, thing
from live import Process, Sidecar
from test_inject_envoy import expanded
from test_inject_live import Shop

from meshfed.federation.bootstrap import bootstrap
from meshfed.federation.demo import envoys
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import free_ports, replace, weighted
from meshfed.federation.demo.processes import environment, tied_to
from meshfed.federation.inject.capture import USER, script
from meshfed.federation.inject.containers import FOLDER
from meshfed.federation.inject.decide import INIT, PROXY
from meshfed.federation.inject.wishes import Capture
from meshfed.federation.settings import Settings
from meshfed.xds.pod_bootstrap import PROBES_PORT

ROUTER = "10.77.0.1"  # and the control plane, the API server, and the name server there is none of
AT = {
    "bookbuyer": "10.77.0.11",
    "bookstore-v1": "10.77.0.12",
    "vm": "10.77.0.21",
    "host": "10.77.0.22",
}
PODS = ("bookbuyer", "bookstore-v1")
SHIPPED = Path(__file__).parents[1] / "deploy/demo/policy"
HOSTS = f"""\
services:
  bookstore.shop: {{ports: {{http: 8080}}}}  # the root of the split: nobody answers for it
  bookstore-v1.shop: {{ports: {{http: {{number: 8080, target: 14001}}}}}}
  bookstore-v2.shop: {{ports: {{http: {{number: 8080, target: 14003}}}}}}
  bookwarehouse.shop: {{ports: {{http: {{number: 8080, target: 14001}}}}}}
  ledger.shop: {{ports: {{mysql: {{number: 3306, target: 14002, protocol: tcp}}}}}}
hosts:
  - {{name: vm, platform: vm, address: {AT["vm"]}, interception: transparent,
     identity: bookstore-v2.shop, service: [bookstore-v1.shop, bookstore-v2.shop, ledger.shop]}}
  - {{name: host, address: {AT["host"]}, interception: transparent,
     identity: bookwarehouse.shop, service: bookwarehouse.shop}}
"""
# The VM has no identity for the ledger alone.
LEDGER = ("{kind: ServiceAccount, name: ledger,", "{kind: ServiceAccount, name: bookstore-v2,")
BUY = "http://bookstore.shop.mesh:8080 GET /buy-a-book/new"
STEAL = "http://bookwarehouse.shop.mesh:8080 POST /restock-books"  # not the buyer's to do
RESTOCK = "http://bookwarehouse.shop.mesh:8080 POST /restock-books"
APPLICATIONS = {
    "bookbuyer": {"calls": [BUY, STEAL]},
    "bookstore-v1": {"serves": [[14001, "bookstore-v1", "http", [RESTOCK]]]},
    "vm": {
        "serves": [
            [14001, "bookstore-v1", "http", [RESTOCK]],
            [14003, "bookstore-v2", "http", [RESTOCK]],
            [14002, "ledger", "tcp", []],
        ],
        "calls": [RESTOCK],
    },
    "host": {"serves": [[14001, "bookwarehouse", "http", ["tcp://ledger.shop.mesh:3306"]]]},
}
PLAIN = (("bookstore-v1", 14001), ("vm", 14003), ("host", 14001))
COUNTED = 0.4  # seconds of each phase
ASK = """\
import sys, urllib.request
asked = urllib.request.Request("http://127.0.0.1:15000" + sys.argv[2], method=sys.argv[1])
print(urllib.request.urlopen(asked, timeout=5).read().decode())
"""


@dataclass
class Machine:
    """A network namespace with an address on the bridge, for as long as this process lives."""

    name: str
    holder: subprocess.Popen[str]

    def inside(self, *command: str | Path, user: int = 0) -> tuple[str | Path, ...]:
        enter = ("nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "setpriv", "--clear-groups")
        # Whoever becomes another user is no longer tied to its parent, unless it says so itself.
        return (*enter, f"--reuid={user}", f"--regid={user}", "--pdeathsig=KILL", *command)

    def run(self, *command: str | Path) -> str:
        return subprocess.run(
            self.inside(*command), check=True, capture_output=True, text=True
        ).stdout

    def ask(self, method: str, path: str) -> str:
        """What its sidecar's admin page says, to itself alone."""
        return self.run(sys.executable, "-c", ASK, method, path)


def machine(name: str) -> Machine:
    holder = subprocess.Popen(
        ("unshare", "--net", "/bin/sh", "-c", "echo made; exec cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=tied_to(os.getpid()),
    )
    assert holder.stdout
    assert holder.stdout.readline() == "made\n"
    made = Machine(name, holder)
    wire = f"town{list(AT).index(name)}"
    ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
    ip("link", "set", wire, "master", "town", "up")
    made.run("ip", "link", "set", "lo", "up")
    made.run("ip", "address", "add", f"{AT[name]}/24", "dev", "eth0")
    made.run("ip", "link", "set", "eth0", "up")
    made.run("ip", "route", "add", "default", "via", ROUTER)
    return made


def bridge() -> None:
    ip("link", "set", "lo", "up")
    ip("link", "add", "town", "type", "bridge")
    ip("address", "add", f"{ROUTER}/24", "dev", "town")
    ip("link", "set", "town", "up")


@dataclass
class Application:
    """What runs on a machine, and what it called so far."""

    process: asyncio.subprocess.Process
    calls: list[tuple[float, float, str, str]] = field(default_factory=list)

    async def say(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def told(self) -> None:
        assert self.process.stdout
        await self.say()
        self.calls += map(tuple, json.loads(await self.process.stdout.readline()))


async def application(where: Machine) -> Application:
    config = json.dumps(APPLICATIONS[where.name])
    command = where.inside(sys.executable, shops.__file__, config)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
        preexec_fn=tied_to(os.getpid()),
    )
    assert process.stdout
    assert await process.stdout.readline() == b"serving\n"
    return Application(process)


class Town(Shop):
    """The shop of test_inject_live.py, with a network between its machines."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder)
        self.mesh.written["injection"] |= {
            "control_plane": f"{ROUTER}:{self.tokens}",
            "interception": "transparent",
        }
        (xds,) = free_ports(1)
        self.mesh.written["xds"] |= {
            "listen": f"{ROUTER}:{xds}",
            "tokens": f"{ROUTER}:{self.tokens}",
        }
        self.mesh.written["providers"].append(
            {"name": "rack", "type": "hosts", "path": "hosts.yaml"}
        )
        replace(self.mesh.config, yaml.safe_dump(self.mesh.written))
        replace(self.mesh.hosts, HOSTS)
        for file in sorted(SHIPPED.iterdir()):
            replace(self.mesh.folder / "policy" / file.name, file.read_text().replace(*LEDGER))
        self.machines = {name: machine(name) for name in AT}
        self.applications: dict[str, Application] = {}
        self.spans: list[tuple[str, float, float]] = []  # what was away, from when until when

    @property
    def split(self) -> Path:
        return self.mesh.folder / "policy" / "split.yaml"

    async def create(self, name: str) -> None:
        self.cluster.put(thing("v1", "ServiceAccount", name, "shop"))
        made = pod(name, serviceAccountName=name)
        self.pods[name] = await asyncio.to_thread(self.cluster.create, made)
        addressed = {"phase": "Running", "podIP": AT[name], "podIPs": [{"ip": AT[name]}]}
        path = f"{self.cluster.path(made)}/status"
        merge = "application/merge-patch+json"
        self.cluster.request("PATCH", path, {"status": addressed}, merge)

    def answering(self, *, ready: bool) -> float:
        """The slice of bookstore-v1, as its controller has it; the moment before."""
        moment, name = time.time(), "bookstore-v1"
        made = slices(endpoint(AT[name], self.pods[name], ready=ready), of=name)
        made["ports"][0]["port"] = 14001
        self.cluster.put(made)
        return moment

    def capture(self, name: str) -> None:
        """What the init container does; on machines without one it is the same rules."""
        rules = script(Capture())
        if name in PODS:
            [init] = [e for e in self.pods[name]["spec"]["initContainers"] if e["name"] == INIT]
            rules = init["command"][-1]
        self.machines[name].run("/bin/sh", "-ec", rules)

    def start(self, name: str) -> None:
        """A pod's sidecar, with its container's arguments."""
        folder = self.mesh.folder / name
        [sidecar] = [e for e in self.pods[name]["spec"]["initContainers"] if e["name"] == PROXY]
        fields = {
            "metadata.name": name,
            "metadata.namespace": "shop",
            "spec.serviceAccountName": name,
            "status.podIP": AT[name],
        }
        known = {e["name"]: fields[e["valueFrom"]["fieldRef"]["fieldPath"]] for e in sidecar["env"]}
        arguments = [expanded(e, known).replace(FOLDER, str(folder)) for e in sidecar["args"]]
        self.envoy(name, (envoys.binary(), *arguments, "--concurrency", "1"))

    async def begin(self, name: str) -> None:
        """The sidecar of a machine that is no pod."""
        papers = self.mesh.folder / name
        settings = Settings.read(self.mesh.config, environment(os.environ))
        await bootstrap(settings, name, papers)
        for each in (papers, *papers.iterdir()):
            shutil.chown(each, USER, USER)
        self.envoy(name, envoys.command(envoys.binary(), papers / "envoy.yaml"))

    def envoy(self, name: str, command: tuple[str | Path, ...]) -> None:
        inside = self.machines[name].inside(*command, user=USER)
        process = Process(inside, self.mesh.folder / f"{name}.log")
        self.mesh.sidecars[name] = Sidecar(name, AT[name], self.mesh.folder / name, process)

    async def ready(self) -> bool:
        """By kubelet's probes, and the control plane's word."""
        probed = await asyncio.gather(*map(self.probed, PODS))
        return all(probed) and await self.mesh.in_sync()

    async def probed(self, name: str) -> bool:
        self.mesh.sidecars[name].process.running()
        status, _ = await asyncio.to_thread(envoys.get, AT[name], PROBES_PORT, "/ready")
        return status == 200

    async def restart(self, name: str) -> None:
        """As a careful operator does it: nobody is sent there first, and what is open ends."""
        began = time.time()
        if serves := name == "bookstore-v1":
            edit = await self.mesh.change(lambda: self.answering(ready=False))
            # Envoys acknowledge a moment before they apply: until then requests still come.
            await asyncio.sleep(max(0.0, edit.applied - time.time()))
            await until("the end of its requests", lambda: self.idle(name))
        self.mesh.stop(name)
        self.start(name)
        await until("its return", lambda: self.probed(name))
        if serves:
            await self.mesh.change(lambda: self.answering(ready=True))
        self.spans.append((name, began, time.time()))

    async def idle(self, name: str) -> bool:
        asked = "/stats?filter=inbound.*downstream_rq_active"
        told = await asyncio.to_thread(self.machines[name].ask, "GET", asked)
        return not any(envoys.counters(told).values())

    async def weigh(self, one: int, two: int) -> tuple[str, float, float]:
        """Its name, and from when on it held everywhere, until when."""
        weights = {"bookstore-v1": one, "bookstore-v2": two}
        text = self.split.read_text()
        if weighted(text, weights) != text:
            edit = await self.mesh.change(lambda: replace(self.split, weighted(text, weights)))
            since = edit.applied
        else:
            since = time.time()
        await asyncio.sleep(max(0.0, since + COUNTED - time.time()))
        return f"{one}/{two}", since, time.time()

    async def renew(self) -> None:
        """The pods' tokens, of which the old ones end; and the control plane, which looks again.

        It is killed, and comes back to sidecars that must show the new ones.
        """
        began = time.time()
        mint = self.cluster.server.tokens.mint
        mint.ahead += 3000
        for name in PODS:
            self.mount(name)
        mint.ahead += 700
        self.mesh.process.kill()
        await self.mesh.serve()
        self.spans.append(("control plane", began, time.time()))

    async def told(self) -> dict[str, object]:
        for each in self.applications.values():
            await each.told()
        # Who is in the network and of the cluster, without a certificate.
        plain = [envoys.get(AT[name], port, "/", 1.0) for name, port in PLAIN]
        return {
            "calls": {name: each.calls for name, each in self.applications.items()},
            "spans": self.spans,
            "plaintext": [status for status, _ in plain],
        }


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        cluster = stack.enter_context(running(folder / "cluster"))
        made = Town(cluster, folder)
        stack.callback(made.mesh.end)
        meshed = {"meshfed.io/mesh": "meshfed", "meshfed.io/inject": "enabled"}
        cluster.put(labelled(namespace("shop"), **meshed))
        made.install()
        await made.mesh.serve()
        for name in PODS:
            await made.create(name)
            made.mount(name)
        ports = [{"name": "http", "port": 8080}]
        cluster.put(service("bookstore-v1", ports=ports, clusterIP="10.96.0.20"))
        made.answering(ready=True)
        for name in AT:
            made.capture(name)
            if name in PODS:
                made.start(name)
            else:
                await made.begin(name)
        await until("the sidecars' start", made.ready)
        begun = await asyncio.gather(*map(application, made.machines.values()))
        made.applications = dict(zip(made.machines, begun, strict=True))
        for each in begun:
            await each.say()
        yield made


async def main(folder: Path, rounds: int) -> None:
    bridge()
    async with town(folder) as made:
        for weights in ((100, 0), (0, 100), (50, 50)):
            made.spans.append(await made.weigh(*weights))
        for _ in range(rounds):
            await made.renew()
            # Who has not heard that a pod leaves goes on calling it, and has a call cut off.
            await until("the sidecars' return", made.ready)
            for name in reversed(PODS):  # the buyer asks for names again for a while after its own
                await made.restart(name)
        made.spans.append(await made.weigh(50, 50))
        print(json.dumps(await made.told()))


if __name__ == "__main__":
    Path(sys.argv[1]).chmod(0o755)  # sidecars run as somebody else
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
