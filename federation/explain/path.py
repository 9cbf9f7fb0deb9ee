"""What becomes of a call: allowed or not, by which policy, to which endpoints, and encrypted."""

from collections.abc import Iterable, Iterator

from meshfed.catalog.access import Grant
from meshfed.catalog.model import HttpMatch, Identity, Interception, Mesh
from meshfed.catalog.reach import Choice
from meshfed.catalog.resolved import Resolved
from meshfed.catalog.view import view
from meshfed.federation.explain.callers import Caller
from meshfed.federation.explain.denials import why_unreachable
from meshfed.federation.explain.judge import (
    UNCONNECTED,
    Asked,
    Hop,
    Judged,
    Known,
    Located,
    Path,
    Refused,
    Verdict,
)
from meshfed.federation.explain.preferred import preferred
from meshfed.federation.explain.step import Step, failing, note, ok, some, warning
from meshfed.xds.endpoints import reached_at
from meshfed.xds.listeners import OUTBOUND_PORT, loopback


def path(mesh: Mesh, caller: Caller, asked: Asked, known: Known, resolved: Resolved) -> Path:
    """The fate of a call, from what the caller's sidecar and the server's would be told."""
    start = _source(caller, known)
    if caller.kind is None:
        why = f"{caller.why}: its calls do not go through the mesh"
        return Path(Verdict.REFUSED, frozenset(), (*start, failing("source", caller.name, why)))
    seen = view(mesh, caller.kind, resolved)
    where = Located(mesh, caller.kind, asked, seen, resolved)
    outbound = where.outbound()
    if isinstance(outbound, Refused):
        return _refused(caller.kind.identity, asked, start, outbound)
    judged = Judged(mesh, caller.kind, outbound, asked, resolved)
    return _told(start, judged, known, at=_loopback(caller))


def _source(caller: Caller, known: Known) -> tuple[Step, ...]:
    steps = []
    if caller.kind is not None:
        how = f"{caller.kind.identity}, {caller.kind.interception}"
        steps.append(ok("source", caller.name, how))
        if caller.why:
            steps.append(warning("source", caller.name, caller.why))
    for workload in caller.workloads:
        if trouble := known.trouble.get(workload.id):
            told = f"its proxy {trouble}"
            steps.append(warning("source", workload.name, told, f"meshfed why {workload.name}"))
    return tuple(steps)


def _refused(source: Identity, asked: Asked, start: tuple[Step, ...], refused: Refused) -> Path:
    statuses = frozenset() if refused.status is None else frozenset({refused.status})
    answer = _answered(f"{source} → {asked}", Verdict.REFUSED, statuses)
    return Path(Verdict.REFUSED, statuses, (*start, *refused.steps, answer))


def _loopback(caller: Caller) -> str:
    """Where these callers' own sidecars listen for them."""
    return some(sorted({loopback(w.bind) for w in caller.workloads}) or ["127.0.0.1"])


def _told(start: tuple[Step, ...], judged: Judged, known: Known, at: str) -> Path:
    name, port = judged.outbound.service, judged.outbound.port
    steps = [*start, ok("service", f"{name}:{port.number}", f"speaks {port.protocol}")]
    steps += _reached(judged, at)
    hops: list[Hop] = []
    statuses: set[int] = set()
    for choice in judged.choices():
        there = tuple(judged.hops(choice))
        hops += there
        steps += _chosen(judged, choice, there, known)
        statuses |= _statuses(judged, choice, there)
    verdict = _verdict(judged, hops, statuses)
    steps.append(_answer(judged, verdict, statuses))
    return Path(verdict, frozenset(statuses), tuple(steps), tuple(hops))


def _statuses(judged: Judged, choice: Choice, hops: tuple[Hop, ...]) -> set[int]:
    if not judged.http:
        return set()
    said = {hop.status for hop in hops if hop.used and hop.status is not None}
    refused = {hop.status for hop in hops if hop.status == 403}
    return said or refused or {503}


