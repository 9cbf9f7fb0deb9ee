"""The provider `kubernetes` keeps what every provider promises."""

from pathlib import Path

import pytest
from clusters import endpoint, namespace, provider, serve, slices
from kube.cluster import Cluster

from meshfed.providers.contract import Platform, ProviderContract
from meshfed.providers.provider import Provider


class Answering:
    """A cluster in which one service has pods."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.put(namespace())
        (self.first,) = serve(cluster, "10.0.0.1")["endpoints"]

    def provider(self) -> Provider:
        return provider(self.cluster)

    def change(self) -> None:
        self.cluster.put(slices(self.first, endpoint("10.0.0.2")))

    def fail(self) -> None:
        self.cluster.server.stop()

    def mend(self) -> None:
        self.cluster.server.start()


class TestKubernetes(ProviderContract):
    @pytest.fixture
    def platform(self, cluster: Cluster, tmp_path: Path) -> Platform:
        return Answering(cluster)
