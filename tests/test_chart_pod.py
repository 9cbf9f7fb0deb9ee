"""The control plane as the chart runs it: with its rights, as its user, on a read-only root."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from charted import granted, made, only
from clusters import endpoint, namespace, pod, service, slices
from kube.cluster import Cluster, until
from podded import Pod, running
from test_chart_life import Run, run
from test_specification_kubernetes import BROKEN, group, route

from meshfed.demo.kube.objects import Object

__all__ = ["run"]

# The parts that call these come with the webhook and the second door of `serve`.
AWAITED = {
    ("create", "authentication.k8s.io", "tokenreviews"),
    ("get", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
}
DOMAIN = {"settings": {"mesh": {"trust_domain": "shop.example"}}}


@pytest.fixture
def things() -> list[Object]:
    return made(DOMAIN)


@pytest.fixture
def control(cluster: Cluster, run: Run, things: list[Object], tmp_path: Path) -> Iterator[Pod]:
    run("install", "--set", "settings.mesh.trust_domain=shop.example")
    cluster.put(namespace())
    cluster.create(service())
    one = cluster.create(pod("web-1", "10.0.0.1"))
    cluster.create(slices(endpoint("10.0.0.1", one)))
    cluster.server.forget_calls()
    with running(things, cluster, tmp_path) as started:
        yield started


def test_its_roles_are_what_it_calls_and_it_runs_with_no_other_right(
    cluster: Cluster, control: Pod, things: list[Object]
) -> None:
    wanted = {*granted(things)} - AWAITED
    # What the mesh refuses though the cluster took it has an Event on it.
    cluster.create(group("any", BROKEN))
    cluster.create(route("mysql", 3306))

    def called() -> set[tuple[str, str, str]]:
        return {
            (call.verb, call.group, call.resource)
            for call in cluster.server.calls
            if call.user == "system:serviceaccount:meshfed:meshfed"
        }

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
