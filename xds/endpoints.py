"""Load assignments: which endpoints of a service these callers may use."""

from collections.abc import Iterable
from functools import lru_cache
from math import ceil

from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.struct_pb2 import Struct

from meshfed.catalog.model import Endpoint, Health, Interception
from meshfed.catalog.preferences import Preference
from meshfed.catalog.reach import Assignment, Transport
from meshfed.catalog.resolved import reachable
from meshfed.xds.resource import Resource, Type, shared

INBOUND_PORT = 15003
PLAINTEXT = "plaintext"  # the transport socket, and the metadata that chooses it

HEALTH = {
    Health.HEALTHY: health_check_pb2.HealthStatus.HEALTHY,
    Health.UNHEALTHY: health_check_pb2.HealthStatus.UNHEALTHY,
    Health.DRAINING: health_check_pb2.HealthStatus.DRAINING,
    Health.UNKNOWN: health_check_pb2.HealthStatus.UNKNOWN,  # used like a healthy one
}

AWAY = (Health.UNHEALTHY, Health.DRAINING)
FINE = 1000  # a locality's weight is whole: parts of a group's are still told apart

Group = tuple[int, str, str, str, int]  # level, region, zone; as what it is weighed, and how much
Place = tuple[str, int]
Groups = dict[Group, list[tuple[Place, Endpoint]]]


def load_assignment(assignment: Assignment, endpoints: Iterable[Endpoint]) -> Resource:
    """As bytes: an endpoint that stays costs nothing when another one moves."""
    groups: Groups = {}
    for place, endpoint in dialled(assignment, endpoints).items():
        groups.setdefault(group(assignment, endpoint), []).append((place, endpoint))
    if assignment.only is not None:
        groups = weighed_for_grpc(groups, preferred=bool(assignment.preference.weights))
    # A priority without endpoints would be one that fails.
    levels = {level: n for n, level in enumerate(sorted({level for level, *_ in groups}))}
    before = endpoint_pb2.ClusterLoadAssignment(cluster_name=assignment.name)
    after = endpoint_pb2.ClusterLoadAssignment(policy=policy(assignment.preference))
    parts = [
        field(2, locality_endpoints(levels[where[0]], where, groups[where]))
        for where in sorted(groups)
    ]
    value = b"".join((before.SerializeToString(), *parts, after.SerializeToString()))
    return shared(assignment.name, Any(type_url=Type.ENDPOINTS, value=value))


def dialled(assignment: Assignment, endpoints: Iterable[Endpoint]) -> dict[Place, Endpoint]:
    """Two ports of one workload are one sidecar: Envoy would drop the second address."""
    found: dict[Place, Endpoint] = {}
    for endpoint in sorted((e for e in endpoints if included(assignment, e)), key=order):
        found.setdefault(reached_at(endpoint), endpoint)
    return found


def group(assignment: Assignment, endpoint: Endpoint) -> Group:
    """What weighs together is one locality to Envoy: it shares calls out among those, by weight.

    Elsewhere Envoy balances over all of a level, and localities are for its reports of load alone.
    """
    level, preference = assignment.level(endpoint), assignment.preference
    if preference.weights:
        return level, "", "", *preference.weighed(endpoint.provider, endpoint.platform)
    return level, endpoint.locality.region, endpoint.locality.zone, endpoint.platform, 0


def weighed_for_grpc(groups: Groups, *, preferred: bool) -> Groups:
    """gRPC looks at the weights of localities alone, so endpoints of equal weight are one.

    A locality without weight is none to it, and a priority without localities makes it refuse the
    whole assignment (gRFC A27): what gets no calls is left out.
    """
    found: Groups = {}
    for (level, region, zone, name, weight), members in groups.items():
        usable = [member for member in members if member[1].health not in AWAY]
        total = sum(endpoint.weight for _, endpoint in usable)
        for each in sorted({endpoint.weight for _, endpoint in usable}):
            alike = [member for member in usable if member[1].weight == each]
            share = each * len(alike)
            if preferred:  # `weight` is of the group, whatever it has of endpoints
                share = ceil(weight * FINE * share / total)
            if share:
                found[level, region, zone, f"{name}/{each}".lstrip("/"), share] = alike
    return found


