"""What Envoy would refuse, or could not follow, is left out before it is told, alone."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, FilterChainMatch
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as http,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2 as tcp
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from meshfed.xds.listeners import NOWHERE, tcp_proxy
from meshfed.xds.objects import objects

Named = TypeVar("Named", Cluster, Listener, RouteConfiguration)
Tls = tls_pb2.UpstreamTlsContext | tls_pb2.DownstreamTlsContext
Contexts = (tls_pb2.UpstreamTlsContext, tls_pb2.DownstreamTlsContext)


@dataclass(frozen=True, slots=True, order=True)
class LeftOut:
    """Something of a snapshot that nobody is told."""

    kind: str  # Cluster, Listener, RouteConfiguration, or a part: FilterChain, VirtualHost, Route
    name: str
    why: str

    @property
    def object(self) -> str:
        """The service it is of, as its name tells, or that name."""
        return objects([self.name])[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.why}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What is left: each reference leads somewhere, and Envoy takes all of it."""

    clusters: tuple[Cluster, ...]
    listeners: tuple[Listener, ...]
    routes: tuple[RouteConfiguration, ...]
    left_out: tuple[LeftOut, ...]


def checked(
    clusters: Iterable[Cluster],
    listeners: Iterable[Listener],
    routes: Iterable[RouteConfiguration],
    *,
    assignments: Collection[str],
    secrets: Collection[str],
) -> Checked:
    """From the bottom up, so that what leads to something left out is seen. Changes the messages.

    Nothing is let through because something is left out: a route that leads nowhere answers 503,
    and a filter chain that does closes its connections.
    """
    left: list[LeftOut] = []
    sound = tuple(whole(unique(clusters, left), assignments, secrets, left))
    names = {cluster.name for cluster in sound}
    told = tuple(unique(routes, left))
    for configuration in told:
        distinct_domains(configuration, left)
        for host in configuration.virtual_hosts:
            follow(host, names, left)
    known = {configuration.name for configuration in told}
    opened = tuple(
        listener
        for listener in apart(unique(listeners, left), left)
        if open_chains(listener, names, known, secrets, left)
    )
    return Checked(sound, opened, told, tuple(left))


def unique(messages: Iterable[Named], left: list[LeftOut]) -> Iterator[Named]:
    """One name twice makes Envoy refuse the whole response: the first stays (T10)."""
    found: set[str] = set()
    for message in messages:
        if message.name in found:
            left.append(LeftOut(message.DESCRIPTOR.name, message.name, "is there twice"))
            continue
        found.add(message.name)
        yield message


# Clusters


def whole(
    clusters: Iterable[Cluster],
    assignments: Collection[str],
    secrets: Collection[str],
    left: list[LeftOut],
) -> Iterator[Cluster]:
    for cluster in clusters:
        if lacks := lacking(cluster, assignments, secrets):
            left.append(LeftOut("Cluster", cluster.name, f"there is no {lacks}"))
            continue
        yield cluster


def lacking(cluster: Cluster, assignments: Collection[str], secrets: Collection[str]) -> str:
    """Without it the cluster would warm for 15 s, and hold up the answer to all others (O4)."""
    name = cluster.eds_cluster_config.service_name or cluster.name
    if cluster.type == Cluster.EDS and name not in assignments:
        return f"load assignment {name}"
    sockets = [
        cluster.transport_socket,
        *(m.transport_socket for m in cluster.transport_socket_matches),
    ]
    return missing_secret(sockets, secrets)


def missing_secret(sockets: Iterable[TransportSocket], secrets: Collection[str]) -> str:
    names = (name for socket in sockets for name in secrets_of(socket))
    return next((f"secret {name}" for name in names if name not in secrets), "")


def secrets_of(socket: TransportSocket) -> Iterator[str]:
    for kind in Contexts:
        context: Tls = kind()
        if socket.typed_config.Unpack(context):
            common = context.common_tls_context
            yield from (each.name for each in common.tls_certificate_sds_secret_configs)
            if name := common.validation_context_sds_secret_config.name:
                yield name


# Routes


def distinct_domains(configuration: RouteConfiguration, left: list[LeftOut]) -> None:
    """A domain twice, in whatever case, makes Envoy refuse the whole configuration."""
    taken: set[str] = set()
    hosts: list[VirtualHost] = []
    for host in configuration.virtual_hosts:
        domains = [domain.lower() for domain in host.domains]
        if taken.isdisjoint(domains) and len({*domains}) == len(domains):
            taken.update(domains)
            hosts.append(host)
            continue
        fresh = []
        for domain in host.domains:
            if domain.lower() in taken:
                why = f"{domain} is taken in {configuration.name}"
                left.append(LeftOut("VirtualHost", host.name, why))
                continue
            taken.add(domain.lower())
            fresh.append(domain)
        host.domains[:] = fresh
        hosts += [host] if fresh else []
    if len(hosts) < len(configuration.virtual_hosts):
        del configuration.virtual_hosts[:]
        configuration.virtual_hosts.extend(hosts)


def follow(host: VirtualHost, clusters: Collection[str], left: list[LeftOut]) -> None:
    """Envoy accepts a route to a cluster that is not there (O3), but not weights of nothing."""
    for route in host.routes:
        gone = [name for name in led_to(route.route) if name not in clusters]
        shares = [s for s in route.route.weighted_clusters.clusters if s.name not in gone]
        idle = route.route.HasField("weighted_clusters") and not any(s.weight.value for s in shares)
        if not (gone or idle):
            continue
        why = f"there is no cluster {', '.join(gone)}" if gone else "its weights are all 0"
        left.append(LeftOut("Route", host.name, why))
        if shares and not idle:
            del route.route.weighted_clusters.clusters[:]
            route.route.weighted_clusters.clusters.extend(shares)
        else:
            refuse(route, f"{host.name}: {why}")


