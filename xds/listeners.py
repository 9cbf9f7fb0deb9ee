"""Listeners: where a sidecar takes traffic in, from the mesh and from its application."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from meshfed.catalog.reach import Outbound, Share
from meshfed.catalog.view import Inbound, View
from meshfed.xds.clusters import PASSTHROUGH, TUNNEL, http2, literal, local_name
from meshfed.xds.endpoints import INBOUND_PORT, address
from meshfed.xds.rbac import per_connection
from meshfed.xds.resource import packed
from meshfed.xds.routes import CONNECT, OUTBOUND, RBAC_FILTER, UNHEARD, by_name, inbound_name
from meshfed.xds.secrets import INBOUND, TCP_ALPN, ads, downstream_tls, server_name, validation_name

OUTBOUND_PORT = 15001
INBOUND_LISTENER = "inbound"
NOWHERE = "nowhere"  # no cluster has this name: a connection led there is closed
ROUTER_FILTER = "envoy.filters.http.router"

Listener = listener_pb2.Listener
FilterChain = listener_components_pb2.FilterChain
FilterChainMatch = listener_components_pb2.FilterChainMatch
Filter = listener_components_pb2.Filter
Manager = http_connection_manager_pb2.HttpConnectionManager
HttpFilter = http_connection_manager_pb2.HttpFilter
ResponseMapper = http_connection_manager_pb2.ResponseMapper
TcpProxy = tcp_proxy_pb2.TcpProxy


def inbound_listener(view: View) -> Listener:
    """From the mesh: chains match the server name alone, so it does not matter how it came here."""
    return Listener(
        name=INBOUND_LISTENER,
        address=bound(view.proxy.bind, INBOUND_PORT),
        traffic_direction=base_pb2.TrafficDirection.INBOUND,
        listener_filters=[tls_inspector()],
        filter_chains=[inbound_chain(inbound, view.trust_domain) for inbound in view.inbound],
    )


def explicit_listener(view: View) -> Listener:
    """An HTTP proxy for this machine alone: bound wider, it would lend its identity to others."""
    return Listener(
        name=OUTBOUND,
        address=address(loopback(view.proxy.bind), OUTBOUND_PORT),
        traffic_direction=base_pb2.TrafficDirection.OUTBOUND,
        filter_chains=[FilterChain(name=OUTBOUND, filters=[outbound_http(OUTBOUND, OUTBOUND)])],
    )


def tunnel_listener() -> Listener:
    """What comes out of CONNECT to an HTTP service."""
    return Listener(
        name=TUNNEL,
        internal_listener=Listener.InternalListenerConfig(),
        traffic_direction=base_pb2.TrafficDirection.OUTBOUND,
        filter_chains=[FilterChain(name=TUNNEL, filters=[outbound_http(TUNNEL, OUTBOUND)])],
    )


def local_listener(outbound: Outbound, bind: str) -> Listener | None:
    """A TCP service at a loopback port of its explicit callers."""
    shares = outbound.choices[-1].shares
    if outbound.port.protocol.is_http or outbound.port.local is None or not shares:
        return None
    name = f"local|{outbound.service}|{outbound.port.number}"
    return Listener(
        name=name,
        address=address(loopback(bind), outbound.port.local),
        traffic_direction=base_pb2.TrafficDirection.OUTBOUND,
        filter_chains=[FilterChain(name=name, filters=[tcp_to(shares, name)])],
    )


def transparent_listener(view: View) -> Listener:
    """Whatever the application dials, by the address it dialled.

    What is redirected comes to the loopback address of its own family.
    """
    first, *others = (address(each, OUTBOUND_PORT) for each in loopbacks(view.proxy.bind))
    return Listener(
        name=OUTBOUND,
        address=first,
        additional_addresses=[listener_pb2.AdditionalAddress(address=each) for each in others],
        traffic_direction=base_pb2.TrafficDirection.OUTBOUND,
        listener_filters=[original_dst()],
        filter_chains=[
            *(group_chain(group) for group in http_groups(view.outbound)),
            *(tcp_chain(o) for o in view.outbound if not o.port.protocol.is_http),
            *(denied_chain(port, addresses) for port, addresses in view.denied),
        ],
        default_filter_chain=FilterChain(
            name=PASSTHROUGH, filters=[tcp_proxy(TcpProxy(cluster=PASSTHROUGH), PASSTHROUGH)]
        ),
    )


def inbound_chain(inbound: Inbound, trust_domain: str) -> FilterChain:
    name = inbound_name(inbound.service, inbound.port)
    sni = server_name(inbound.service, inbound.port, trust_domain)
    alpn = ("h2", "http/1.1") if inbound.protocol.is_http else (TCP_ALPN,)
    return FilterChain(
        name=name,
        filter_chain_match=FilterChainMatch(server_names=[sni]),
        transport_socket=downstream_tls(validated_by(inbound), *alpn),
        filters=(
            [inbound_http(name, inbound)]
            if inbound.protocol.is_http
            else inbound_tcp(name, inbound, trust_domain)
        ),
    )


def validated_by(inbound: Inbound) -> str:
    """Everybody of the mesh where the filters decide; for TCP, in the handshake, who may call.

    Envoy's network RBAC waits for the caller's first byte, and a server that speaks first would
    have greeted it by then (tried with 1.40).
    """
    name = inbound_name(inbound.service, inbound.port)
    return INBOUND if inbound.protocol.is_http or not inbound.grants else validation_name(name)


def inbound_tcp(name: str, inbound: Inbound, trust_domain: str) -> list[Filter]:
    """The handshake lets callers in; RBAC makes what is open drain when access is taken away."""
    if inbound.grants is None:
        return [tcp_proxy(application(inbound), name)]
    allowed = per_connection(inbound.grants, trust_domain, f"{name}.")
    # Nobody is allowed: RBAC would wait for a first byte, this closes at once.
    proxy = application(inbound) if inbound.grants else TcpProxy(cluster=NOWHERE)
    return [filter_("envoy.filters.network.rbac", allowed), tcp_proxy(proxy, name)]


def application(inbound: Inbound) -> TcpProxy:
    """Not even connected to before the caller has shown its certificate."""
    proxy = TcpProxy(
        cluster=local_name(inbound.service, inbound.port),
        upstream_connect_mode=tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE,
    )
    proxy.max_early_data_bytes.value = 65536  # what the caller may say until then; must be given
    return proxy


def inbound_http(name: str, inbound: Inbound) -> Filter:
    manager = http_manager(name, name)
    # The application learns who calls, and cannot be lied to about it.
    manager.forward_client_cert_details = Manager.SANITIZE_SET
    manager.set_current_client_cert_details.uri = True
    manager.local_reply_config.mappers.append(unheard())
    manager.upgrade_configs.append(Manager.UpgradeConfig(upgrade_type="websocket"))
    return filter_("envoy.filters.network.http_connection_manager", manager)


def unheard() -> ResponseMapper:
    """Says with which of Envoy's response flags, where it answers itself before any application.

    NC is what it answers when its machine no longer serves this: what callers that have not heard
    of it yet send over open connections finds its cluster gone (Envoy 1.40).
    """
    answer = ResponseMapper()
    answer.filter.response_flag_filter.flags.extend(("NC", "NR", "UF", "UH"))
    header = base_pb2.HeaderValue(key=UNHEARD, value="%RESPONSE_FLAGS%")
    answer.headers_to_add.append(base_pb2.HeaderValueOption(header=header))
    return answer


def outbound_http(stat_prefix: str, routes: str) -> Filter:
    manager = http_manager(stat_prefix, routes)
    manager.strip_trailing_host_dot = True
    manager.http2_protocol_options.CopyFrom(http2())
    for upgrade in ("websocket", CONNECT):
        manager.upgrade_configs.append(Manager.UpgradeConfig(upgrade_type=upgrade))
    return filter_("envoy.filters.network.http_connection_manager", manager)


def http_manager(stat_prefix: str, routes: str) -> Manager:
    return Manager(
        codec_type=Manager.AUTO,
        stat_prefix=stat_prefix,
        rds=http_connection_manager_pb2.Rds(config_source=ads(), route_config_name=routes),
        http_filters=[
            # Empty: the routes carry the rules.
            http_filter(RBAC_FILTER, http_rbac_pb2.RBAC()),
            http_filter(ROUTER_FILTER, router_pb2.Router(suppress_envoy_headers=True)),
        ],
        # A quiet stream is not a dead one: long polls, gRPC streams and websockets stay open.
        stream_idle_timeout=Duration(),
        # The application's own name, not Envoy's.
        server_header_transformation=Manager.PASS_THROUGH,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """HTTP services that share addresses and a port: one chain, routed by authority."""

    port: int
    hosts: tuple[str, ...]
    services: tuple[Outbound, ...]

    @property
    def name(self) -> str:
        names = ",".join(str(outbound.service) for outbound in self.services)
        return f"{OUTBOUND}|{self.port}|{sha256(names.encode()).hexdigest()[:16]}"


def http_groups(outbounds: Iterable[Outbound]) -> list[Group]:
    """Each address leads to one chain, also where the members of two services overlap."""
    at: defaultdict[tuple[int, str], list[Outbound]] = defaultdict(list)
    for outbound in outbounds:
        if outbound.port.protocol.is_http:
            for host in outbound.addresses:
                at[outbound.port.number, host].append(outbound)
    shared: defaultdict[tuple[int, tuple[Outbound, ...]], list[str]] = defaultdict(list)
    for (port, host), services in at.items():
        shared[port, tuple(services)].append(host)
    return [Group(port, tuple(hosts), services) for (port, services), hosts in shared.items()]


def group_chain(group: Group) -> FilterChain:
    return FilterChain(
        name=group.name,
        filter_chain_match=dialling(group.hosts, group.port),
        filters=[outbound_http(OUTBOUND, group.name)],
    )


def tcp_chain(outbound: Outbound) -> FilterChain:
    name = f"{OUTBOUND}|{outbound.service}|{outbound.port.number}"
    return FilterChain(
        name=name,
        filter_chain_match=dialling(outbound.addresses, outbound.port.number),
        filters=[tcp_to(outbound.choices[-1].shares, name)],
    )


def denied_chain(port: int, hosts: Sequence[str]) -> FilterChain:
    name = f"denied|{port}"
    return FilterChain(
        name=name,
        filter_chain_match=dialling(hosts, port),
        filters=[tcp_proxy(TcpProxy(cluster=NOWHERE), name)],
    )


def dialling(hosts: Iterable[str], port: int) -> FilterChainMatch:
    match = FilterChainMatch(prefix_ranges=[one_address(host) for host in hosts])
    match.destination_port.value = port
    return match


def one_address(host: str) -> address_pb2.CidrRange:
    answer = address_pb2.CidrRange(address_prefix=host)
    answer.prefix_len.value = ip_address(host).max_prefixlen
    return answer


def tcp_to(shares: Sequence[Share], name: str) -> Filter:
    taking = [share for share in shares if share.weight]  # Envoy refuses a weight of 0 here
    if len(taking) < 2:
        cluster = taking[0].target.cluster if taking else NOWHERE
        return tcp_proxy(TcpProxy(cluster=cluster), name)
    clusters = [
        TcpProxy.WeightedCluster.ClusterWeight(name=share.target.cluster, weight=share.weight)
        for share in by_name(taking)
    ]
    weighted = TcpProxy.WeightedCluster(clusters=clusters)
    return tcp_proxy(TcpProxy(weighted_clusters=weighted), name)


def tcp_proxy(proxy: TcpProxy, stat_prefix: str) -> Filter:
    proxy.stat_prefix = stat_prefix
    proxy.idle_timeout.CopyFrom(Duration())  # database connections rest for hours
    proxy.max_connect_attempts.value = 3  # another host, where the first cannot be reached
    return filter_("envoy.filters.network.tcp_proxy", proxy)


def filter_(name: str, config: Message) -> Filter:
    return Filter(name=name, typed_config=packed(config))


def http_filter(name: str, config: Message) -> HttpFilter:
    return HttpFilter(name=name, typed_config=packed(config))


def tls_inspector() -> listener_components_pb2.ListenerFilter:
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.tls_inspector",
        typed_config=packed(tls_inspector_pb2.TlsInspector()),
    )


def original_dst() -> listener_components_pb2.ListenerFilter:
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_dst",
        typed_config=packed(original_dst_pb2.OriginalDst()),
    )


def loopback(bind: str) -> str:
    """Its own loopback address where it has one, as in the demo; else everybody's."""
    return bind if literal(bind) and ip_address(bind).is_loopback else "127.0.0.1"


def loopbacks(bind: str) -> tuple[str, ...]:
    """One of each family. Without IPv6 there is no `::1`, and Envoy would refuse the listener."""
    return (loopback(bind), "::1") if bind == "::" else (loopback(bind),)


def bound(host: str, port: int) -> address_pb2.Address:
    answer = address(host, port)
    answer.socket_address.ipv4_compat = host == "::"  # both families on one socket
    return answer
