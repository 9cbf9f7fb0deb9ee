"""What a gRPC client without a sidecar is told: a name it dials, where that leads, and how.

It asks for each resource by name and is told nothing else (gRFCs A27, A28). What it does not know
it refuses, with all that stands beside it, so nothing here is shared with what Envoy is told.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import api_listener_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as aggregate_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message

from meshfed.catalog.model import HttpMatch, ServiceName
from meshfed.catalog.reach import Assignment, Choice, Outbound, Share, Target, Transport
from meshfed.catalog.view import View
from meshfed.xds.clusters import UNLIMITED
from meshfed.xds.grpc_bootstrap import PROVIDER
from meshfed.xds.rbac import ANY_PATH, headers, named_methods, regex
from meshfed.xds.resource import packed
from meshfed.xds.routes import by_name, unspoken
from meshfed.xds.secrets import ads, server_name

# gRPC's own word for *try again*: it says so itself of a connection that broke, and sidecars say it
# of an application that is down. What never left the client it tries again anyway.
RETRY_ON = "unavailable"
RETRIES = 2
NOTHING = route_components_pb2.NonForwardingAction()
EVERY_CALL = "POST"  # the only method that gRPC knows

Cluster = cluster_pb2.Cluster
Listener = listener_pb2.Listener
HttpFilter = http_connection_manager_pb2.HttpFilter
Manager = http_connection_manager_pb2.HttpConnectionManager
Route = route_components_pb2.Route
RouteAction = route_components_pb2.RouteAction
RouteMatch = route_components_pb2.RouteMatch
WeightedCluster = route_components_pb2.WeightedCluster


@dataclass(frozen=True, slots=True)
class Way:
    """A place that calls may end, in the terms of gRPC: a cluster has one transport."""

    target: Target
    ends: tuple[Assignment, ...]  # the first that has endpoints which answer

    @property
    def name(self) -> str:
        """Of its cluster; empty where there is no way."""
        if len(self.ends) == 1:
            return self.ends[0].name
        return replace(self.target.assignment, only=None).name if self.ends else ""


def callable_(view: View) -> list[Outbound]:
    return [outbound for outbound in view.outbound if outbound.port.protocol.is_grpc]


def ways(view: View) -> dict[str, Way]:
    """By the names of their clusters."""
    choices = (choice for outbound in callable_(view) for choice in outbound.choices)
    found = (way(share.target) for choice in choices for share in choice.shares)
    return {each.name: each for each in found if each.ends}


def way(target: Target) -> Way:
    """Mutual TLS first; in plaintext only who may make every call there.

    Where nothing enforces at the other end the caller must, and gRPC has no filter that does.
    """
    ends = []
    if target.identities:
        ends.append(replace(target.assignment, only=Transport.MUTUAL))
    if target.assignment.plaintext and unbounded(target.requests):
        ends.append(replace(target.assignment, only=Transport.PLAINTEXT))
    return Way(target, tuple(ends))


def unbounded(requests: Sequence[HttpMatch] | None) -> bool:
    return requests is None or any(
        request.path_regex == ANY_PATH and callable_by(request) and not request.headers
        for request in requests
    )


def callable_by(match: HttpMatch) -> bool:
    """Whether any gRPC call can satisfy it."""
    return EVERY_CALL in (named_methods(match) or [EVERY_CALL])


# Names and routes


def listeners(view: View) -> Iterator[Listener]:
    """One for each name that a client may dial, its routes in it: one answer instead of two."""
    services: defaultdict[ServiceName, list[Outbound]] = defaultdict(list)
    for outbound in callable_(view):
        services[outbound.service].append(outbound)
    for service, outbounds in services.items():
        meant = unspoken(outbounds)
        for outbound in outbounds:
            if outbound is meant:
                yield listener(str(service), outbound)
            yield listener(f"{service}:{outbound.port.number}", outbound)


def listener(name: str, outbound: Outbound) -> Listener:
    routes = [route for choice in outbound.choices for route in chosen(choice)]
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=routes)
    host.retry_policy.retry_on = RETRY_ON
    host.retry_policy.num_retries.value = RETRIES
    manager = http_manager(name)
    manager.route_config.CopyFrom(route_pb2.RouteConfiguration(name=name, virtual_hosts=[host]))
    api = api_listener_pb2.ApiListener(api_listener=packed(manager))
    return Listener(name=name, api_listener=api)


def http_manager(name: str, *filters: HttpFilter) -> Manager:
    router = HttpFilter(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router()))
    return Manager(stat_prefix=name, http_filters=[*filters, router])


def chosen(choice: Choice) -> Iterator[Route]:
    action = destination(choice.shares)
    for match in matches(choice):
        if action is None:  # the call fails at once: gRPC has no answers of its own
            yield Route(
                match=match, non_forwarding_action=route_components_pb2.NonForwardingAction()
            )
        else:
            yield Route(match=match, route=action)


def matches(choice: Choice) -> list[RouteMatch]:
    if choice.matches is None:
        return [RouteMatch(prefix="/")]
    return [route_match(match) for match in choice.matches if callable_by(match)]


def route_match(match: HttpMatch) -> RouteMatch:
    """Without the method: when gRPC looks for a route the call has none yet."""
    if match.path_regex == ANY_PATH:
        return RouteMatch(prefix="/", headers=headers(match))
    return RouteMatch(safe_regex=regex(match.path_regex), headers=headers(match))


def destination(shares: Iterable[Share]) -> RouteAction | None:
    """None where nobody can be reached."""
    there = [(way(share.target).name, share.weight) for share in by_name(shares)]
    taking = [(name, weight) for name, weight in there if name and weight]
    if not taking:
        return None
    if len(taking) == 1:
        return RouteAction(cluster=taking[0][0])
    weighted = WeightedCluster()
    for name, weight in taking:
        weighted.clusters.add(name=name).weight.value = weight
    return RouteAction(weighted_clusters=weighted)


# Clusters


def clusters(view: View) -> Iterator[Cluster]:
    for name, found in sorted(ways(view).items()):
        for end in found.ends:
            yield cluster(end, found.target, view.trust_domain)
        if len(found.ends) > 1:
            yield first_of(name, found.ends)


def cluster(end: Assignment, target: Target, trust_domain: str) -> Cluster:
    answer = Cluster(
        name=end.name,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=ads()),
        lb_policy=Cluster.ROUND_ROBIN,
        circuit_breakers=unlimited(),
    )
    if end.only is Transport.MUTUAL:
        sni = server_name(end.service, end.port, trust_domain)
        uris = [identity.uri(trust_domain) for identity in target.identities]
        answer.transport_socket.CopyFrom(tls(sni, uris))
    return answer


def first_of(name: str, ends: Iterable[Assignment]) -> Cluster:
    """gRFC A37: the first that has anybody who answers."""
    config = aggregate_pb2.ClusterConfig(clusters=[end.name for end in ends])
    kind = Cluster.CustomClusterType(name="envoy.clusters.aggregate", typed_config=packed(config))
    return Cluster(name=name, cluster_type=kind, lb_policy=Cluster.ROUND_ROBIN)


def tls(sni: str, uris: Iterable[str]) -> base_pb2.TransportSocket:
    """With the files of the bootstrap: gRPC takes no certificate from the control plane (A29)."""
    context = tls_pb2.UpstreamTlsContext(common_tls_context=by_files(), sni=sni)
    # The newer field, which tells kinds of names apart, it reads over: anybody of the mesh would
    # be taken for the server (tried with grpcio 1.85).
    names = context.common_tls_context.validation_context.match_subject_alt_names
    names.extend(string_pb2.StringMatcher(exact=uri) for uri in uris)
    return socket(context)


def by_files() -> tls_pb2.CommonTlsContext:
    instance = common_pb2.CertificateProviderPluginInstance(instance_name=PROVIDER)
    trusted = common_pb2.CertificateValidationContext(ca_certificate_provider_instance=instance)
    return tls_pb2.CommonTlsContext(
        tls_certificate_provider_instance=instance, validation_context=trusted
    )


def socket(context: Message) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.tls", typed_config=packed(context)
    )


def unlimited() -> circuit_breaker_pb2.CircuitBreakers:
    """gRPC's limit of 1024 calls at a time (A32) is a surprise nobody asked for."""
    limits = circuit_breaker_pb2.CircuitBreakers.Thresholds()
    limits.max_requests.value = UNLIMITED
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[limits])
