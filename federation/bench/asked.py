"""What an Envoy asks for next, by what it was told: clusters name endpoints, listeners routes."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from sys import intern

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as http,
)

from meshfed.xds.resource import Type
from meshfed.xds.secrets import validation_name


@lru_cache(maxsize=1 << 16)
def fed(cluster: bytes) -> str:
    """The EDS name of a packed cluster; empty when it has none."""
    made = Cluster.FromString(cluster)
    return (made.eds_cluster_config.service_name or made.name) if made.type == Cluster.EDS else ""


@lru_cache(maxsize=1 << 14)
def routes(listener: bytes) -> tuple[str, ...]:
    """The names that a packed listener takes its routes from."""
    found = []
    for chain in Listener.FromString(listener).filter_chains:
        for each in chain.filters:
            manager = http.HttpConnectionManager()
            if each.typed_config.Unpack(manager) and manager.HasField("rds"):
                found.append(manager.rds.route_config_name)
    return tuple(found)


def wanted(kind: Type, packed: Iterable[bytes]) -> Iterator[tuple[Type, str]]:
    """What an Envoy asks for once it has been told this."""
    if kind is Type.CLUSTER:
        for name in filter(None, map(fed, packed)):
            yield Type.ENDPOINTS, intern(name)
            yield Type.SECRET, intern(validation_name(name))
    elif kind is Type.LISTENER:
        for each in packed:
            yield from ((Type.ROUTES, intern(name)) for name in routes(each))
