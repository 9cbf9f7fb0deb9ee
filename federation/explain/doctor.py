"""What is wrong with a mesh, part by part, from what was found out about each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from meshfed.catalog.model import Endpoint, Interception, Service, TrafficTarget
from meshfed.catalog.ranges import Ranges
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.seen import Certified, Provided, Refusal
from meshfed.federation.explain.step import State, Step, counted, failing, note, ok, some, warning
from meshfed.federation.explain.why import exposed, provided
from meshfed.providers.provider import Examined
from meshfed.xds.endpoints import reached_at

SKEW = 5.0  # seconds that clocks may differ: histories and ages are wrong by as much
BACKDATED = 300.0  # seconds by which certificates begin before they are made
ROOT_SOON = 90 * 86400.0  # seconds before its end in which a root should be replaced
DISK = 0.05  # of a disk that should be free
LISTED = 10  # failures of one kind

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Store:
    """What was found out about the database."""

    where: str  # without a password
    away: str = ""  # why it cannot be read
    pending: tuple[str, ...] = ()
    deaf: str = ""  # why it wakes no replica
    unwritable: str = ""
    free: float | None = None  # of its disk; None where that is another machine's


def database(store: Store) -> Iterator[Step]:
    if store.away:
        remedy = "put that right, or name the right one: `catalog` in the configuration, --catalog"
        yield failing("database", store.where, store.away, remedy)
        return
    yield ok("database", store.where, "can be read")
    if store.pending:
        why = f"lacks {', '.join(store.pending)}"
        yield failing("database", store.where, why, "run `meshfed migrate`")
    if store.deaf:
        yield failing("database", store.where, store.deaf, "`serve` does not start like this")
    if store.unwritable:
        why = f"cannot be written: {store.unwritable}: the mesh is served as it was last known"
        remedy = "make it writable (file, folder, disk, role); `serve` goes on by itself"
        yield failing("database", store.where, why, remedy)
    if store.free is not None and store.free < DISK:
        why = f"its disk has {store.free:.1%} left"
        yield failing("database", store.where, why, "make room, before nothing can be written")


def control_plane(facts: Facts) -> Iterator[Step]:
    """Replicas that live, and those that fell silent."""
    alive, term = facts.alive, facts.bearings.leader.term
    for replica in facts.bearings.replicas:
        if replica.name in alive:
            what = f"serves revision {replica.evaluated}"
            if replica.name == term.replica:
                what += f", and leads since epoch {term.epoch}"
            yield ok("control plane", replica.name, what)
        elif facts.now - replica.seen_at < 86400:
            since = _said(replica.seen_at)
            step = warning if alive else failing
            why = f"has written nothing since {since}"
            yield step("control plane", replica.name, why, "start it, or see what its log says")
    if not alive:
        remedy = "start `meshfed serve`, or see what its log says"
        yield failing("control plane", "serve", "none is running", remedy)


def providers(seen: Iterable[Provided]) -> Iterator[Step]:
    for scope in seen:
        step = provided(scope)
        if step.state is State.WARNING:  # entries left out: a finding here, beside a question there
            yield failing("provider", step.object, step.what, step.remedy)
        else:
            yield Step("provider", step.state, step.object, step.what, step.remedy)


def platforms(found: Iterable[tuple[str, Examined]]) -> Iterator[Step]:
    """Whether they let themselves be asked."""
    for name, each in found:
        about = f"{name}/{each.about}"
        if each.remedy:
            yield failing("platform", about, each.what, each.remedy)
        else:
            yield ok("platform", about, each.what)


def policies(facts: Facts, refused: Iterable[Refusal]) -> Iterator[Step]:
    found = False
    for each in refused:
        found = True
        why = f"{each.state}: {each.field}: {each.reason}" if each.field else each.reason
        yield failing("policy", each.name, why, "correct it; `meshfed validate` says the same")
    for unresolved in facts.resolved.unresolved:
        found = True
        about = f"{unresolved.kind} {unresolved.name}"
        yield warning("policy", about, f"without effect: {unresolved.why}")
    known = {workload.identity for workload in facts.mesh.workloads.values()}
    known |= {e.identity for there in facts.mesh.endpoints.values() for e in there}
    for policy in facts.mesh.policies:
        if isinstance(policy, TrafficTarget) and (
            nobodies := sorted({policy.destination, *policy.sources} - known)
        ):
            found = True
            yield warning("policy", f"TrafficTarget {policy.name}", f"nobody is {some(nobodies)}")
    if not found:
        yield ok("policy", "all", f"{len(facts.mesh.policies)} objects, all in force")


def virtual_ips(services: Iterable[Service], ranges: Ranges) -> Iterator[Step]:
    """Who has none though there are ranges: they are full."""
    there = [each for each in services if not (each.vip or each.headless)]
    lacking = sorted(str(each.name) for each in there if not each.virtual)
    if lacking and ranges.most:
        why = f"there is none left in {ranges}: its name stands for its members"
        remedy = "a wider range of the same start leaves all others theirs; else it has that of one"
        remedy += " that is gone, a day after"
        yield failing("virtual IP", some(lacking), why, remedy)


def certificates(
    root_ends: float | None, sealed: str, held: Iterable[Certified], now: float
) -> Iterator[Step]:
    """The root's end, whether its key can be used here, and the certificates of identities."""
    if root_ends is None:
        yield note("certificate", "root", "there is none yet: `meshfed serve` makes one")
    elif root_ends <= now:
        remedy = "begin with a new catalog, or restore one whose root is good"
        yield failing("certificate", "root", f"ended at {_said(root_ends)}", remedy)
    elif root_ends - now < ROOT_SOON:
        yield warning("certificate", "root", f"ends at {_said(root_ends)}", "plan its replacement")
    else:
        yield ok("certificate", "root", f"until {_said(root_ends)}")
    if sealed:
        yield failing("certificate", "key", sealed, "without it nothing can be signed here")
    moment = _said(now)
    every = tuple(held)
    ended = [each for each in every if each.not_after <= moment]
    for each in ended[:LISTED]:
        why = f"ended at {each.not_after}, and no newer one was issued: its calls fail"
        remedy = "see `certificates not issued` in the log of `meshfed serve`"
        yield failing("certificate", each.identity, why, remedy)
    if every and not ended:
        first = min(each.not_after for each in every)
        yield ok(
            "certificate",
            "identities",
            f"{counted(len(every), 'certificate')}, the first until {first}",
        )


