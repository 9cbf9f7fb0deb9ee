"""SMI objects as they are written, one shape for each version that says something different."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from math import gcd
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictInt

from meshfed.catalog.document import Path
from meshfed.catalog.model import (
    Backend,
    HttpMatch,
    Identity,
    ObjectName,
    Policy,
    RouteGroup,
    Rule,
    ServiceName,
    TcpRoute,
    TrafficSplit,
    TrafficTarget,
)
from meshfed.federation.fields import DottedName
from meshfed.federation.findings import Strict
from meshfed.federation.specification.fields import (
    METHODS,
    Headers,
    Label,
    NoMatches,
    NoPort,
    PortNumber,
    Regex,
    thousandths,
)

MAX_BACKENDS = 128
MAX_TOTAL_WEIGHT = 2**32 - 1  # Envoy's weighted clusters add up in 32 bits


class Mistake(ValueError):
    """A rule that holds between fields is broken."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(why)
        self.path = path
        self.why = why


class Metadata(Strict):
    """A name; the rest is what Kubernetes writes there, and is left alone."""

    name: DottedName
    namespace: Label = "default"  # as kubectl would have it
    labels: object = None
    annotations: object = None
    uid: object = None
    resource_version: object = Field(None, alias="resourceVersion")
    generation: object = None
    creation_timestamp: object = Field(None, alias="creationTimestamp")
    managed_fields: object = Field(None, alias="managedFields")
    owner_references: object = Field(None, alias="ownerReferences")
    finalizers: object = None
    self_link: object = Field(None, alias="selfLink")
    deletion_timestamp: object = Field(None, alias="deletionTimestamp")
    deletion_grace_period: object = Field(None, alias="deletionGracePeriodSeconds")


class Written(Strict):
    """What all objects have in common."""

    api_version: str = Field(alias="apiVersion")
    kind: str
    metadata: Metadata
    status: object = None

    @property
    def name(self) -> ObjectName:
        return ObjectName(self.metadata.namespace, self.metadata.name)

    @abstractmethod
    def policy(self) -> Policy:
        """The value that is meant. Raises Mistake."""


# TrafficTarget


class Account(Strict):
    """Who calls, or who is called."""

    kind: Literal["ServiceAccount"]
    name: DottedName
    namespace: Label | None = None

    def identity(self, namespace: str) -> Identity:
        return Identity(self.name, self.namespace or namespace)


class PortedAccount(Account):
    port: NoPort = None


class RuleShape(Strict):
    kind: Literal["HTTPRouteGroup", "TCPRoute"]
    name: DottedName
    matches: tuple[str, ...] = ()


class TargetSpec(Strict):
    destination: Account
    sources: tuple[Account, ...] = ()
    rules: tuple[RuleShape, ...]


class PortedTargetSpec(Strict):
    destination: PortedAccount
    sources: tuple[Account, ...] = ()
    rules: tuple[RuleShape, ...]


class Target(Written):
    spec: TargetSpec

    def policy(self) -> TrafficTarget:
        spec = self.spec
        return target(self.name, ("spec",), spec.destination, spec.sources, ("rules", spec.rules))


class TargetV1Alpha2(Written):
    spec: PortedTargetSpec

    def policy(self) -> TrafficTarget:
        spec = self.spec
        return target(self.name, ("spec",), spec.destination, spec.sources, ("rules", spec.rules))


class TargetV1Alpha1(Written):
    destination: PortedAccount
    sources: tuple[Account, ...] = ()
    specs: tuple[RuleShape, ...]

    def policy(self) -> TrafficTarget:
        return target(self.name, (), self.destination, self.sources, ("specs", self.specs))


def target(
    name: ObjectName,
    at: Path,
    destination: Account,
    sources: Iterable[Account],
    rules: tuple[str, Sequence[RuleShape]],
) -> TrafficTarget:
    called = destination.identity(name.namespace)
    if called.namespace != name.namespace:
        # https://github.com/openservicemesh/osm/issues/4116
        why = f"must be the object's own, {name.namespace!r}: only there may access be given"
        raise Mistake((*at, "destination", "namespace"), why)
    field, shapes = rules
    if not shapes:
        raise Mistake((*at, field), "empty, which allows nothing: name a route")
    for index, rule in enumerate(shapes):
        if rule.kind == "TCPRoute" and rule.matches:
            why = "a TCPRoute is taken whole: leave them out"
            raise Mistake((*at, field, index, "matches"), why)
    return TrafficTarget(
        name,
        called,
        frozenset(source.identity(name.namespace) for source in sources),
        tuple(Rule(rule.kind, rule.name, rule.matches) for rule in shapes),
    )


# HTTPRouteGroup


class MatchShape(Strict):
    name: Annotated[str, Field(min_length=1)]
    path_regex: Regex = Field(".*", alias="pathRegex")
    methods: tuple[METHODS, ...] = ()
    headers: Headers = ()

    def match(self) -> HttpMatch:
        methods = frozenset[str]() if "*" in self.methods else frozenset[str](self.methods)
        return HttpMatch(self.name, self.path_regex, methods, self.headers)


class GroupSpec(Strict):
    matches: tuple[MatchShape, ...]