def _verdict(judged: Judged, hops: list[Hop], statuses: set[int]) -> Verdict:
    if not any(hop.used for hop in hops):
        return Verdict.REFUSED if 403 in statuses else Verdict.NOWHERE
    if not judged.http or statuses == {200}:
        return Verdict.ALLOWED
    return Verdict.PARTLY if 200 in statuses else Verdict.REFUSED


def _reached(judged: Judged, at: str) -> Iterator[Step]:
    """How the application asks for it."""
    outbound, kind = judged.outbound, judged.caller
    name, port = outbound.service, outbound.port
    about = f"{name}:{port.number}"
    if kind.interception is Interception.TRANSPARENT:
        yield ok("dial", about, f"dial {some(outbound.addresses)} port {port.number}")
    elif kind.interception is Interception.GRPC:
        yield ok("dial", about, f"dial xds:///{about}")
    elif port.protocol.is_http:
        yield ok("dial", about, f"through the proxy {at}:{OUTBOUND_PORT}, as http://{about}/")
    elif port.local is not None:
        yield ok("dial", about, f"dial its local port, {at}:{port.local}")
    else:
        taken = _without_local(judged)
        remedy = f"CONNECT {about} through {at}:{OUTBOUND_PORT}, or write a `local` port for it"
        yield note("dial", about, taken or "no `local` port is declared for it", remedy)
    if judged.asked.request is not None and not port.protocol.is_http:
        yield note("request", judged.asked.request, f"{port.protocol} is allowed or not as a whole")


def _without_local(judged: Judged) -> str:
    service = judged.mesh.services.get(judged.outbound.service)
    declared = service.port(judged.outbound.port.number) if service else None
    if declared is None or declared.local is None:
        return ""
    return f"its local port {declared.local} leads to another service already"


def _chosen(judged: Judged, choice: Choice, hops: tuple[Hop, ...], known: Known) -> Iterator[Step]:
    yield from _split(judged, choice)
    if not choice.shares:
        yield from _nowhere(judged, choice)
        return
    yield from _policies(judged, hops, known)
    for share in choice.shares:
        yield from preferred(judged.mesh, share.target)
    for hop in hops:
        yield _endpoint(hop, known)
    if hops and not any(hop.used for hop in hops):
        about = judged.outbound.service
        yield failing("endpoint", about, "none of its endpoints is healthy", f"meshfed why {about}")
    if _deserted(hops, known):
        about = judged.outbound.service
        what = "of none of its endpoints the proxy is connected: nobody would answer"
        yield failing("endpoint", about, what, f"meshfed why {about}")
    if not hops:
        yield from why_unreachable(judged.mesh, judged.caller.network, choice)


def _deserted(hops: tuple[Hop, ...], known: Known) -> bool:
    """Whether all that would be called have no sidecar that anybody knows to run."""
    used = [hop for hop in hops if hop.used]
    lost = [hop for hop in used if known.trouble.get(hop.endpoint.workload) == UNCONNECTED]
    return bool(used) and lost == used


def _split(judged: Judged, choice: Choice) -> Iterator[Step]:
    split = judged.resolved.splits.of.get(judged.outbound.service)
    if split is None:
        return
    total = sum(share.weight for share in choice.shares)
    parts = [
        f"{100 * share.weight / total if total else 0:g} % {share.target.assignment.service}"
        for share in choice.shares
    ]
    if choice.matches is not None:
        which = ", where a match holds"
    elif split.matches is not None:
        yield ok("split", split.policy, f"requests that match nothing in it: {split.root} itself")
        return
    else:
        which = ""
    if parts:
        yield ok("split", split.policy, ", ".join(parts) + which)


def _nowhere(judged: Judged, choice: Choice) -> Iterator[Step]:
    name = judged.outbound.service
    yield failing("endpoint", name, choice.why, f"meshfed why {name}")


