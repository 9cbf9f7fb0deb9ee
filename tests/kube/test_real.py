"""The launcher of a real API server, tried with ours in its place."""

import sys
from pathlib import Path

import pytest

from kube.given import configmap, crd, namespace, pod, thing
from kube.real import started, swept

ETCD = "#!/bin/sh\nexec sleep 600\n"
APISERVER = f'#!/bin/sh\nexec {sys.executable} -m meshfed.demo.kube "$@"\n'
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_it_is_started_and_swept_after_each_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for name, script in (("etcd", ETCD), ("kube-apiserver", APISERVER)):
        (assets / name).write_text(script)
        (assets / name).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    kept = configmap("kept")
    kept["metadata"]["finalizers"] = ["tests.example/kept"]
    things = crd("things", "Thing", ANYTHING)
    with started(tmp_path) as cluster:
        cluster.create(configmap("before"))
        with swept(cluster):
            cluster.create(namespace("shop"))
            for each in (kept, pod("a", "shop", nodeName="node"), things):
                cluster.create(each)
            cluster.established(things)
            cluster.create(thing("tests.example/v1", "Thing", "a", "shop"))
        assert cluster.has(configmap("before"))
        assert not any(map(cluster.has, (namespace("shop"), kept, things)))