def led_to(action: RouteAction) -> list[str]:
    weighted = [share.name for share in action.weighted_clusters.clusters]
    return [action.cluster, *weighted] if action.cluster else weighted


def refuse(route: Route, why: str) -> None:
    """It still matches: what comes after it may be meant for others."""
    route.direct_response.status = 503  # in place of `route`: they are one field
    route.direct_response.body.inline_string = why


# Listeners


def apart(listeners: Iterable[Listener], left: list[LeftOut]) -> Iterator[Listener]:
    """Envoy refuses a listener whose address is taken."""
    taken: dict[bytes, str] = {}
    for listener in listeners:
        where = listener.address.SerializeToString(deterministic=True)
        if where and taken.setdefault(where, listener.name) != listener.name:
            left.append(LeftOut("Listener", listener.name, f"{taken[where]} has its address"))
            continue
        yield listener


def open_chains(
    listener: Listener,
    clusters: Collection[str],
    routes: Collection[str],
    secrets: Collection[str],
    left: list[LeftOut],
) -> bool:
    """Whether there is a chain left: Envoy refuses one without, but gRPC's and UDP's."""
    if listener.HasField("api_listener") or listener.HasField("udp_listener_config"):
        return True
    distinct_matches(listener, left)
    whole_one = [listener.default_filter_chain] if listener.HasField("default_filter_chain") else []
    chains = [*listener.filter_chains, *whole_one]
    for chain in chains:
        lacks = missing_secret([chain.transport_socket], secrets) or missing_end(
            chain.filters, clusters, routes
        )
        if lacks:
            left.append(LeftOut("FilterChain", chain.name, f"there is no {lacks}"))
            close(chain)
    if not chains:
        left.append(LeftOut("Listener", listener.name, "it has no filter chain"))
    return bool(chains)


def missing_end(
    filters: Iterable[Filter], clusters: Collection[str], routes: Collection[str]
) -> str:
    manager, proxy = http.HttpConnectionManager(), tcp.TcpProxy()
    for each in filters:
        if each.typed_config.Unpack(manager):
            name = manager.rds.route_config_name
            if name and name not in routes:
                return f"route configuration {name}"
        elif each.typed_config.Unpack(proxy):
            weighted = [share.name for share in proxy.weighted_clusters.clusters]
            for name in weighted or [proxy.cluster]:
                if name not in clusters and name != NOWHERE:
                    return f"cluster {name}"
    return ""


def close(chain: FilterChain) -> None:
    """Without it, what it matches would fall to the next: past the mesh, where that is the rest."""
    del chain.filters[:]
    chain.ClearField("transport_socket")
    chain.filters.append(tcp_proxy(tcp.TcpProxy(cluster=NOWHERE), chain.name))


def distinct_matches(listener: Listener, left: list[LeftOut]) -> None:
    """Two chains that match one address or server name make Envoy refuse the listener.

    The second keeps what it matches alone. One left with nothing to match would match everything.
    """
    taken: dict[tuple[bytes, str], str] = {}
    kept: list[FilterChain] = []
    for chain in listener.filter_chains:
        rest, ways = told_apart(chain.filter_chain_match)
        free = {way for way in ways if (rest, way) not in taken}
        if len(free) == len(ways):
            taken |= dict.fromkeys(((rest, way) for way in ways), chain.name)
            kept.append(chain)
            continue
        others = {taken.get((rest, way), chain.name) for way in ways if way not in free}
        why = f"{', '.join(sorted(others))} matches some or all of what it does"
        left.append(LeftOut("FilterChain", chain.name, why))
        if free:
            taken |= dict.fromkeys(((rest, way) for way in free), chain.name)
            only(chain.filter_chain_match, free)
            kept.append(chain)
    if len(kept) < len(listener.filter_chains):
        del listener.filter_chains[:]
        listener.filter_chains.extend(kept)


def told_apart(match: FilterChainMatch) -> tuple[bytes, list[str]]:
    """The addresses or server names of which one suffices, and all else, which must hold too."""
    rest = FilterChainMatch()
    rest.CopyFrom(match)
    if match.prefix_ranges:
        rest.ClearField("prefix_ranges")
        ways = [f"{canonical(r.address_prefix)}/{r.prefix_len.value}" for r in match.prefix_ranges]
    else:
        rest.ClearField("server_names")
        ways = [name.lower() for name in match.server_names] or [""]
    return rest.SerializeToString(deterministic=True), ways


def only(match: FilterChainMatch, free: set[str]) -> None:
    """Each of the ways that are free, once."""
    ranges, names = list(match.prefix_ranges), list(match.server_names)
    _, ways = told_apart(match)
    first = [n for n, way in enumerate(ways) if way in free and way not in ways[:n]]
    if ranges:
        del match.prefix_ranges[:]
        match.prefix_ranges.extend(ranges[n] for n in first)
    else:
        match.server_names[:] = [names[n] for n in first]


def canonical(address: str) -> str:
    """IPv6 has several ways to write an address."""
    return str(ip_address(address)) if ":" in address else address