def _policies(judged: Judged, hops: tuple[Hop, ...], known: Known) -> Iterator[Step]:
    """Each policy once, with what it allows; and where no policy allows this request."""
    source = judged.caller.identity
    if judged.mesh.permissive:
        yield ok("policy", "mesh.permissive", f"everybody may call everybody, {source} too")
        return
    for grant, identities in _letting(judged, hops).items():
        file = known.files.get(("TrafficTarget", str(grant.policy)), "")
        at = f" (in {file})" if file else ""
        to = some(sorted(map(str, identities)))
        yield ok("policy", grant.policy, f"lets {source} {_may(judged, grant)} at {to}{at}")
    for identity in sorted({str(h.endpoint.identity) for h in hops if h.status == 403}):
        grants = [g for g in _granting(judged, hops) if str(g.destination) == identity]
        may = "; ".join(f"{g.policy} allows {_may(judged, g)}" for g in grants)
        remedy = f"add a match to the rules of one of them, for {judged.request}"
        what = f"no TrafficTarget lets {source} {judged.request} at it: {may}"
        yield failing("policy", identity, what, remedy)


def _granting(judged: Judged, hops: tuple[Hop, ...]) -> list[Grant]:
    identities = sorted({h.endpoint.identity for h in hops if h.endpoint.identity})
    port = judged.outbound.port
    allowing = judged.resolved.access.allowing
    return [grant for who in identities for grant in allowing(judged.caller.identity, who, port)]


def _letting(judged: Judged, hops: tuple[Hop, ...]) -> dict[Grant, set[Identity]]:
    named = {name for hop in hops for name in hop.policies}
    found: dict[Grant, set[Identity]] = {}
    for grant in _granting(judged, hops):
        if str(grant.policy) in named:
            found.setdefault(grant, set()).add(grant.destination)
    return found


def _may(judged: Judged, grant: Grant) -> str:
    if not judged.http:
        return "connect"
    return some(map(condition, grant.http))


def condition(match: HttpMatch) -> str:
    """A match as people say it."""
    verbs = "/".join(sorted(match.methods - {"*"})) or "any method"
    headers = "".join(f", with {name}: {regex}" for name, regex in match.headers)
    return f"{verbs} {match.path_regex}{headers}"


def _endpoint(hop: Hop, known: Known) -> Step:
    e = hop.endpoint
    host, port = reached_at(e)
    about = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    tls = f"mTLS as {e.identity}" if hop.mtls else "PLAINTEXT: it has no sidecar"
    parts = [f"{e.service}", tls, e.health.value]
    if e.health_reason:
        parts.append(e.health_reason)
    if hop.share != 100:
        parts.insert(0, f"{hop.share:g} %")
    if hop.priority:
        parts.append(f"only when those before it fail (priority {hop.priority})")
    told = ", ".join(parts)
    if not hop.used:
        return warning("endpoint", about, f"{told}: gets no calls", f"meshfed why {e.address}")
    if trouble := known.trouble.get(e.workload):
        return warning(
            "endpoint", about, f"{told}; its proxy {trouble}", f"meshfed why {e.address}"
        )
    return ok("endpoint", about, told)


def _answer(judged: Judged, verdict: Verdict, statuses: set[int]) -> Step:
    about = f"{judged.caller.identity} → {judged.outbound.service}:{judged.outbound.port.number}"
    if judged.http and judged.request is None and verdict is Verdict.ALLOWED:
        return ok("answer", about, f"{verdict}, as far as the policies above say")
    return _answered(about, verdict, statuses)


def _answered(about: str, verdict: Verdict, statuses: Iterable[int]) -> Step:
    said = ", ".join(map(str, sorted(statuses)))
    what = f"{verdict}: {said}" if said else str(verdict)
    return (ok if verdict is Verdict.ALLOWED else failing)("answer", about, what)
