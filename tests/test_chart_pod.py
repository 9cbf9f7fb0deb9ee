"""The control plane as the chart runs it: with its rights, as its user, on a read-only root."""

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import yaml
from applied import BROKEN, group, route
from charted import HOME, granted, made, only
from clusters import endpoint, namespace, pod, service, slices
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from installing import HOOK, Run, run
from kube.cluster import Cluster
from kube.given import slice_, thing
from podded import Pod, running
from waiting import until

from meshfed.demo.kube.objects import Object
from meshfed.federation.install.chart import RELEASE
from meshfed.xds.resource import Type

__all__ = ["run"]

DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
DOMAIN = {"settings": {"mesh": {"trust_domain": "shop.example"}}}


@pytest.fixture
def things() -> list[Object]:
    return made(DOMAIN)


@pytest.fixture
def control(cluster: Cluster, run: Run, things: list[Object], tmp_path: Path) -> Iterator[Pod]:
    cluster.put(namespace())
    cluster.create(service())
    one = cluster.create(pod("web-1", "10.0.0.1"))
    cluster.create(slices(endpoint("10.0.0.1", one)))
    run("install", "--set", "settings.mesh.trust_domain=shop.example")
    run("namespace", "add", "shop", "--mesh", "shop")
    cluster.server.forget_calls()
    with running(things, cluster, tmp_path) as started:
        yield started


def reached(cluster: Cluster, control: Pod) -> None:
    """As the endpoint controller does: the webhook's service leads to the pod."""
    ports = [{"name": "https-webhook", "port": control.ports["INJECTION__LISTEN"]}]
    cluster.server.plant(slice_("meshfed-1", "127.0.0.1", home=HOME, of=RELEASE, ports=ports))


def trusted(cluster: Cluster) -> list[str]:
    hooks = cluster.get(HOOK)["webhooks"]
    return [each["clientConfig"].get("caBundle", "") for each in hooks]


def shown(cluster: Cluster, injected: Object) -> str:
    """The token that kubelet mounts into an injected pod."""
    metadata = injected["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    account = cluster.path(thing("v1", "ServiceAccount", "web", metadata["namespace"]))
    body = {"spec": {"audiences": ["meshfed"], "boundObjectRef": bound}}
    answer: str = cluster.request("POST", f"{account}/token", body)["status"]["token"]
    return answer


def told(control: Pod, roots: bytes, token: str) -> bool:
    """Whether a sidecar with this token is told what there is."""
    options = (("grpc.ssl_target_name_override", "meshfed.meshfed.svc"),)
    target = f"127.0.0.1:{control.ports['XDS__TOKENS']}"
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options) as channel:
        call = channel.stream_stream(
            DELTA,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )
        asked = DeltaDiscoveryRequest(type_url=Type.CLUSTER.value, node=Node(id="web-2"))
        shown = (("authorization", f"Bearer {token}"),)
        with suppress(grpc.RpcError):
            return next(call(iter([asked]), metadata=shown, timeout=5)).type_url == asked.type_url
    return False


def test_its_roles_are_what_it_calls_and_with_them_a_pod_is_injected_and_let_in(
    cluster: Cluster, control: Pod, things: list[Object]
) -> None:
    wanted = {*granted(things)}

    def called() -> set[tuple[str, str, str]]:
        return {
            (call.verb, call.group, call.resource)
            for call in cluster.server.calls
            if call.user == "system:serviceaccount:meshfed:meshfed"
        }

    until(lambda: all(trusted(cluster)))
    reached(cluster, control)
    cluster.put(thing("v1", "ServiceAccount", "web", "shop"))
    injected = cluster.create(pod("web-2"))
    assert injected["metadata"]["labels"]["meshfed.io/injected"]
    token, roots = shown(cluster, injected), base64.b64decode(trusted(cluster)[0])
    until(lambda: told(control, roots, token))
    # Of a namespace that does not ask for sidecars, it is looked at again what it says.
    cluster.put(namespace("cafe"))
    assert cluster.create(pod("web-3", namespace="cafe"))["spec"].get("initContainers") is None
    # What the mesh refuses though the cluster took it has an Event on it.
    cluster.create(group("any", BROKEN))
    cluster.create(route("mysql", 3306))
    until(lambda: ("create", "", "events") in called())
    # Clusters that cannot tell all there is in a watch are asked for lists.
    cluster.faults.without_watchlist = True
    cluster.server.restart()
    with suppress(TimeoutError):
        until(lambda: called() >= wanted)
    assert sorted(called()) == sorted(wanted)
    assert "forbidden" not in control.process.log.read_text()
    assert {path.name for path in (control.folder / "state").iterdir()} >= {
        "meshfed.db", "meshfed.key",
    }  # fmt: skip


def test_settings_that_are_heeded_reach_it_through_the_config_map(
    control: Pod, things: list[Object]
) -> None:
    data = only(things, "ConfigMap")["data"]
    said = yaml.safe_load(data["meshfed.yaml"])
    said["mesh"]["permissive"] = True
    said["history"] = {"retain": "7d"}
    control.told(data | {"meshfed.yaml": yaml.safe_dump(said)})
    log = control.process.log
    until(lambda: re.search('"configured".*"permissive": ?true', log.read_text()) is not None)
    until(lambda: re.search('"restart needed".*history.retain', log.read_text()) is not None)
