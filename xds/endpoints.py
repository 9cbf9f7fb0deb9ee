"""Load assignments: which endpoints of a service these callers may use."""

from collections.abc import Iterable

from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf.struct_pb2 import Struct

from meshfed.catalog.model import Endpoint, Health, Interception, Locality
from meshfed.catalog.reach import ANYWHERE, Assignment
from meshfed.catalog.view import reachable
from meshfed.xds.resource import Resource, resource

INBOUND_PORT = 15003
PLAINTEXT = "plaintext"  # the transport socket, and the metadata that chooses it

HEALTH = {
    Health.HEALTHY: health_check_pb2.HealthStatus.HEALTHY,
    Health.UNHEALTHY: health_check_pb2.HealthStatus.UNHEALTHY,
    Health.DRAINING: health_check_pb2.HealthStatus.DRAINING,
    Health.UNKNOWN: health_check_pb2.HealthStatus.UNKNOWN,  # used like a healthy one
}

Reach = tuple[int, Locality]  # priority and locality: what endpoints are grouped by


def load_assignment(assignment: Assignment, endpoints: Iterable[Endpoint]) -> Resource:
    chosen = sorted((e for e in endpoints if included(assignment, e)), key=order)
    groups: dict[Reach, dict[tuple[str, int], Endpoint]] = {}
    for endpoint in chosen:
        reach = (priority(assignment.locality, endpoint.locality), endpoint.locality)
        # Two ports of one workload are one sidecar: Envoy would drop the second address.
        groups.setdefault(reach, {}).setdefault(reached_at(endpoint), endpoint)
    levels = {level: n for n, level in enumerate(sorted({level for level, _ in groups}))}
    return resource(
        assignment.name,
        endpoint_pb2.ClusterLoadAssignment(
            cluster_name=assignment.name,
            endpoints=[
                # Envoy refuses priorities with gaps.
                locality_endpoints(levels[level], locality, members.values())
                for (level, locality), members in sorted(groups.items())
            ],
        ),
    )


def included(assignment: Assignment, endpoint: Endpoint) -> bool:
    ours, theirs = assignment.network, endpoint.network
    return (
        endpoint.port == assignment.port
        and endpoint.weight > 0
        and reachable(endpoint, plaintext=assignment.plaintext)
        and (assignment.identities is None or endpoint.identity in assignment.identities)
        and not (ours and theirs and ours != theirs)
    )


def order(endpoint: Endpoint) -> tuple[str, int, str]:
    return endpoint.address, endpoint.target, endpoint.workload


def reached_at(endpoint: Endpoint) -> tuple[str, int]:
    """What callers dial: the sidecar, or the application where there is none."""
    bare = endpoint.interception is Interception.NONE
    return endpoint.address, endpoint.target if bare else INBOUND_PORT


def priority(near: Locality, there: Locality) -> int:
    """The same zone, then the same region, then anywhere; all alike without a preference."""
    if near in (ANYWHERE, there):
        return 0
    return 1 if near.region == there.region else 2


def locality_endpoints(
    level: int, locality: Locality, members: Iterable[Endpoint]
) -> endpoint_components_pb2.LocalityLbEndpoints:
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=locality.region, zone=locality.zone),
        priority=level,
        lb_endpoints=[lb_endpoint(member) for member in members],
    )


def lb_endpoint(endpoint: Endpoint) -> endpoint_components_pb2.LbEndpoint:
    host, port = reached_at(endpoint)
    answer = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=address(host, port)),
        health_status=HEALTH[endpoint.health],
    )
    answer.load_balancing_weight.value = endpoint.weight
    if endpoint.interception is Interception.NONE:
        chosen = Struct()
        chosen[PLAINTEXT] = True
        answer.metadata.filter_metadata["envoy.transport_socket_match"].CopyFrom(chosen)
    return answer


def address(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port)
    )