def clock(here: float, database: float | None, newest: float | None) -> Step:
    """This machine's clock beside the database's, or the newest time in it."""
    ahead = here - database if database is not None else 0.0
    if database is None and newest is not None and newest - here > SKEW:
        ahead = here - newest  # written by a clock that was ahead of this one
    if abs(ahead) <= SKEW:
        return ok("clock", "this machine", f"says {_said(here)}, as the database does")
    way = "ahead of" if ahead > 0 else "behind"
    other = "the database" if database is not None else "what wrote the last revision"
    why = f"{abs(ahead):.0f} s {way} {other}: ages and histories are wrong"
    if abs(ahead) > BACKDATED:
        why += ", and certificates made here are refused elsewhere, or begin too late"
    return failing("clock", "this machine", why, "set the clock: run NTP (chrony, timesyncd)")


@dataclass(frozen=True, slots=True)
class Door:
    """One port that this configuration listens on, as it was found."""

    name: str
    address: str
    answers: bool
    ours: bool | None  # what answers is a control plane; None: it accepts, and says nothing


def ports(doors: Iterable[Door], *, running_here: bool | None) -> Iterator[Step]:
    """`running_here`: the catalog knows of a control plane on this machine; None: not known."""
    for door in doors:
        if door.answers and door.ours and running_here is not False:
            yield ok("port", door.address, f"{door.name}: `meshfed serve` answers")
        elif door.answers and door.ours is None:
            why = f"{door.name}: taken, but does not answer"
            remedy = f"is `meshfed serve` stopped or stuck? Else name another port: {door.name}"
            yield failing("port", door.address, why, remedy)
        elif door.answers:
            who = "another catalog's control plane" if door.ours else "something else"
            why = f"{door.name}: {who} answers there"
            yield failing("port", door.address, why, f"stop it, or name another port: {door.name}")
        elif running_here:
            why = f"{door.name}: nothing answers, though a control plane runs on this machine"
            yield failing("port", door.address, why, "is it this configuration that it runs with?")
        else:
            yield note("port", door.address, f"{door.name}: free; no control plane runs here")


def applications(
    endpoints: Iterable[Endpoint], answers: Mapping[Place, bool], tried: int
) -> Iterator[Step]:
    """Application ports that answer past their sidecars, and sidecars that do not answer."""
    bare: dict[Step, None] = {}
    unreached: dict[Place, list[str]] = {}
    for e in endpoints:
        if e.interception is Interception.EXPLICIT and answers.get((e.address, e.target)):
            bare[exposed(e)] = None
        if answers.get(reached_at(e)) is False:
            unreached.setdefault(reached_at(e), []).append(str(e.service))
    yield from few(tuple(bare), "protected")
    yield from few(tuple(_unreached(unreached)), "host")
    if tried and not (bare or unreached):
        yield ok("host", counted(tried, "port"), "sidecars answer, applications behind them")


def few(steps: tuple[Step, ...], about: str) -> Iterator[Step]:
    """The first ones, and how many more there are: after ten it is one cause, not a hundred."""
    yield from steps[:LISTED]
    if len(steps) > LISTED:
        yield failing(about, counted(len(steps) - LISTED, "other"), "are like those before")


def _unreached(places: Mapping[Place, list[str]]) -> Iterator[Step]:
    for (host, port), services in places.items():
        why = f"does not answer from this machine: {some(sorted(set(services)))}"
        remedy = "is the host up, its sidecar running, and the port open in firewalls?"
        yield failing("host", f"{host}:{port}", why, remedy)


def proxies(facts: Facts) -> Iterator[Step]:
    """Those that are not well, and those that should be there and are not."""
    trouble = facts.trouble()
    connected = facts.connected
    serving = {e.workload for there in facts.mesh.endpoints.values() for e in there}
    absent = [
        facts.mesh.workloads[id_].name for id_ in trouble if id_ not in connected and id_ in serving
    ]
    unwell = [(connected[id_], why) for id_, why in trouble.items() if id_ in connected]
    for proxy, why in unwell[:LISTED]:
        step = warning if proxy.state == "expiring" else failing
        yield step("proxy", proxy.workload, f"its proxy {why}", f"meshfed why {proxy.workload}")
    if len(unwell) > LISTED:
        more = counted(len(unwell) - LISTED, "other")
        yield failing("proxy", more, "are not well either", "meshfed get proxies")
    if absent:
        why = "has endpoints, and no proxy connected"
        if len(absent) > 1:
            why = f"{len(absent)} workloads have endpoints, and no proxy connected"
        yield failing("proxy", some(absent), why, f"meshfed why {absent[0]}")
    well = len(connected) - len(unwell)
    if well or not (trouble or absent):
        yield ok("proxy", counted(well, "proxy"), "connected and well")


def _said(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
