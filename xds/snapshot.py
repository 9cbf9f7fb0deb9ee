"""All that one class of proxies is told, apart from endpoints and secrets, checked before it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
from meshfed.xds.dns import dns_listener
from meshfed.xds.listeners import (
    explicit_listener,
    http_groups,
    inbound_listener,
    local_listener,
    loopbacks,
    transparent_listener,
    tunnel_listener,
    validated_by,
)
from meshfed.xds.resource import Resource, resource
from meshfed.xds.routes import explicit_routes, inbound_routes, transparent_routes
from meshfed.xds.secrets import INBOUND, OWN, validation_name
from meshfed.xds.soundness import Checked, LeftOut, checked


@dataclass(frozen=True, slots=True)
class Snapshot:
    clusters: Mapping[str, Resource]
    listeners: Mapping[str, Resource]
    routes: Mapping[str, Resource]
    assignments: Mapping[str, Assignment]
    fed: Mapping[str, str]  # the assignment of each cluster that has one
    validations: Mapping[str, tuple[str, ...]]  # by secret: exact URIs, or prefixes ending in /
    left_out: tuple[LeftOut, ...]


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
    targets = targets_by_name(view)
    assignments = {target.assignment.name: target.assignment for target in targets.values()}
    fed = {name: target.assignment.name for name, target in targets.items()}
    trusted = validations(view, targets.values())
    told = checked(
        made.clusters,
        made.listeners,
        made.routes,
        assignments=assignments.keys(),
        secrets={OWN, *trusted},
    )
    return shaped(told, assignments, fed, trusted)


def grpc_snapshot(view: View) -> Snapshot:
    """Without a sidecar: the routes of callers are in their listeners, and secrets in files."""
    ends = {end.name: end for way in grpc_client.ways(view).values() for end in way.ends}
    told = checked(
        grpc_client.clusters(view),
        (*grpc_client.listeners(view), *grpc_server.listeners(view)),
        grpc_server.routes(view),
        assignments=ends.keys(),
        secrets=(),
    )
    return shaped(told, ends, {name: name for name in ends}, {}, *grpc_server.unserved(view))


def shaped(
    told: Checked,
    assignments: Mapping[str, Assignment],
    fed: Mapping[str, str],
    validations: Mapping[str, tuple[str, ...]],
    *unserved: LeftOut,
) -> Snapshot:
    return Snapshot(
        {each.name: resource(each.name, each) for each in told.clusters},
        {each.name: resource(each.name, each) for each in told.listeners},
        {each.name: resource(each.name, each) for each in told.routes},
        assignments,
        fed,
        validations,
        (*told.left_out, *unserved),
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
        [transparent_listener(view), dns_listener(view.names, loopbacks(view.proxy.bind))],
        [transparent_routes(group.name, group.services, identity) for group in groups],
    )


def targets_by_name(view: View) -> dict[str, Target]:
    choices = (choice for outbound in view.outbound for choice in outbound.choices)
    targets = (share.target for choice in choices for share in choice.shares)
    return {target.cluster: target for target in targets}


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
