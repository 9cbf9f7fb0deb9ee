"""Routes: where a request goes by its authority, and who may make it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.containers import MessageMap
from google.protobuf.message import Message

from meshfed.catalog.model import HttpMatch, Identity, ServiceName
from meshfed.catalog.reach import Choice, Outbound, Share
from meshfed.catalog.view import Inbound, View
from meshfed.xds.clusters import TUNNEL, local_name
from meshfed.xds.dns import DOMAIN
from meshfed.xds.rbac import (
    ANY_PATH,
    HeaderMatcher,
    headers,
    method,
    named_methods,
    per_caller,
    per_route,
    regex,
)
from meshfed.xds.resource import packed

OUTBOUND = "outbound"
RBAC_FILTER = "envoy.filters.http.rbac"
CONNECT = "CONNECT"
# Nothing of a request has reached an application in any of these cases: it is safe to ask another.
RETRY_ON = "connect-failure,refused-stream,reset-before-request"
# With it a server's sidecar says the same of an answer of its own; applications never see it.
UNHEARD = "x-meshfed-unheard"

Route = route_components_pb2.Route
RouteAction = route_components_pb2.RouteAction
RouteMatch = route_components_pb2.RouteMatch
VirtualHost = route_components_pb2.VirtualHost
WeightedCluster = route_components_pb2.WeightedCluster
RouteConfiguration = route_pb2.RouteConfiguration


def inbound_routes(inbound: Inbound, trust_domain: str) -> RouteConfiguration:
    """One route, that carries the policies; retried only where the application heard nothing."""
    name = inbound_name(inbound.service, inbound.port)
    route = Route(
        name="application",
        match=RouteMatch(prefix="/"),
        route=forward(cluster=local_name(inbound.service, inbound.port)),
    )
    if inbound.grants is not None:
        enforce(route.typed_per_filter_config, per_route(inbound.grants, trust_domain))
    answer = VirtualHost(name=name, domains=["*"], routes=[route])
    answer.response_headers_to_remove.append(UNHEARD)  # is not the application's to say
    # A connection that the application had let go of. Where none can be made the caller's sidecar
    # knows others: to wait here for this one would fill its buffer with what is being sent.
    answer.retry_policy.retry_on = "reset-before-request"
    answer.retry_policy.num_retries.value = 2
    return RouteConfiguration(name=name, virtual_hosts=[answer])


def explicit_routes(view: View) -> RouteConfiguration:
    """An HTTP proxy's: by authority, and CONNECT to one."""
    services: defaultdict[ServiceName, list[Outbound]] = defaultdict(list)
    for outbound in view.outbound:
        services[outbound.service].append(outbound)
    hosts = [each for ports in services.values() for each in service_hosts(tuple(ports))]
    return RouteConfiguration(name=OUTBOUND, virtual_hosts=[*hosts, unknown(view.proxy.identity)])


def transparent_routes(
    name: str, outbounds: Sequence[Outbound], identity: Identity
) -> RouteConfiguration:
    """Where the address alone says which service is meant, any authority will do."""
    if len(outbounds) == 1:
        alone = preferring(host(host_name(outbounds[0]), ["*"], plain(outbounds[0])), outbounds[0])
        return RouteConfiguration(name=name, virtual_hosts=[alone])
    hosts = [preferring(host(host_name(o), cluster_domains(o), plain(o)), o) for o in outbounds]
    return RouteConfiguration(name=name, virtual_hosts=[*hosts, unknown(identity)])


def inbound_name(service: ServiceName, port: int) -> str:
    return f"inbound|{service}|{port}"


def host_name(outbound: Outbound) -> str:
    return f"{outbound.service}|{outbound.port.number}"


def cluster_domains(outbound: Outbound) -> list[str]:
    """The names that transparent callers use for it, with and without the port."""
    ends = ("", ".svc", ".svc.cluster.local", f".{DOMAIN}")
    names = [f"{outbound.service}{end}" for end in ends]
    return [f"{name}{port}" for name in names for port in ("", f":{outbound.port.number}")]


