"""Clusters: what a sidecar connects to, in the mesh and behind it."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from meshfed.catalog.model import Protocol, ServiceName
from meshfed.catalog.preferences import Preference
from meshfed.catalog.reach import Target
from meshfed.catalog.view import Inbound
from meshfed.xds.endpoints import PLAINTEXT, address
from meshfed.xds.resource import packed
from meshfed.xds.secrets import ads, server_name, upstream_tls, validation_name

TUNNEL = "tunnel"
PASSTHROUGH = "passthrough"

UNLIMITED = 2**32 - 1
# A sidecar closes idle connections after an hour, an application often after 5 s (uvicorn): whoever
# reuses a connection must let go of it first, or a request meets one that is being closed.
MESH_IDLE_S = 900
LOCAL_IDLE_S = 4

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
Cluster = cluster_pb2.Cluster


@lru_cache(maxsize=1 << 14)
def mesh_cluster(target: Target, trust_domain: str) -> Cluster:
    """A service's port, over mutual TLS to whoever of it this proxy may reach.

    The same message for every class of callers that shares the target: not to be changed.
    """
    name = target.assignment.name
    cluster = Cluster(
        name=target.cluster,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(
            eds_config=ads(), service_name=name if target.root else ""
        ),
        connect_timeout=Duration(seconds=2),
        lb_policy=Cluster.LEAST_REQUEST,
        circuit_breakers=unlimited(),
        outlier_detection=outliers(target.assignment.preference),
        upstream_connection_options=keepalive(),
        common_lb_config=balancing(target.assignment.preference),
        typed_extension_protocol_options=http_options(target.protocol, MESH_IDLE_S),
    )
    if target.identities:
        sni = server_name(target.assignment.service, target.assignment.port, trust_domain)
        tls = upstream_tls(validation_name(name), sni, tcp=not target.protocol.is_http)
        cluster.transport_socket.CopyFrom(tls)
    if target.assignment.plaintext:
        cluster.transport_socket_matches.append(plaintext_match())
    return cluster


def local_cluster(inbound: Inbound, application: str) -> Cluster:
    """The application behind this sidecar."""
    return Cluster(
        name=local_name(inbound.service, inbound.port),
        type=Cluster.STATIC if literal(application) else Cluster.STRICT_DNS,
        connect_timeout=Duration(seconds=1),
        circuit_breakers=unlimited(),
        load_assignment=assignment(
            local_name(inbound.service, inbound.port),
            [address(application, target) for target in inbound.targets],
        ),
        typed_extension_protocol_options=http_options(inbound.protocol, LOCAL_IDLE_S),
    )


def tunnel_cluster() -> Cluster:
    """What comes out of a CONNECT to an HTTP service is routed per request, like all the rest."""
    inside = address_pb2.Address(
        envoy_internal_address=address_pb2.EnvoyInternalAddress(server_listener_name=TUNNEL)
    )
    return Cluster(
        name=TUNNEL,
        type=Cluster.STATIC,
        connect_timeout=Duration(seconds=1),
        circuit_breakers=unlimited(),
        load_assignment=assignment(TUNNEL, [inside]),
    )


def passthrough_cluster() -> Cluster:
    """The outside world, wherever a transparent connection was going."""
    return Cluster(
        name=PASSTHROUGH,
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=Duration(seconds=5),
        circuit_breakers=unlimited(),
    )


def local_name(service: ServiceName, port: int) -> str:
    return f"local|{service}|{port}"


def literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def assignment(
    name: str, addresses: Iterable[address_pb2.Address]
) -> endpoint_pb2.ClusterLoadAssignment:
    members = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=address)
        )
        for address in addresses
    ]
    group = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=members)
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=[group])


def http_options(protocol: Protocol, idle_s: int) -> dict[str, Any]:
    """Said outright, so that both hops speak what the service was declared to speak."""
    if not protocol.is_http:
        return {}
    Options = http_protocol_options_pb2.HttpProtocolOptions  # noqa: N806
    explicit = Options.ExplicitHttpConfig()
    if protocol is Protocol.HTTP:
        explicit.http_protocol_options.SetInParent()
    else:
        explicit.http2_protocol_options.CopyFrom(http2())
    options = Options(
        explicit_http_config=explicit,
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=Duration(seconds=idle_s)
        ),
    )
    return {HTTP_OPTIONS: packed(options)}


def http2() -> protocol_pb2.Http2ProtocolOptions:
    return protocol_pb2.Http2ProtocolOptions(allow_connect=True)  # websockets (RFC 8441)


def unlimited() -> circuit_breaker_pb2.CircuitBreakers:
    """Envoy's limit of 1024 is a surprise nobody asked for.

    Only what nobody heard is tried again, which costs whoever is alive nothing twice: as many may
    be at it as there are calls. With a fifth, and ten at least, the eleventh of those that met one
    dead host at once got 503 beside a good one.
    """
    Thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds  # noqa: N806
    limits = Thresholds()
    limits.max_connections.value = UNLIMITED
    limits.max_pending_requests.value = UNLIMITED
    limits.max_requests.value = UNLIMITED
    limits.retry_budget.budget_percent.value = 100
    limits.retry_budget.min_retry_concurrency.value = 100
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[limits])


def outliers(preference: Preference) -> outlier_detection_pb2.OutlierDetection:
    """Leave a host alone for a while when it cannot be reached, not when it answers 500.

    An application's 500 is most often about the request. A run of 502, 503 or 504 is what a sidecar
    says whose application is down.
    """
    answer = outlier_detection_pb2.OutlierDetection(
        split_external_local_origin_errors=True,
        # A host that comes to a service is called a moment before its own sidecar listens, and is
        # left alone for that: not for longer than it takes the next one to go.
        interval=Duration(nanos=250_000_000),  # between two looks at whose time is over
        base_ejection_time=Duration(seconds=1),  # the first time; each time as much longer
        max_ejection_time=Duration(seconds=30),
    )
    answer.consecutive_local_origin_failure.value = 3
    answer.enforcing_local_origin_success_rate.value = 0
    answer.consecutive_gateway_failure.value = 5
    answer.enforcing_consecutive_gateway_failure.value = 100
    answer.enforcing_consecutive_5xx.value = 0
    answer.enforcing_success_rate.value = 0
    # A whole platform that dies must be left, where there is a next one. Of ten dead hosts before a
    # good one, 50 left five, and three calls in four met two of those first (Envoy 1.40).
    answer.max_ejection_percent.value = 100 if preference.prefer else 50
    return answer


def balancing(preference: Preference) -> Cluster.CommonLbConfig:
    """Unhealthy endpoints get nothing, however many they are: doubt was weighed before."""
    config = Cluster.CommonLbConfig()
    config.healthy_panic_threshold.value = 0
    # Envoy's own second is one in which calls still go to what was ejected, and to what was
    # acknowledged as unhealthy, if something else of the cluster was a moment before.
    config.update_merge_window.SetInParent()
    if preference.weights:
        # Without it Envoy ignores the weights; with it, what has none would get no calls.
        config.locality_weighted_lb_config.SetInParent()
    return config


def keepalive() -> cluster_pb2.UpstreamConnectionOptions:
    """A peer that lost power is noticed on streams without traffic too."""
    probes = address_pb2.TcpKeepalive()
    probes.keepalive_time.value = 30
    probes.keepalive_interval.value = 10
    probes.keepalive_probes.value = 3
    return cluster_pb2.UpstreamConnectionOptions(tcp_keepalive=probes)


def plaintext_match() -> Cluster.TransportSocketMatch:
    """Endpoints without a sidecar say so in their metadata; all others get the cluster's TLS."""
    chosen = Struct()
    chosen[PLAINTEXT] = True
    raw = base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=packed(raw_buffer_pb2.RawBuffer())
    )
    return Cluster.TransportSocketMatch(name=PLAINTEXT, match=chosen, transport_socket=raw)
