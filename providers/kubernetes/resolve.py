"""Which endpoints a Kubernetes service has, by what its slices, pods and nodes say.

The rules are those of kube-proxy where it has one, and of Open Service Mesh where that has one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from socket import AF_INET, inet_pton

from msgspec import Struct, structs

from meshfed.catalog.model import (
    Endpoint,
    Health,
    Interception,
    Platform,
    Rejected,
    Service,
    ServiceName,
    Workload,
)
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.pods import Place, locality, mistakes, pod_workload, refused
from meshfed.providers.kubernetes.service import carried, ports, service

MULTICAST = 224  # the first byte of such addresses, and of what comes after them
FAMILIES = ("IPv4", "IPv6")  # FQDN means nothing: kube-proxy and everybody else ignore it
USABILITY = {Health.HEALTHY: 0, Health.DRAINING: 1, Health.UNHEALTHY: 2}
REASONS = {Health.DRAINING: "terminating", Health.UNHEALTHY: "not ready"}
LAST = "terminating, and used all the same: nothing else is ready"
UNSAID = objects.Conditions()

Key = tuple[int, str, int]  # the service's port, the address, and the port there
Answering = tuple[tuple[int, int], ...]  # ports of a service, and of whoever answers there


class Made(Struct, frozen=True, gc=False):
    """What an endpoint of a slice came to, and of what: of the same it is the same again."""

    pod: objects.Pod | None
    node: objects.Node | None
    answering: Answering
    at: str  # its pod, or its address
    workload: Workload
    endpoints: tuple[Endpoint, ...]


class Last(Struct, frozen=True, gc=False):
    """What a service was resolved from last, and what was made then."""

    found: objects.Service
    said: Service
    made: dict[objects.SliceEndpoint, Made]


@dataclass(slots=True)
class Resolved:
    """What stands in one scope."""

    services: frozenset[Service] = frozenset()
    workloads: dict[str, Workload] = field(default_factory=dict)  # by pod, or by address
    endpoints: dict[Key, Endpoint] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    last: Last | None = None  # of a service


def health(conditions: objects.Conditions | None) -> Health:
    """Nothing said of `ready` and `serving` is yes, and of `terminating` no.

    Whoever asked for publishNotReadyAddresses is shown as ready by the slices already.
    """
    said = conditions or UNSAID
    if said.ready is not False:
        return Health.HEALTHY
    if said.terminating and said.serving is not False:
        return Health.DRAINING
    return Health.UNHEALTHY


def resolve(
    place: Place,
    found: objects.Service,
    slices: Iterable[objects.Slice],
    pods: Mapping[str, objects.Pod],
    nodes: Mapping[str, objects.Node],
    last: Last | None = None,
) -> Resolved:
    """One service of one cluster; of `last` is taken what is made of the same."""
    meta = found.metadata
    try:
        said = last.said if last and last.found is found else service(found)
    except ValueError as error:
        where, name = f"services/{meta.namespace}/{meta.name}", f"{meta.name}.{meta.namespace}"
        why = Rejected(where, "", str(error), (name,))
        return Resolved(rejected=[why])
    if said is None:
        return Resolved()
    resolved = Resolved(frozenset({said}), last=Last(found, said, {}))
    making = Making(resolved, place, said.name, pods, nodes, last.made if last else {})
    families = found.spec.ip_families or FAMILIES
    numbers = {port.name or "": port.port for port in carried(found.spec.ports)}
    first: dict[tuple[int, str], str] = {}  # in which family a pod answers on a port
    there = [
        each
        for each in sorted(slices, key=lambda s: (order(s.address_type, families), s.metadata.name))
        if not each.metadata.deletion_timestamp and each.address_type in families
    ]
    dual = bool(there) and there[0].address_type != there[-1].address_type
    for each in there:
        answering = tuple(ports(each, numbers))
        for index, endpoint in enumerate(each.endpoints or ()):
            for answers in making.made(each, index, endpoint, answering):
                family = each.address_type
                if dual and (uid := endpoint.pod):
                    family = first.setdefault((answers.port, uid), family)
                if family == each.address_type:
                    _take(resolved, answers)
    resolved.rejected += mistakes(pods[uid] for uid in resolved.workloads if uid in pods)
    return _last_resort(resolved)


def reachable(text: str) -> str:
    """An address that can be connected to, in its shortest form. Raises ValueError."""
    if text != "0.0.0.0":
        try:
            if inet_pton(AF_INET, text)[0] < MULTICAST:
                return text
        except OSError:
            pass
    found = ip_address(text)
    if found.is_unspecified or found.is_multicast or "%" in text:
        raise ValueError(f"{text} is no address that callers could connect to")
    return found.compressed


def order(family: str, families: tuple[str, ...]) -> int:
    return families.index(family) if family in families else len(families)


def idle(
    place: Place,
    namespace: str,
    pods: Iterable[objects.Pod],
    nodes: Mapping[str, objects.Node],
) -> Resolved:
    """The pods of a namespace that answer for no service: they only call."""
    resolved, scope = Resolved(), place.scope(namespace)
    for pod in pods:
        where = locality(None, nodes.get(pod.spec.node_name or ""))
        try:
            resolved.workloads[pod.metadata.uid] = pod_workload(place, scope, pod, where)
        except ValueError as error:
            resolved.rejected.append(refused(pod, error))
        else:
            resolved.rejected += mistakes([pod])
    return resolved


class Making:
    """What the endpoints of one service's slices come to."""

    def __init__(
        self,
        resolved: Resolved,
        place: Place,
        name: ServiceName,
        pods: Mapping[str, objects.Pod],
        nodes: Mapping[str, objects.Node],
        before: Mapping[objects.SliceEndpoint, Made],
    ) -> None:
        self._resolved = resolved
        self._made = resolved.last.made if resolved.last else {}
        self._place = place
        self._name = name
        self._scope = place.scope(name.namespace, name.name)
        self._pods = pods
        self._nodes = nodes
        self._before = before

    def made(
        self,
        found: objects.Slice,
        index: int,
        endpoint: objects.SliceEndpoint,
        answering: Answering,
    ) -> tuple[Endpoint, ...]:
        """The endpoints that it is; made anew only if something of it is not as it was."""
        pod = node = None
        if (uid := endpoint.pod) and (pod := self._pods.get(uid)):
            node = self._nodes.get(endpoint.node_name or pod.spec.node_name or "")
        made, runs = self._before.get(endpoint), self._resolved.workloads
        if (
            made is None
            or made.pod is not pod
            or made.node is not node
            or made.answering != answering
            or runs.setdefault(made.at, made.workload) is not made.workload
        ):
            made = self._make(found, index, endpoint, answering, pod, node)
        if made is None:
            return ()
        self._made[endpoint] = made
        return made.endpoints

    def _make(
        self,
        found: objects.Slice,
        index: int,
        endpoint: objects.SliceEndpoint,
        answering: Answering,
        pod: objects.Pod | None,
        node: objects.Node | None,
    ) -> Made | None:
        """Only the first address means anything. A slice may come before its pod, and waits."""
        if not endpoint.addresses:
            return None
        try:
            address = reachable(endpoint.addresses[0])
        except ValueError as error:
            meta = found.metadata
            where = f"endpointslices/{meta.namespace}/{meta.name}"
            names = (str(self._name), endpoint.addresses[0])
            why = Rejected(where, f"endpoints[{index}].addresses[0]", str(error), names)
            self._resolved.rejected.append(why)
            return None
        at, workloads = endpoint.pod or address, self._resolved.workloads
        if (runs := workloads.get(at)) is None:
            if pod is None and endpoint.pod:
                return None
            try:
                runs = workloads[at] = self._runs(address, found, endpoint, pod, node)
            except ValueError as error:
                if pod:
                    self._resolved.rejected.append(refused(pod, error))
                return None
        answers = self._answers(address, runs, endpoint, answering)
        return Made(pod, node, answering, at, runs, tuple(answers))

    def _runs(
        self,
        address: str,
        found: objects.Slice,
        endpoint: objects.SliceEndpoint,
        pod: objects.Pod | None,
        node: objects.Node | None,
    ) -> Workload:
        """A pod, or something that somebody wrote into a slice by hand: nobody knows who that is.

        Raises ValueError.
        """
        if pod:
            hostname = f"{endpoint.hostname}.{found.service}" if endpoint.hostname else None
            there = locality(endpoint.zone, node)
            return pod_workload(self._place, self._scope, pod, there, hostname)
        return Workload(
            address,
            self._place.provider,
            self._scope,
            Platform.KUBERNETES,
            None,
            (address,),
            Interception.NONE,
            network=self._place.network,
            locality=locality(endpoint.zone, None),
            cluster=self._place.cluster,
        )

    def _answers(
        self,
        address: str,
        runs: Workload,
        endpoint: objects.SliceEndpoint,
        answering: Answering,
    ) -> Iterator[Endpoint]:
        verdict, key = health(endpoint.conditions), runs.id
        for number, target in answering:
            yield Endpoint(
                self._name,
                number,
                address,
                target,
                key,
                runs.provider,
                runs.scope,
                runs.platform,
                runs.identity,
                runs.interception,
                runs.locality,
                health=verdict,
                health_reason=REASONS.get(verdict, ""),
                cluster=runs.cluster,
                network=runs.network,
            )


def _take(resolved: Resolved, answers: Endpoint) -> None:
    """Of the same endpoint in several slices, that which is best to use."""
    key = answers.port, answers.address, answers.target
    other = resolved.endpoints.setdefault(key, answers)
    if other is not answers and _rank(answers) < _rank(other):
        resolved.endpoints[key] = answers


def _rank(endpoint: Endpoint) -> tuple[int, bool]:
    return USABILITY[endpoint.health], endpoint.identity is None


def _last_resort(resolved: Resolved) -> Resolved:
    """Where nothing is ready on a port, what terminates and still serves is used (KEP-1669)."""
    every = resolved.endpoints
    if draining := [key for key, e in every.items() if e.health is Health.DRAINING]:
        ready = {e.port for e in every.values() if e.health is Health.HEALTHY}
        for key in draining:
            if every[key].port not in ready:
                used = {"health": Health.UNKNOWN, "health_reason": LAST}
                every[key] = structs.replace(every[key], **used)
    return resolved
