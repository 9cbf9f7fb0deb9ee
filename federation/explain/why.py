"""Why something is in use, or is not: from who saw it to which proxies have it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshfed.catalog.bearings import Connected
from meshfed.catalog.model import Endpoint, Health, Interception, ServiceName, Workload
from meshfed.catalog.resolved import reachable
from meshfed.catalog.view import ProxyClass, view
from meshfed.federation.explain.callers import outward_classes
from meshfed.federation.explain.denials import remedy_for, unfit
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.judge import told_endpoints
from meshfed.federation.explain.lag import lagging
from meshfed.federation.explain.left_out import left_out, mistaken
from meshfed.federation.explain.preferred import ranked
from meshfed.federation.explain.seen import Listed, Provided, Seen
from meshfed.federation.explain.sidecar import certified, connected
from meshfed.federation.explain.step import (
    State,
    Step,
    counted,
    failing,
    failures,
    note,
    ok,
    some,
    warning,
)
from meshfed.xds.endpoints import reached_at
from meshfed.xds.snapshot import targets_by_name

MOST_CLASSES = 100  # of callers whose views are made; a mesh where all may call all has thousands
SOON = 5  # endpoints of a service that are explained one by one


@dataclass(frozen=True, slots=True)
class Subject:
    """An endpoint in use, with what is known about it beside."""

    endpoint: Endpoint
    listed: Listed

    @property
    def name(self) -> str:
        host, port = self.endpoint.address, self.endpoint.target
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def subjects(facts: Facts, seen: Seen, *, workload: str = "") -> tuple[Subject, ...]:
    """The endpoints of the mesh that these rows are about."""
    listed = {(e.service, e.address, e.port): e for e in seen.endpoints}
    services = sorted({ServiceName.parse(e.service) for e in seen.endpoints})
    return tuple(
        Subject(endpoint, listed[key])
        for name in services
        for endpoint in facts.mesh.endpoints.get(name, ())
        if (key := (str(name), endpoint.address, endpoint.target)) in listed
        and workload in ("", endpoint.workload)
    )


# Who saw it


def observed(facts: Facts, seen: Seen, scopes: Iterable[tuple[str, str]]) -> Iterator[Step]:
    """Whether anybody looks, and how the providers stand that this comes from."""
    if not facts.alive:
        why = "no control plane has written to this catalog for 30 s: nothing here is news"
        yield failing("provider", "serve", why, "start `meshfed serve`, or see what its log says")
    known = {(each.provider, each.scope): each for each in seen.providers}
    for scope in dict.fromkeys(scopes):
        if scope in known:
            yield provided(known[scope])


def provided(scope: Provided) -> Step:
    told = f"{scope.provider} ({scope.type})"
    left = f"; left out: {scope.reason}" if scope.reason else ""  # of one that answers
    match scope.state:
        case "good":
            age = "" if scope.age_s is None else f", last told {scope.age_s} s ago"
            if left:
                return warning("scope", scope.scope, f"believed: {told}{age}{left}", "correct it")
            return ok("scope", scope.scope, f"believed: {told}{age}")
        case "paused":
            why = f"{told} is paused: what it says is ignored"
            return failing("scope", scope.scope, why, f"meshfed provider resume {scope.provider}")
        case state:
            how = f"fails: {scope.reason or scope.doubt}"
            if state == "doubted":
                how = f"is doubted: {scope.doubt}{left}"
            why = f"{told} {how}; what was known before stays"
            remedy = "put it right"
            if scope.doubt:
                remedy += f", or `meshfed provider accept {scope.scope}` if it is true"
            return failing("scope", scope.scope, why, remedy)


# One endpoint


def admitted(facts: Facts, subject: Subject) -> Step:
    about = subject.name
    if subject.listed.conflict:
        ruled = facts.mesh.preferences.of(subject.endpoint.service).owners
        by = " by federation.owners" if ruled else ""
        why = f"{subject.listed.provider} owns it{by}, and {subject.listed.conflict}"
        remedy = "take it out of one of the two"
        # Two who agree are one mistake; two who do not agree on who it is are a danger.
        step = failing if " as " in subject.listed.conflict else note if ruled else warning
        return step("admitted", about, why, "" if step is note else remedy)
    if subject.listed.stale:
        why = f"kept though {subject.listed.scope} does not show it: {subject.listed.doubt}"
        remedy = f"`meshfed provider accept {subject.listed.scope}` if it is gone indeed"
        return failing("admitted", about, why, remedy)
    return ok("admitted", about, f"since revision {subject.listed.revision}")


def health(subject: Subject) -> Step:
    e = subject.endpoint
    because = f": {e.health_reason}" if e.health_reason else ""
    if e.health in (Health.UNHEALTHY, Health.DRAINING):
        return failing("health", subject.name, f"{e.health}{because}: it gets no calls")
    if not e.weight:
        why = "its weight is 0: it gets no calls"
        return failing("health", subject.name, why, f"give it a weight in {e.scope}")
    return ok("health", subject.name, f"{e.health}{because}")


def callable_(facts: Facts, subject: Subject) -> Step:
    e = subject.endpoint
    service = facts.mesh.services.get(e.service)
    if not reachable(e, plaintext=bool(service and service.plaintext)):
        return failing("reachable", subject.name, unfit(e), remedy_for(e))
    if e.interception is Interception.NONE:
        why = "it has no sidecar: calls reach it in PLAINTEXT, and only callers enforce policy"
        return warning("reachable", subject.name, why, "give it a sidecar")
    host, port = reached_at(e)
    return ok("reachable", subject.name, f"at {host}:{port}, mTLS as {e.identity}")


def tried(subject: Subject, seen: Seen) -> Iterator[Step]:
    """What answered when its ports were tried from this machine."""
    e = subject.endpoint
    host, port = reached_at(e)
    if seen.answers.get((host, port)) is False:
        why = "it does not answer from this machine"
        remedy = "is the host up, its sidecar running, and the port open in firewalls?"
        yield failing("reachable", f"{host}:{port}", why, remedy)
    bare = e.interception is Interception.EXPLICIT and seen.answers.get((e.address, e.target))
    if bare:
        yield exposed(e)


def exposed(e: Endpoint) -> Step:
    why = f"the application of {e.service} answers there without the mesh: in plaintext, to anybody"
    return failing("protected", f"{e.address}:{e.target}", why, "let it listen on 127.0.0.1 alone")


def endpoint_steps(facts: Facts, seen: Seen, subject: Subject) -> tuple[Step, ...]:
    workload = facts.mesh.workloads.get(subject.endpoint.workload)
    return (
        *_own_steps(facts, seen, subject),
        *(connected(facts, workload) if workload else ()),
    )


def _own_steps(facts: Facts, seen: Seen, subject: Subject) -> tuple[Step, ...]:
    return (
        admitted(facts, subject),
        *(mistaken(facts, subject.endpoint) if subject.listed.stale else ()),
        health(subject),
        callable_(facts, subject),
        *tried(subject, seen),
    )


# Who is sent it


def sent(facts: Facts, among: tuple[Subject, ...]) -> tuple[Step, ...]:
    """Which callers are told of any of these, and whether their proxies have acknowledged it."""
    good = [s for s in among if not failures((callable_(facts, s), health(s)))]
    if not good:
        return ()
    about = some(dict.fromkeys(s.name for s in good), 3)
    told = list(_told(facts, good))
    if not told:
        return (_nobody(facts, good, about),)
    who = some(sorted({str(kind.identity) for kind, *_ in told}))
    workloads = {workload.id for _, there, _ in told for workload in there}
    proxies = [each for each in facts.bearings.proxies if each.proxy in workloads]
    revision = max(subject.listed.revision for subject in good)
    ruled = any(facts.mesh.preferences.of(s.endpoint.service).prefer for s in good)
    at = ranked(about, ((kind, ranks) for kind, _, ranks in told)) if ruled else ()
    return (ok("sent", about, f"to {who}"), *at, _acknowledged(facts, about, proxies, revision))


def _told(
    facts: Facts, subjects: list[Subject]
) -> Iterator[tuple[ProxyClass, tuple[Workload, ...], frozenset[int]]]:
    wanted = {(s.endpoint.service, s.endpoint.port): s for s in subjects}
    addresses = {reached_at(s.endpoint) for s in subjects}
    sources = _sources(facts, subjects)
    classes = [
        (kind, there)
        for kind, there in outward_classes(facts.mesh, facts.resolved).items()
        if sources is None or kind.identity in sources
    ]
    for kind, there in classes[:MOST_CLASSES]:
        targets = targets_by_name(view(facts.mesh, kind, facts.resolved)).values()
        ours = [t for t in targets if (t.assignment.service, t.assignment.port) in wanted]
        ranks = frozenset(
            priority
            for target in ours
            for endpoint, _, priority in told_endpoints(facts.mesh, target)
            if reached_at(endpoint) in addresses
        )
        if ranks:
            yield kind, there, ranks


def _sources(facts: Facts, subjects: list[Subject]) -> frozenset[object] | None:
    """Who is let in by some grant; None: everybody."""
    if facts.mesh.permissive:
        return None
    identities = {subject.endpoint.identity for subject in subjects}
    grants = (facts.resolved.access.grants.get(who, ()) for who in identities if who)
    return frozenset(source for each in grants for grant in each for source in grant.sources)


def _nobody(facts: Facts, subjects: list[Subject], about: str) -> Step:
    first = subjects[0].endpoint
    sources = _sources(facts, subjects)
    if sources:
        who = some(sorted(map(str, sources)))
        why = f"TrafficTargets let {who} call {first.identity}, but not on port {first.port}"
        return failing("sent", about, why, f"meshfed path {who.split(',')[0]} {first.service}")
    why = f"to nobody: no TrafficTarget lets anybody call {first.identity}"
    return failing("sent", about, why, "write one, see docs/policy.md")


def _acknowledged(facts: Facts, about: str, proxies: list[Connected], revision: int) -> Step:
    if not proxies:
        why = "none of their proxies is connected"
        return warning("acknowledged", about, why, "meshfed get proxies")
    late = lagging(facts, revision, proxies)
    if not late:
        return ok("acknowledged", about, f"revision {revision} by {counted(len(proxies), 'proxy')}")
    have = len(proxies) - len(late)
    why = f"revision {revision} by {have} of {len(proxies)} proxies; not by {some(late)}"
    return failing("acknowledged", about, why, f"meshfed why {late[0].workload}")


# A workload


def workload_steps(facts: Facts, seen: Seen, workload: Workload, now: str) -> tuple[Step, ...]:
    """A workload: seen, identified, connected, in sync; and the endpoints it answers at."""
    mine = subjects(facts, seen, workload=workload.id)
    served = some(sorted({str(s.endpoint.service) for s in mine})) or "no service"
    who = workload.identity or "nobody known"
    steps = [
        *observed(facts, seen, [(workload.provider, workload.scope)]),
        ok("workload", workload.name, f"{who} at {some(workload.addresses)}, serves {served}"),
        *_addressless(workload, seen),
        *certified(facts, seen, workload, now),
        *connected(facts, workload),
    ]
    every = [_own_steps(facts, seen, subject) for subject in mine]
    steps += [step for each in every for step in each if step.state is not State.OK]
    well = [s.name for s, each in zip(mine, every, strict=True) if not failures(each)]
    if well:
        steps.append(ok("endpoint", workload.name, f"well: {some(well)}"))
    steps += outranked(workload, seen, mine)
    return (*dict.fromkeys(steps), *sent(facts, mine))


def _addressless(workload: Workload, seen: Seen) -> Iterator[Step]:
    if not workload.addresses:
        told = "; ".join(s.reason for s in seen.providers if s.scope == workload.scope)
        why = f"no address of it is known{': ' if told else ''}{told}"
        yield failing("admitted", workload.name, why, "correct the name, or DNS")


def outranked(workload: Workload, seen: Seen, mine: tuple[Subject, ...]) -> Iterator[Step]:
    """Endpoints at its addresses that another provider owns."""
    own = {subject.listed for subject in mine}
    for listed in seen.endpoints:
        if listed in own or not listed.conflict or listed.address not in workload.addresses:
            continue
        about = f"{listed.address}:{listed.port}"
        why = f"{listed.provider} owns {about} as {listed.service}: this claim of it does not count"
        yield failing("admitted", about, why, "take it out of one of the two")


# A service


def service_steps(facts: Facts, seen: Seen, name: ServiceName) -> tuple[Step, ...]:
    service = facts.mesh.services.get(name)
    ports = service.ports if service else ()
    listed = some(f"{p.number} ({p.protocol})" for p in ports)
    every = subjects(facts, seen)
    well = [s for s in every if not failures(endpoint_steps(facts, seen, s))]
    steps = [
        *observed(facts, seen, [(e.provider, e.scope) for e in seen.endpoints]),
        ok("service", name, f"ports {listed}, {counted(len(every), 'endpoint')}"),
    ]
    split = facts.resolved.splits.of.get(name)
    if split:
        parts = some(f"{backend.weight} {backend.service}" for backend in split.backends)
        steps.append(ok("split", split.policy, f"its calls go to: {parts}"))
    policies = (str(name), str(split.policy) if split else "")
    steps += [
        warning("policy", f"{each.kind} {each.name}", each.why)
        for each in facts.resolved.unresolved
        if each.name in policies
    ]
    if not every and split is None:
        steps += absent(facts, seen, str(name))
    for subject in [s for s in every if s not in well][:SOON]:
        steps += failures(endpoint_steps(facts, seen, subject))
    if len(every) - len(well) > SOON:
        more = len(every) - len(well) - SOON
        steps.append(note("endpoint", name, f"{more} more of its endpoints are not well"))
    if well:
        steps.append(ok("endpoint", name, f"well: {some(s.name for s in well)}"))
    return (*steps, *sent(facts, every))


def absent(facts: Facts, seen: Seen, name: str) -> tuple[Step, ...]:
    """Why something is not there: left out of what was read, gone, or never seen."""
    steps = [*left_out(facts, name, name)]
    for gone in seen.gone[:1]:
        cause = f" ({gone.cause})" if gone.cause else ""
        why = f"{gone.provider} no longer sees {gone.address}: it left at {gone.at}{cause}"
        remedy = f"put it back where {gone.provider} looks; meshfed history {gone.service}"
        steps.append(failing("provider", gone.service, why, remedy))
    if not steps:
        troubled = [provided(scope) for scope in seen.providers if scope.type != "specification"]
        steps += failures(troubled)
        why = "no provider sees an endpoint of it"
        steps.append(failing("provider", name, why, "list it, and `meshfed validate` the list"))
    return tuple(steps)
