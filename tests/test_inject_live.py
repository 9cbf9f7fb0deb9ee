"""From a pod that is created to a call that is answered: cluster, webhook, door, and real Envoys.

The API server and kubelet are the tests' own; `serve` runs as an account with the rights that
docs/inject.md and docs/kubernetes.md name, and no others. Pods have loopback addresses here.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace as changed
from pathlib import Path

import pytest
import yaml
from applications import Web, listening
from clusters import Object, endpoint, pod, service, slices
from kube.cluster import Cluster, kubeconfig, running
from kube.given import namespace, slice_, thing
from live import Mesh, Process, Sidecar, traffic
from test_inject_envoy import ENVOY, expanded
from typer.testing import CliRunner

from meshfed.demo.kube.accounts import Untaken
from meshfed.federation.cli.main import app as command
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import free_ports, replace
from meshfed.federation.inject.containers import FOLDER
from meshfed.federation.inject.decide import PROXY, TOKEN

ROOT = Path(__file__).parents[1]
RBAC = "rbac.authorization.k8s.io"
AT = {"buyer-1": "127.0.74.1", "store-1": "127.0.74.2"}
PORT = 14001  # of the application
POLICY = """
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all, namespace: shop}
spec: {matches: [{name: all}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: buyers, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: store, namespace: shop}
  sources: [{kind: ServiceAccount, name: buyer, namespace: shop}]
  rules: [{kind: HTTPRouteGroup, name: all}]
"""
DAY = 86400


def documented(page: str) -> Iterator[Object]:
    """The roles that a page of the docs names."""
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
        for each in yaml.safe_load_all(block):
            if isinstance(each, dict) and each.get("kind") == "ClusterRole":
                yield each


def token(cluster: Cluster, account: str, home: str, **spec: object) -> str:
    path = f"/api/v1/namespaces/{home}/serviceaccounts/{account}/token"
    return cluster.request("POST", path, {"spec": spec})["status"]["token"]


def limited(cluster: Cluster, file: Path) -> None:
    """A kubeconfig of the account of meshfed, as docs say."""
    cluster.put(thing("v1", "ServiceAccount", "meshfed", "meshfed"))
    subjects = [{"kind": "ServiceAccount", "name": "meshfed", "namespace": "meshfed"}]
    for role in (*documented("kubernetes.md"), *documented("inject.md")):
        name = role["metadata"]["name"]
        cluster.put(role)
        reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
        binding = {"roleRef": reference, "subjects": subjects}
        cluster.put(thing(f"{RBAC}/v1", "ClusterRoleBinding", name, **binding))
    shown = token(cluster, "meshfed", "meshfed", expirationSeconds=DAY)
    file.write_text(json.dumps(kubeconfig(changed(cluster, token=shown, kubeconfig=file))))


class Shop:
    """A cluster, the mesh beside it, and a kubelet that runs the sidecars of its pods."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.mesh = Mesh(folder, "hosts: []", {"policy.yaml": POLICY})
        self.pods: dict[str, Object] = {}
        self.tokens, self.webhook = free_ports(2)
        reached = {"kubeconfig": str(folder / "kubeconfig"), "context": cluster.name}
        self.mesh.written |= {
            "providers": [{"name": "aks", "type": "kubernetes", **reached}],
            "injection": {
                "listen": f"127.0.0.1:{self.webhook}",
                "control_plane": f"localhost:{self.tokens}",
                "interception": "explicit",
            },
        }
        # The API server looks for the name of the service; pods dial this machine.
        self.mesh.written["xds"] |= {
            "tokens": f"127.0.0.1:{self.tokens}",
            "names": ["meshfed.meshfed.svc"],
        }
        replace(self.mesh.config, yaml.safe_dump(self.mesh.written))

    def install(self) -> None:
        """What whoever installs meshfed applies, and a Service that leads to this process."""
        cluster = self.cluster
        cluster.put(namespace("meshfed"))
        limited(cluster, self.mesh.folder / "kubeconfig")
        ports = [{"name": "p9443", "port": self.webhook}]
        cluster.put(service("meshfed", "meshfed", ports=[{"name": "p9443", "port": 9443}]))
        there = slice_("meshfed-1", "127.0.0.1", home="meshfed", of="meshfed", ports=ports)
        cluster.server.plant(there)
        cluster.put(yaml.safe_load((ROOT / "deploy/inject/webhook.yaml").read_text()))

    def run(self, *arguments: str) -> str:
        made = CliRunner().invoke(
            command, [*arguments, "--kubeconfig", str(self.cluster.kubeconfig)]
        )
        assert made.exit_code == 0, made.output
        return made.output

    async def create(self, name: str) -> None:
        """A pod, as somebody writes it; what is kept is what the cluster made of it."""
        account = name.partition("-")[0]
        self.cluster.put(thing("v1", "ServiceAccount", account, "shop"))
        made = pod(name, serviceAccountName=account)
        made["metadata"]["annotations"] = {
            "meshfed.io/bind": AT[name],
            "meshfed.io/application": AT[name],
        }
        self.pods[name] = await asyncio.to_thread(self.cluster.create, made)
        addressed = {"phase": "Running", "podIP": AT[name], "podIPs": [{"ip": AT[name]}]}
        path = f"{self.cluster.path(made)}/status"
        merge = "application/merge-patch+json"
        self.cluster.request("PATCH", path, {"status": addressed}, merge)

    def serve_at(self, name: str) -> None:
        self.cluster.put(service("store", ports=[{"name": "http", "port": 80}]))
        made = slices(endpoint(AT[name], self.pods[name]), of="store")
        made["ports"][0]["port"] = PORT
        self.cluster.server.plant(made)

    def mount(self, name: str) -> None:
        """What kubelet does with a projected token, at first and when most of its life is over."""
        spec, uid = self.pods[name]["spec"], self.pods[name]["metadata"]["uid"]
        [volume] = [each for each in spec["volumes"] if each["name"] == TOKEN]
        [source] = volume["projected"]["sources"]
        asked = source["serviceAccountToken"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
        made = token(
            self.cluster,
            spec["serviceAccountName"],
            "shop",
            audiences=[asked["audience"]],
            expirationSeconds=asked["expirationSeconds"],
            boundObjectRef=bound,
        )
        folder = self.mesh.folder / name
        folder.mkdir(exist_ok=True)
        replace(folder / asked["path"], made)

    def start(self, name: str) -> None:
        """The sidecar's container, with its arguments as they are, but for where it runs here."""
        made, folder = self.pods[name], self.mesh.folder / name
        [sidecar] = [e for e in made["spec"]["initContainers"] if e["name"] == PROXY]
        fields = {
            "metadata.name": name,
            "metadata.namespace": "shop",
            "spec.serviceAccountName": made["spec"]["serviceAccountName"],
            "status.podIP": AT[name],
        }
        environment = {
            each["name"]: fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in sidecar["env"]
        }
        arguments = [
            expanded(each, environment).replace("127.0.0.1", AT[name]).replace(FOLDER, str(folder))
            for each in sidecar["args"]
        ]
        process = Process(
            (ENVOY, *arguments, "--concurrency", "1"), self.mesh.folder / f"{name}.log"
        )
        self.mesh.sidecars[name] = Sidecar(name, AT[name], folder, process)

    async def reported(self) -> bool:
        """Whether both sidecars have a stream for load reports; on each they report at once."""
        _, text = await self.mesh.control.get("/metrics")
        found = re.search(r"^meshfed_load_reports_total (\S+)$", text, re.MULTILINE)
        return bool(found) and float(found[1]) >= len(self.pods)

    def used(self) -> set[tuple[str, str]]:
        """What `serve` asked the cluster for: verbs and resources."""
        account = "system:serviceaccount:meshfed:meshfed"
        return {(c.verb, c.resource) for c in self.cluster.server.calls if c.user == account}

    @property
    def log(self) -> str:
        return (self.mesh.folder / "serve.log").read_text()


@asynccontextmanager
async def shop(cluster: Cluster, folder: Path) -> AsyncIterator[Shop]:
    """Two pods that were created through the webhook, and run."""
    made = Shop(cluster, folder)
    async with AsyncExitStack() as stack:
        stack.callback(made.mesh.end)
        made.install()
        await made.mesh.serve()
        await asyncio.to_thread(made.run, "namespace", "add", "shop")
        for name in AT:
            await made.create(name)
            made.mount(name)
        made.serve_at("store-1")
        await stack.enter_async_context(listening(Web("store-1"), AT["store-1"], PORT))
        for name in AT:
            made.start(name)
        await until("the sidecars' start", made.mesh.ready)
        yield made


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path / "cluster") as one:
        one.put(namespace("shop"))
        yield one


async def test_a_pod_that_is_created_serves_through_its_sidecar(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "mesh").mkdir()
    async with shop(cluster, tmp_path / "mesh") as made:
        async with traffic(made.mesh.sidecars["buyer-1"], "store.shop", "/") as calls:
            await calls.settled(["store-1"])
            before = len(calls.made)
            await a_token_is_rotated_and_the_control_plane_restarts(made)
            await calls.more(40)
            assert {name for _, name in calls.made[before:]} == {"store-1"}, "calls that failed"
        await until("reports of their calls", made.reported)
        await a_pod_that_is_deleted_is_told_no_more(made)
        the_rights_of_the_docs_were_enough(made)


async def a_token_is_rotated_and_the_control_plane_restarts(made: Shop) -> None:
    """The tokens of before have ended when the sidecars come back: they show the new ones."""
    mint = made.cluster.server.tokens.mint
    old = {name: (made.mesh.folder / name / "token").read_text() for name in AT}
    mint.ahead = 3000
    for name in AT:
        made.mount(name)
    mint.ahead = 3700
    for each in old.values():
        with pytest.raises(Untaken, match="expired"):
            mint.judged(each, ["meshfed"])
    made.mesh.process.end()
    await made.mesh.serve()
    await until("the sidecars' return", made.mesh.ready)
    assert "has expired" not in made.log


async def a_pod_that_is_deleted_is_told_no_more(made: Shop) -> None:
    await asyncio.to_thread(made.cluster.delete, made.pods["buyer-1"])

    async def left() -> bool:
        return [each["workload"] for each in await made.mesh.proxies()] == ["store-1.shop"]

    await until("the end of its stream", left)


def the_rights_of_the_docs_were_enough(made: Shop) -> None:
    assert "403: " not in made.log
    asked = {
        (verb, resource)
        for role in documented("inject.md")
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # What lists by watching needs no other list; a namespace is read where the watch is behind.
    sometimes = {
        ("list", "namespaces"),
        ("get", "namespaces"),
        ("list", "mutatingwebhookconfigurations"),
    }
    assert asked - made.used() <= sometimes