@lru_cache(maxsize=1 << 14)
def service_hosts(outbounds: tuple[Outbound, ...]) -> list[VirtualHost]:
    """A host for each port, and one that says which ports there are.

    The same messages for every class of callers that may call the same: not to be changed.
    """
    service = outbounds[0].service
    meant = unspoken(outbounds)
    hosts = []
    for outbound in outbounds:
        domains = [f"{service}:{outbound.port.number}"]
        if outbound is meant:
            domains.insert(0, str(service))
        inside = plain(outbound) if outbound.port.protocol.is_http else [opaque(outbound)]
        routes = [connect(outbound), *inside]
        hosts.append(preferring(host(host_name(outbound), domains, routes), outbound))
    ports = ", ".join(f"{o.port.number} ({o.port.protocol})" for o in outbounds)
    why = f"{service} can be called on port {ports}: name one of them"
    others = [f"{service}:*"] if meant else [str(service), f"{service}:*"]
    hosts.append(VirtualHost(name=f"{service}|ports", domains=others, routes=refusals(404, why)))
    return hosts


def unspoken(outbounds: Sequence[Outbound]) -> Outbound | None:
    """The port that is meant when none is named: the only one, else 80."""
    if len(outbounds) == 1:
        return outbounds[0]
    return next((o for o in outbounds if o.port.number == 80), None)


def plain(outbound: Outbound) -> list[Route]:
    return [route for choice in outbound.choices for route in chosen(choice)]


def chosen(choice: Choice) -> list[Route]:
    matches = [RouteMatch(prefix="/")]
    if choice.matches is not None:
        matches = [route_match(m, name) for m in choice.matches for name in methods(m)]
    return [destination(match, choice) for match in matches]


def methods(match: HttpMatch) -> list[str]:
    return named_methods(match) or [""]


def route_match(match: HttpMatch, name: str) -> RouteMatch:
    conditions: list[HeaderMatcher] = headers(match)
    if name:
        conditions.insert(0, method(name))
    if match.path_regex == ANY_PATH:
        return RouteMatch(prefix="/", headers=conditions)
    return RouteMatch(safe_regex=regex(match.path_regex), headers=conditions)


def destination(match: RouteMatch, choice: Choice) -> Route:
    if not choice.shares:
        return refusal(match, 503, choice.why)
    route = Route(match=match, route=by_weight(choice.shares))
    if len(choice.shares) == 1 and choice.shares[0].target.requests is not None:
        enforce(route.typed_per_filter_config, per_caller(choice.shares[0].target.requests))
    return route


def by_weight(shares: Sequence[Share]) -> RouteAction:
    if len(shares) == 1:
        return forward(cluster=shares[0].target.cluster)
    weighted = [cluster_weight(share) for share in by_name(shares)]
    return forward(weighted_clusters=WeightedCluster(clusters=weighted))


def by_name(shares: Iterable[Share]) -> list[Share]:
    return sorted(shares, key=lambda share: share.target.cluster)


def cluster_weight(share: Share) -> WeightedCluster.ClusterWeight:
    answer = WeightedCluster.ClusterWeight(name=share.target.cluster)
    answer.weight.value = share.weight
    if share.target.requests is not None:
        enforce(answer.typed_per_filter_config, per_caller(share.target.requests))
    return answer


def forward(*, cluster: str = "", weighted_clusters: WeightedCluster | None = None) -> RouteAction:
    """Without Envoy's 15 s timeout: how long an answer takes is the application's affair."""
    action = (
        RouteAction(weighted_clusters=weighted_clusters)
        if weighted_clusters
        else RouteAction(cluster=cluster)
    )
    action.timeout.CopyFrom(Duration())
    return action