class Group(Written):
    spec: GroupSpec

    def policy(self) -> RouteGroup:
        return group(self.name, ("spec",), self.spec.matches)


class GroupV1Alpha2(Written):
    matches: tuple[MatchShape, ...]

    def policy(self) -> RouteGroup:
        return group(self.name, (), self.matches)


def group(name: ObjectName, at: Path, matches: Sequence[MatchShape]) -> RouteGroup:
    if not matches:
        raise Mistake((*at, "matches"), "empty, which matches nothing: `- name: all` matches all")
    names = [match.name for match in matches]
    twice = next((n for n, each in enumerate(names) if each in names[:n]), None)
    if twice is not None:
        raise Mistake((*at, "matches", twice, "name"), f"{names[twice]!r} stands here twice")
    return RouteGroup(name, tuple(match.match() for match in matches))


# TCPRoute


class TcpMatches(Strict):
    name: str = ""
    ports: tuple[PortNumber, ...] = ()


class TcpSpec(Strict):
    matches: TcpMatches = TcpMatches()


class Tcp(Written):
    spec: TcpSpec = TcpSpec()

    def policy(self) -> TcpRoute:
        return TcpRoute(self.name, frozenset(self.spec.matches.ports))


class PortlessSpec(Strict):
    matches: NoMatches = None


class TcpV1Alpha3(Written):
    spec: PortlessSpec = PortlessSpec()

    def policy(self) -> TcpRoute:
        return TcpRoute(self.name)


# TrafficSplit


class BackendShape(Strict):
    service: str
    weight: Annotated[StrictInt, Field(ge=0, le=MAX_TOTAL_WEIGHT)]


class QuantityBackend(Strict):
    service: str
    weight: Annotated[int, BeforeValidator(thousandths)]


class GroupReference(Strict):
    kind: Literal["HTTPRouteGroup"]
    name: DottedName
    api_group: Literal["specs.smi-spec.io"] = Field("specs.smi-spec.io", alias="apiGroup")


class SplitSpec(Strict):
    service: str
    backends: tuple[BackendShape, ...]
    matches: tuple[GroupReference, ...] = ()


class MatchlessSplitSpec(Strict):
    service: str
    backends: tuple[BackendShape, ...]
    matches: NoMatches = None


class QuantitySplitSpec(Strict):
    service: str
    backends: tuple[QuantityBackend, ...]
    matches: NoMatches = None


class Split(Written):
    spec: SplitSpec

    def policy(self) -> TrafficSplit:
        matches = tuple(reference.name for reference in self.spec.matches)
        return split(self.name, self.spec.service, self.spec.backends, matches)


class SplitV1Alpha2(Written):
    spec: MatchlessSplitSpec

    def policy(self) -> TrafficSplit:
        return split(self.name, self.spec.service, self.spec.backends)


class SplitV1Alpha1(Written):
    spec: QuantitySplitSpec

    def policy(self) -> TrafficSplit:
        whole = gcd(1000, *(backend.weight for backend in self.spec.backends))
        backends = [
            BackendShape(service=backend.service, weight=backend.weight // whole)
            for backend in self.spec.backends
        ]
        return split(self.name, self.spec.service, backends)


def split(
    name: ObjectName, root: str, shapes: Sequence[BackendShape], matches: tuple[str, ...] = ()
) -> TrafficSplit:
    service = named_service(root, name.namespace, ("spec", "service"))
    if service.namespace != name.namespace:
        why = f"must be in the object's own namespace, {name.namespace!r}"
        raise Mistake(("spec", "service"), why)
    at: Path = ("spec", "backends")
    backends = tuple(
        Backend(named_service(shape.service, name.namespace, (*at, n, "service")), shape.weight)
        for n, shape in enumerate(shapes)
    )
    services = [backend.service for backend in backends]
    for n, each in enumerate(services):
        if each in services[:n]:
            raise Mistake((*at, n, "service"), f"{each} stands here twice: add the weights up")
        if each == service:
            why = f"{each} cannot be divided among itself: give the root a name of its own"
            raise Mistake((*at, n, "service"), why)
    if len(backends) > MAX_BACKENDS:
        raise Mistake(at, f"{len(backends)} backends, {MAX_BACKENDS} at most")
    total = sum(backend.weight for backend in backends)
    if not total:
        raise Mistake(at, "no backend has a weight above 0: nothing could be called")
    if total > MAX_TOTAL_WEIGHT:
        raise Mistake(at, f"the weights add up to {total}, {MAX_TOTAL_WEIGHT} at most")
    return TrafficSplit(name, service, backends, matches)


def named_service(text: str, namespace: str, at: Path) -> ServiceName:
    """`name`, `name.namespace`, or Kubernetes' full name, `name.namespace.svc.cluster.local`."""
    name, _, rest = text.partition(".")
    given, _, domain = rest.partition(".")
    if domain and domain != "svc" and not domain.startswith("svc."):
        raise Mistake(at, f"{text!r} is not <name>, or <name>.<namespace>")
    try:
        return ServiceName(name, given or namespace)
    except ValueError as error:
        raise Mistake(at, str(error)) from error
