"""The tests' API server is one to real clients, and refuses what a real one refuses."""

import asyncio
import json

import pytest
from kubernetes import client, config
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

from kube.cluster import Answered, Cluster


def pod(name: str, **spec: object) -> dict[str, object]:
    containers = [{"name": "app", "image": "app"}]
    metadata = {"name": name, "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": containers, **spec},
    }


def test_the_official_client_reads_what_was_created(cluster: Cluster) -> None:
    cluster.put(pod("a"))
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        found = client.CoreV1Api(api).list_namespaced_pod("default")
        assert [each.metadata.name for each in found.items] == ["a"]


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
        answer.close()


def test_a_name_is_had_once(cluster: Cluster) -> None:
    cluster.create(pod("a"))
    with pytest.raises(Answered, match="409"):
        cluster.create(pod("a"))


def test_kubectl_finds_what_is_there(cluster: Cluster) -> None:
    cluster.put(pod("a"))
    assert cluster.kubectl("get", "pods", "-o", "name") == "pod/a\n"
