"""What a gRPC server without a sidecar is told: who may call it, over mutual TLS (gRFCs A36, A41).

It asks for a listener by the address that it listens on, and takes no calls before it is told.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from meshfed.catalog.view import Inbound, View
from meshfed.xds.endpoints import address
from meshfed.xds.grpc_bootstrap import listener_name
from meshfed.xds.grpc_client import by_files, http_manager, socket
from meshfed.xds.rbac import per_route
from meshfed.xds.resource import packed
from meshfed.xds.routes import RBAC_FILTER, enforce
from meshfed.xds.secrets import ads
from meshfed.xds.soundness import LeftOut

Listener = listener_pb2.Listener
Route = route_components_pb2.Route
RouteConfiguration = route_pb2.RouteConfiguration

WILDCARDS = ("0.0.0.0", "::")


def listened(view: View) -> dict[int, list[Inbound]]:
    """What is answered at each port of the application."""
    found: defaultdict[int, list[Inbound]] = defaultdict(list)
    for inbound in view.inbound:
        for port in inbound.targets if inbound.protocol.is_grpc else ():
            found[port].append(inbound)
    return dict(sorted(found.items()))


def unserved(view: View) -> Iterator[LeftOut]:
    for inbound in view.inbound:
        if not inbound.protocol.is_grpc:
            why = (
                f"its port {inbound.port} speaks {inbound.protocol}:"
                f" {view.proxy.identity} has interception grpc, and serves only grpc and http2"
            )
            yield LeftOut("Service", str(inbound.service), why)


def listeners(view: View) -> Iterator[Listener]:
    for port in listened(view):
        for host in hosts(view.proxy.bind):
            yield listener(host, port)


def hosts(bind: str) -> Sequence[str]:
    """Who listens everywhere may say so in either family's words."""
    return WILDCARDS if bind in WILDCARDS else (bind,)


def listener(host: str, port: int) -> Listener:
    """The routes are told apart: a change of the listener would end its connections."""
    rules = http_connection_manager_pb2.HttpFilter(
        name=RBAC_FILTER, typed_config=packed(http_rbac_pb2.RBAC())
    )
    manager = http_manager(routes_name(port), rules)
    manager.rds.CopyFrom(
        http_connection_manager_pb2.Rds(config_source=ads(), route_config_name=routes_name(port))
    )
    chain = listener_components_pb2.FilterChain(
        name=routes_name(port),
        transport_socket=tls(),
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)
            )
        ],
    )
    return Listener(
        name=listener_name(host, port),
        address=address(host, port),
        traffic_direction=base_pb2.TrafficDirection.INBOUND,
        filter_chains=[chain],
    )


def tls() -> base_pb2.TransportSocket:
    context = tls_pb2.DownstreamTlsContext(common_tls_context=by_files())
    context.require_client_certificate.value = True
    return socket(context)


def routes(view: View) -> Iterator[RouteConfiguration]:
    for port, inbounds in listened(view).items():
        yield allowed(routes_name(port), inbounds, view.trust_domain)


def allowed(name: str, inbounds: Iterable[Inbound], trust_domain: str) -> RouteConfiguration:
    """Whoever may call one of the services of a port: the application cannot tell them apart."""
    route = Route(
        match=route_components_pb2.RouteMatch(prefix="/"),
        non_forwarding_action=route_components_pb2.NonForwardingAction(),
    )
    grants = [inbound.grants for inbound in inbounds]
    if None not in grants:
        every = [grant for given in grants for grant in given or ()]
        enforce(route.typed_per_filter_config, per_route(every, trust_domain))
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=[route])
    return RouteConfiguration(name=name, virtual_hosts=[host])


def routes_name(port: int) -> str:
    return f"inbound|{port}"