def policy(preference: Preference) -> endpoint_pb2.ClusterLoadAssignment.Policy | None:
    """Envoy takes a priority for whole while its healthy share times this factor is 100 or more."""
    if preference.minimum_healthy is None:
        return None
    answer = endpoint_pb2.ClusterLoadAssignment.Policy()
    answer.overprovisioning_factor.value = ceil(100 * 100 / preference.minimum_healthy)
    return answer


def included(assignment: Assignment, endpoint: Endpoint) -> bool:
    ours, theirs = assignment.network, endpoint.network
    return (
        endpoint.port == assignment.port
        and endpoint.weight > 0
        and reachable(endpoint, plaintext=assignment.plaintext)
        and (assignment.identities is None or endpoint.identity in assignment.identities)
        and not (ours and theirs and ours != theirs)
        and assignment.only in (None, transport(endpoint))
    )


def transport(endpoint: Endpoint) -> Transport:
    bare = endpoint.interception is Interception.NONE
    return Transport.PLAINTEXT if bare else Transport.MUTUAL


def order(endpoint: Endpoint) -> tuple[str, int, str]:
    return endpoint.address, endpoint.target, endpoint.workload


def reached_at(endpoint: Endpoint) -> Place:
    """What callers dial: the sidecar, or the application where there is none."""
    itself = endpoint.interception in (Interception.NONE, Interception.GRPC)
    return endpoint.address, endpoint.target if itself else INBOUND_PORT


def locality_endpoints(
    level: int, where: Group, members: Iterable[tuple[Place, Endpoint]]
) -> bytes:
    """A LocalityLbEndpoints, as `locality` writes it."""
    return locality(
        level,
        where,
        [
            fragment(host, port, e.weight, e.health, bare=e.interception is Interception.NONE)
            for (host, port), e in members
        ],
    )


def locality(level: int, where: Group, within: Iterable[bytes]) -> bytes:
    """Its fields in the order of their numbers as protobuf writes them."""
    _, region, zone, name, weight = where
    before = endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=region, zone=zone, sub_zone=name)
    )
    after = endpoint_components_pb2.LocalityLbEndpoints(priority=level)
    if weight:
        after.load_balancing_weight.value = weight
    return b"".join((before.SerializeToString(), *within, after.SerializeToString()))


@lru_cache(maxsize=1 << 14)  # those of a service, for all of its variants at once
def fragment(host: str, port: int, weight: int, health: Health, *, bare: bool) -> bytes:
    """One LbEndpoint as the field of the locality that it is in."""
    before, after = frame(len(host), port, weight, health, bare=bare)
    return before + host.encode() + after


@lru_cache(maxsize=1 << 12)
def frame(
    length: int, port: int, weight: int, health: Health, *, bare: bool
) -> tuple[bytes, bytes]:
    """The same around an address of that length: for 200,000 of them protobuf takes two seconds."""
    host = "?" * length
    member = lb_endpoint(host, port, weight, health, bare=bare)
    before, _, after = field(2, member.SerializeToString(deterministic=True)).partition(
        host.encode()
    )
    return before, after


def lb_endpoint(
    host: str, port: int, weight: int, health: Health, *, bare: bool
) -> endpoint_components_pb2.LbEndpoint:
    answer = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=address(host, port)),
        health_status=HEALTH[health],
    )
    answer.load_balancing_weight.value = weight
    if bare:
        chosen = Struct()
        chosen[PLAINTEXT] = True
        answer.metadata.filter_metadata["envoy.transport_socket_match"].CopyFrom(chosen)
    return answer


def address(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port)
    )


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field (protobuf's encoding, wire type 2)."""
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


def varint(value: int) -> bytes:
    answer = bytearray()
    while value > 0x7F:
        answer.append(value & 0x7F | 0x80)
        value >>= 7
    answer.append(value)
    return bytes(answer)