def host(name: str, domains: Iterable[str], routes: Iterable[Route]) -> VirtualHost:
    """What was not heard is tried at whoever was not tried yet.

    Half of those who are dead may be called on (xds/clusters.py), and all again when they were left
    alone for long enough. Who fails at once has the fewest requests, so they are drawn the most: of
    three dead hosts among five, with two retries and three draws, one call in a hundred met no
    other (Envoy 1.40).
    """
    another = route_components_pb2.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
    )
    answer = VirtualHost(name=name, domains=domains, routes=routes)
    answer.response_headers_to_remove.append(UNHEARD)
    answer.retry_policy.retry_on = f"{RETRY_ON},retriable-headers"
    answer.retry_policy.retriable_headers.append(HeaderMatcher(name=UNHEARD, present_match=True))
    answer.retry_policy.num_retries.value = 5
    answer.retry_policy.host_selection_retry_max_attempts = 10
    answer.retry_policy.retry_host_predicate.append(another)
    return answer


def preferring(answer: VirtualHost, outbound: Outbound) -> VirtualHost:
    """What was not heard twice is tried at the next priority: the first may have but one host.

    Twice at each of three priorities: of two platforms that are away, all is tried again at once
    when Envoy has left it alone for long enough.
    """
    targets = (share.target for choice in outbound.choices for share in choice.shares)
    if any(target.assignment.preference.prefer for target in targets):
        another = previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=2)
        answer.retry_policy.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        answer.retry_policy.retry_priority.typed_config.CopyFrom(packed(another))
    return answer


def connect(outbound: Outbound) -> Route:
    """CONNECT, which gRPC and websocket clients say to a proxy.

    An HTTP service's tunnel ends in this sidecar again: each request inside is routed by itself.
    """
    choice = outbound.choices[-1]
    http = outbound.port.protocol.is_http
    if not http and not choice.shares:
        return refusal(connecting(), 503, choice.why)
    action = forward(cluster=TUNNEL) if http else by_weight(choice.shares)
    action.upgrade_configs.append(
        RouteAction.UpgradeConfig(
            upgrade_type=CONNECT, connect_config=RouteAction.UpgradeConfig.ConnectConfig()
        )
    )
    return Route(match=connecting(), route=action)


def connecting() -> RouteMatch:
    return RouteMatch(connect_matcher=RouteMatch.ConnectMatcher())


def opaque(outbound: Outbound) -> Route:
    local = outbound.port.local
    how = f"connect to its local port {local}" if local else "give its port a `local` port"
    speaks = f"{outbound.service}:{outbound.port.number} speaks {outbound.port.protocol}"
    return refusal(RouteMatch(prefix="/"), 404, f"{speaks}: use CONNECT, or {how}")


def unknown(identity: Identity) -> VirtualHost:
    """The same words for what does not exist and for what is not this caller's to know."""
    why = (
        f" is not a service that {identity} may call: there is none of that name, or no"
        " TrafficTarget lets it"
    )
    return VirtualHost(name="unknown", domains=["*"], routes=refusals(404, why, named=True))


def refusals(status: int, why: str, *, named: bool = False) -> list[Route]:
    # A prefix does not match CONNECT.
    return [
        refusal(match, status, why, named=named) for match in (connecting(), RouteMatch(prefix="/"))
    ]


def refusal(match: RouteMatch, status: int, why: str, *, named: bool = False) -> Route:
    """An answer of the sidecar's own; `named` begins it with the authority that was asked for."""
    answer = route_components_pb2.DirectResponseAction(status=status)
    if named:
        text = base_pb2.DataSource(inline_string=f"%REQ(:AUTHORITY)%{why}")
        answer.body_format.CopyFrom(
            substitution_format_string_pb2.SubstitutionFormatString(text_format_source=text)
        )
    else:
        answer.body.inline_string = why
    return Route(match=match, direct_response=answer)


def enforce(filters: MessageMap[str, Any], rules: Message) -> None:
    filters[RBAC_FILTER].CopyFrom(packed(rules))
