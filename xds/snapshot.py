"""All that one class of proxies is told, apart from endpoints and secrets, checked before it is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from meshfed.catalog.model import Interception
from meshfed.catalog.reach import Assignment, Target
from meshfed.catalog.view import View
from meshfed.xds import grpc_client, grpc_server
from meshfed.xds.clusters import (
    local_cluster,
    mesh_cluster,
    passthrough_cluster,
    tunnel_cluster,
)
from meshfed.xds.listeners import (
    explicit_listener,
    http_groups,
    inbound_listener,
    local_listener,
    transparent_listener,
    tunnel_listener,
    validated_by,
)
from meshfed.xds.resource import Resource, resource
from meshfed.xds.routes import explicit_routes, inbound_routes, transparent_routes
from meshfed.xds.secrets import INBOUND, validation_name

Named = TypeVar("Named", Cluster, Listener, RouteConfiguration)


@dataclass(frozen=True, slots=True)
class Snapshot:
    clusters: Mapping[str, Resource]
    listeners: Mapping[str, Resource]
    routes: Mapping[str, Resource]
    assignments: Mapping[str, Assignment]
    validations: Mapping[str, tuple[str, ...]]  # by secret: exact URIs, or prefixes ending in /
    problems: tuple[str, ...]  # what was left out, and why


@dataclass(frozen=True, slots=True)
class Messages:
    """The same before it is packed."""

    clusters: list[Cluster]
    listeners: list[Listener]
    routes: list[RouteConfiguration]


def snapshot(view: View) -> Snapshot:
    if view.proxy.interception is Interception.GRPC:
        return grpc_snapshot(view)
    made = messages(view)
    problems: list[str] = []
    clusters = packed_once(made.clusters, problems)
    routes = packed_once(made.routes, problems)
    listeners = packed_once(sound(made.listeners, problems), problems)
    problems += dangling(made.routes, clusters)
    targets = targets_by_name(view)
    return Snapshot(
        clusters,
        listeners,
        routes,
        {name: target.assignment for name, target in targets.items()},
        validations(view, targets.values()),
        tuple(problems),
    )


def grpc_snapshot(view: View) -> Snapshot:
    """Without a sidecar: the routes of callers are in their listeners, and secrets in files."""
    problems = [*grpc_server.unserved(view)]
    return Snapshot(
        packed_once(grpc_client.clusters(view), problems),
        packed_once((*grpc_client.listeners(view), *grpc_server.listeners(view)), problems),
        packed_once(grpc_server.routes(view), problems),
        {end.name: end for way in grpc_client.ways(view).values() for end in way.ends},
        {},
        tuple(problems),
    )


def messages(view: View) -> Messages:
    explicit = view.proxy.interception is Interception.EXPLICIT
    outward = explicit_messages(view) if explicit else transparent_messages(view)
    # Envoy refuses a listener without chains.
    inward = [inbound_listener(view)] if view.inbound else []
    http = [inbound for inbound in view.inbound if inbound.protocol.is_http]
    targets = targets_by_name(view)
    return Messages(
        [
            *(mesh_cluster(targets[name], view.trust_domain) for name in sorted(targets)),
            *(local_cluster(inbound, view.proxy.application) for inbound in view.inbound),
            *outward.clusters,
        ],
        [*inward, *outward.listeners],
        [*(inbound_routes(inbound, view.trust_domain) for inbound in http), *outward.routes],
    )


def explicit_messages(view: View) -> Messages:
    local = (local_listener(outbound, view.proxy.bind) for outbound in view.outbound)
    return Messages(
        [tunnel_cluster()],
        [explicit_listener(view), tunnel_listener(), *filter(None, local)],
        [explicit_routes(view)],
    )


def transparent_messages(view: View) -> Messages:
    groups = http_groups(view.outbound)
    identity = view.proxy.identity
    return Messages(
        [passthrough_cluster()],
        [transparent_listener(view)],
        [transparent_routes(group.name, group.services, identity) for group in groups],
    )


def targets_by_name(view: View) -> dict[str, Target]:
    choices = (choice for outbound in view.outbound for choice in outbound.choices)
    targets = (share.target for choice in choices for share in choice.shares)
    return {target.assignment.name: target for target in targets}


def validations(view: View, targets: Iterable[Target]) -> dict[str, tuple[str, ...]]:
    """Whoever a caller may reach, and nobody else: never an empty list, which is everybody."""
    found: dict[str, tuple[str, ...]] = {}
    if view.inbound:
        found[INBOUND] = (f"spiffe://{view.trust_domain}/ns/",)
    for inbound in view.inbound:
        if (name := validated_by(inbound)) != INBOUND:
            sources = sorted({who for grant in inbound.grants or () for who in grant.sources})
            found[name] = tuple(who.uri(view.trust_domain) for who in sources)
    for target in targets:
        if target.identities:
            uris = tuple(identity.uri(view.trust_domain) for identity in target.identities)
            found[validation_name(target.assignment.name)] = uris
    return found


def packed_once(messages: Iterable[Named], problems: list[str]) -> dict[str, Resource]:
    """One name twice makes Envoy refuse the whole response: the first stays."""
    found: dict[str, Resource] = {}
    for message in messages:
        if message.name in found:
            kind = message.DESCRIPTOR.name
            problems.append(f"{kind} {message.name} is there twice: the second is left out")
            continue
        found[message.name] = resource(message.name, message)
    return found


def sound(listeners: Iterable[Listener], problems: list[str]) -> Iterator[Listener]:
    """Envoy refuses a listener whose address is taken, and one with two equal matches."""
    taken: dict[bytes, str] = {}
    for listener in listeners:
        where = listener.address.SerializeToString(deterministic=True)
        if where and taken.setdefault(where, listener.name) != listener.name:
            problems.append(f"Listener {listener.name} has the address of {taken[where]}: left out")
            continue
        remove_collisions(listener, problems)
        yield listener


def remove_collisions(listener: Listener, problems: list[str]) -> None:
    seen: dict[bytes, str] = {}
    chains = list(listener.filter_chains)
    del listener.filter_chains[:]
    for chain in chains:
        match = chain.filter_chain_match.SerializeToString(deterministic=True)
        if match in seen:
            problems.append(
                f"Listener {listener.name}: {chain.name} matches what {seen[match]} does: left out"
            )
            continue
        seen[match] = chain.name
        listener.filter_chains.append(chain)


def dangling(
    routes: Iterable[RouteConfiguration], clusters: Mapping[str, Resource]
) -> Iterator[str]:
    """Envoy accepts a route to a cluster that is not there, and answers 503."""
    for configuration in routes:
        for host in configuration.virtual_hosts:
            for route in host.routes:
                named = [c.name for c in route.route.weighted_clusters.clusters]
                for name in filter(None, [route.route.cluster, *named]):
                    if name not in clusters:
                        yield f"Route {host.name} leads to cluster {name}, which does not exist"
