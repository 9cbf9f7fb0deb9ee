"""What one proxy should have, what it acknowledged, and what its Envoy says it has."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import MessageToDict

from meshfed.catalog.model import Mesh, Workload
from meshfed.catalog.resolved import Resolved
from meshfed.catalog.view import proxy_class, view
from meshfed.federation.explain.kinds import Kind
from meshfed.xds.endpoints import load_assignment
from meshfed.xds.resource import Resource
from meshfed.xds.secrets import OWN
from meshfed.xds.snapshot import snapshot

REDACTED = "[redacted]"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A resource that a proxy should have. A secret's version is its replica's own: empty here."""

    kind: Kind
    name: str
    version: str
    about: str
    config: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """A resource as the Envoy itself has it; empty where it does not say."""

    kind: Kind
    name: str
    version: str = ""
    members: tuple[str, ...] = ()  # of a load assignment
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One resource, wanted and had."""

    type: str
    name: str
    wanted: str
    acked: str  # the version of the whole type that the proxy accepted last
    live: str
    state: str  # same, differs, missing, extra, rejected; empty: the Envoy was not asked
    about: str
    config: Mapping[str, object]


def wanted(mesh: Mesh, workload: Workload, resolved: Resolved) -> tuple[Wanted, ...]:
    """From the catalog alone. Raises Anonymous."""
    shape = snapshot(view(mesh, proxy_class(mesh, workload, resolved), resolved))
    assignments = [
        load_assignment(at, mesh.endpoints_of(at.service, at.port))
        for at in shape.assignments.values()
    ]
    secrets = [
        Wanted(Kind.SECRETS, name, "", f"trusts {', '.join(sans)}", {"trusts": list(sans)})
        for name, sans in sorted(shape.validations.items())
    ]
    own = Wanted(Kind.SECRETS, OWN, "", f"of {workload.identity}", {"private_key": REDACTED})
    return (
        *(_wanted(Kind.CLUSTERS, each) for each in shape.clusters.values()),
        *(_wanted(Kind.LISTENERS, each) for each in shape.listeners.values()),
        *(_wanted(Kind.ROUTES, each) for each in shape.routes.values()),
        *(_wanted(Kind.ENDPOINTS, each) for each in assignments),
        own,
        *secrets,
    )


def _wanted(kind: Kind, resource: Resource) -> Wanted:
    packed = Any.FromString(resource.any)
    config = MessageToDict(packed, preserving_proto_field_name=True)
    about = ", ".join(members(packed)) if kind is Kind.ENDPOINTS else ""
    return Wanted(kind, resource.name, resource.version, about, config)


def members(packed: Any) -> tuple[str, ...]:
    """The endpoints of a load assignment, as addresses with their health."""
    told = ClusterLoadAssignment.FromString(packed.value)
    return tuple(
        sorted(
            member(each.endpoint.address.socket_address.address,
                   each.endpoint.address.socket_address.port_value, group.priority)
            for group in told.endpoints
            for each in group.lb_endpoints
        )
    )  # fmt: skip


def member(host: str, port: int, priority: int) -> str:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{place} (priority {priority})" if priority else place


def lines(
    should: Iterable[Wanted], acked: Mapping[str, str], has: Iterable[Held] | None
) -> tuple[Line, ...]:
    """Each resource once; `has` None: the Envoy cannot be asked from here."""
    live = {(each.kind, each.name): each for each in has or ()}
    every = tuple(should)
    known = {(each.kind, each.name) for each in every}
    # The endpoints of a static cluster are part of it, and shown apart.
    known |= {(Kind.ENDPOINTS, each.name) for each in every if each.kind is Kind.CLUSTERS}
    return (
        *(_line(each, acked, live.get((each.kind, each.name)), asked=has is not None)
          for each in every),
        *_extra((live[key] for key in sorted(live.keys() - known)), acked),
    )  # fmt: skip


def _line(each: Wanted, acked: Mapping[str, str], has: Held | None, *, asked: bool) -> Line:
    state = _compared(each, has) if asked else ""
    version = has.version if has else ""
    about = has.rejected if has and has.rejected else each.about
    short = each.kind.short
    return Line(
        short, each.name, each.version, acked.get(short, ""), version, state, about, each.config
    )


def _compared(each: Wanted, has: Held | None) -> str:
    if has is None:
        return "missing"
    if has.rejected:
        return "rejected"
    if each.kind is Kind.ENDPOINTS and not has.version:
        return "same" if ", ".join(has.members) == each.about else "differs"
    if not each.version:
        return "same"  # a secret: what it says is nobody's business
    return "same" if has.version == each.version else "differs"


def _extra(has: Iterable[Held], acked: Mapping[str, str]) -> Iterator[Line]:
    for each in has:
        short = each.kind.short
        yield Line(
            short, each.name, "", acked.get(short, ""), each.version, "extra", each.rejected, {}
        )
