"""`cluster`: the tests' own API server, and a real one where there is one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

OWN, REAL = "own-apiserver", "kube-apiserver"
ASSETS = "KUBEBUILDER_ASSETS"  # a folder with kube-apiserver and etcd, as for envtest
SERVERS = [OWN, REAL] if ASSETS in os.environ else [OWN]


@pytest.fixture(params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    if request.param == REAL:
        yield request.getfixturevalue("real_cluster")
        return
    from kube.cluster import running  # tests that need no cluster need not wait for aiohttp

    with running(tmp_path / "cluster") as one:
        yield one
