"""The tests' API server is one to real clients: the official ones, and kubectl."""

import asyncio
import json
import os

import pytest
from kubernetes import client, config, dynamic
from kubernetes import watch as watching
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

from kube.cluster import Cluster, Refused
from kube.given import configmap, namespace, pod, service, slice_


@pytest.mark.skipif("KUBEBUILDER_ASSETS" in os.environ, reason="and it is")
def test_all_this_is_true_of_a_real_one() -> None:
    pytest.skip("KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd")


def test_the_official_client_writes_reads_and_watches(cluster: Cluster) -> None:
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        core = client.CoreV1Api(api)
        core.create_namespaced_config_map("default", configmap("a", x="1"))
        found = core.list_namespaced_config_map("default", field_selector="metadata.name=a")
        assert [(each.metadata.name, each.data) for each in found.items] == [("a", {"x": "1"})]
        core.patch_namespaced_config_map("a", "default", {"data": {"x": "2"}})
        stream = watching.Watch().stream(
            core.list_namespaced_config_map,
            "default",
            resource_version=found.metadata.resource_version,
            timeout_seconds=5,
        )
        assert next(stream)["object"].data == {"x": "2"}
        stream.close()
        core.delete_namespaced_config_map("a", "default")


async def test_the_asynchronous_client_is_told_what_changes(cluster: Cluster) -> None:
    async with await aio_config.new_client_from_config(str(cluster.kubeconfig)) as api:
        core = aio_client.CoreV1Api(api)
        seen = await core.list_pod_for_all_namespaces()
        await asyncio.to_thread(cluster.put, pod("a"))
        answer = await core.list_pod_for_all_namespaces_without_preload_content(
            watch=True, resource_version=seen.metadata.resource_version, timeout_seconds=5
        )
        line = json.loads(await answer.content.readline())
        assert (line["type"], line["object"]["metadata"]["name"]) == ("ADDED", "a")
        answer.connection.transport.abort()  # a farewell in TLS would outlive the loop
        answer.close()


def test_the_dynamic_client_finds_kinds_and_their_objects(cluster: Cluster) -> None:
    cluster.create(slice_("a", "10.1.1.1"))
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        found = dynamic.DynamicClient(api)
        slices = found.resources.get(api_version="discovery.k8s.io/v1", kind="EndpointSlice")
        read = slices.get(name="a", namespace="default")
        assert read.endpoints[0].addresses == ["10.1.1.1"]
        body = {"metadata": {"labels": {"x": "y"}}}
        slices.patch(body, "a", "default", content_type="application/merge-patch+json")
        assert [each.metadata.name for each in slices.get(label_selector="x=y").items] == ["a"]


def test_kubectl_creates_applies_labels_patches_waits_and_deletes(cluster: Cluster) -> None:
    def kubectl(*arguments: str, given: object = None) -> str:
        return cluster.kubectl(*arguments, given=given).strip()

    web = service("web", 80)
    assert kubectl("create", "namespace", "shop") == "namespace/shop created"
    assert kubectl("create", "-f", "-", given=web) == "service/web created"
    assert kubectl("label", "svc", "web", "tier=front") == "service/web labeled"
    patch = json.dumps({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}})
    assert kubectl("patch", "svc", "web", "-p", patch) == "service/web patched"
    path = "{.spec.ports[*].targetPort}"
    assert kubectl("get", "svc", "web", "-o", f"jsonpath={path}") == "8080"
    ready = {"type": "Ready", "status": "True"}
    cluster.put(pod("a") | {"status": {"phase": "Running", "conditions": [ready]}})
    waited = kubectl("wait", "--for=condition=Ready", "pod/a", "--timeout=5s")
    assert waited == "pod/a condition met"
    assert kubectl("delete", "svc", "web", "--wait=true").startswith('service "web" deleted')


def test_kubectl_applies_what_changed_and_takes_back_what_it_said(cluster: Cluster) -> None:
    def apply(thing: object, *how: str) -> str:
        return cluster.kubectl("apply", *how, "-f", "-", given=thing).strip()

    for how, done in (((), ""), (("--server-side",), " serverside-applied")):
        name = "b" if how else "a"
        first, second = configmap(name, x="1", y="2"), configmap(name, x="1")
        assert apply(first, *how) == f"configmap/{name}{done or ' created'}"
        assert apply(second, *how) == f"configmap/{name}{done or ' configured'}"
        assert cluster.get(first)["data"] == {"x": "1"}
    assert apply(configmap("a", x="1")) == "configmap/a unchanged"
    cluster.patch(configmap("b"), {"data": {"x": "3"}})
    with pytest.raises(Refused, match=r"conflict with .*: \.data\.x"):
        apply(configmap("b", x="4"), "--server-side")
    apply(configmap("b", x="4"), "--server-side", "--force-conflicts")
    assert cluster.get(configmap("b"))["data"] == {"x": "4"}


def test_kubectl_is_who_its_certificate_says(cluster: Cluster) -> None:
    cluster.create(namespace("shop"))
    context = f"--context={cluster.name}-certificate"
    assert cluster.kubectl(context, "get", "ns", "shop", "-o", "name") == "namespace/shop\n"
