"""`cluster`: the tests' own API server, and a real one where there is one."""

import os
from collections.abc import Iterator

import pytest

OWN, REAL = "own-apiserver", "kube-apiserver"
ASSETS = "KUBEBUILDER_ASSETS"  # a folder with kube-apiserver and etcd, as for envtest
SERVERS = [OWN, REAL] if ASSETS in os.environ else [OWN]

# Tests that need no cluster need not wait for aiohttp, so what is imported is imported below.


@pytest.fixture(params=SERVERS)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    if request.param == REAL:
        from kube.real import swept

        one = request.getfixturevalue("real_cluster")
        with swept(one):
            yield one
        return
    from kube.cluster import running

    with running(tmp_path_factory.mktemp("cluster")) as one:
        yield one


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from kube.real import started

    with started(tmp_path_factory.mktemp("kube-apiserver")) as one:
        yield one
