"""From what was counted to the object that the demo prints, and what is wrong in it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

VERSIONS = ("bookstore-v1", "bookstore-v2")
APPLIED = 0.1  # seconds: Envoy acknowledges a moment before its workers apply
ENOUGH = 2_000  # requests in the 50/50 phase

Json = dict[str, object]


class Unexpected(Exception):
    """A process of ours said something that is not in the contract between them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One thing an application did, by its own clock (all processes share it)."""

    started: float
    ended: float
    path: str
    outcome: str


def calls(line: Mapping[str, object]) -> Iterator[Call]:
    """The calls in one line of an application's report (demo/report.py)."""
    found = line.get("calls", [])
    if not isinstance(found, list):
        raise Unexpected(f"calls are {found!r}")
    for started, ended, path, outcome in found:
        yield Call(float(started), float(ended), str(path), str(outcome))


@dataclass(frozen=True, slots=True)
class Edit:
    """A file was renamed into place, and every proxy has acknowledged what came of it."""

    renamed: float
    committed: float
    acknowledged: float

    @property
    def applied(self) -> float:
        return self.acknowledged + APPLIED

    @property
    def propagation_ms(self) -> float:
        return 1000 * (self.acknowledged - self.committed)

    @property
    def edit_to_ack_ms(self) -> float:
        return 1000 * (self.acknowledged - self.renamed)


@dataclass(frozen=True, slots=True)
class Phase:
    """From one edit to the next; sides are counted once the first is applied everywhere."""

    weights: tuple[int, int]
    since: float
    applied: float
    until: float
    refused: int  # how far the stores' RBAC counters rose


@dataclass(frozen=True, slots=True)
class Mark:
    """Where one phase ends and the next begins."""

    since: float
    applied: float
    refused: int  # what the stores' RBAC counters stood at


def phases(weights: Sequence[tuple[int, int]], marks: Sequence[Mark]) -> tuple[Phase, ...]:
    """The spans between marks; there is one mark more than there are weights."""
    return tuple(
        Phase(each, begin.since, begin.applied, end.since, end.refused - begin.refused)
        for each, (begin, end) in zip(weights, pairwise(marks), strict=True)
    )


@dataclass(frozen=True, slots=True)
class Removal:
    """The host that was taken out of the list, and the requests that it saw."""

    edit: Edit
    until: float
    seen: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was counted while the demo ran."""

    phases: tuple[Phase, ...]
    splits: tuple[Edit, ...]
    removal: Removal
    buyer: tuple[Call, ...]
    thief: tuple[Call, ...]
    warehouse: tuple[Call, ...]
    ledger_refused: int  # what the ledger's sidecar counted
    handshakes: int
    plaintext_refused: bool
    proxies: int


def tally(calls: Iterable[Call], *paths: str) -> Counter[str]:
    return Counter(call.outcome for call in calls if call.path in paths)


def begun(calls: Iterable[Call], since: float, until: float) -> list[Call]:
    """Calls by when they started: consecutive spans share none and miss none."""
    return [call for call in calls if since <= call.started < until]


def whole(calls: Iterable[Call], since: float, until: float) -> list[Call]:
    """Calls that started and ended inside: what was routed while nothing else was true."""
    return [call for call in calls if since <= call.started and call.ended < until]


def phase(run: Measured, phase: Phase) -> Json:
    sides = tally(whole(run.buyer, phase.applied, phase.until), "bookstore")
    failed = tally(begun(run.buyer, phase.since, phase.until), "bookstore")["failed"]
    thief = begun(run.thief, phase.since, phase.until)
    return {
        "split": dict(zip(VERSIONS, phase.weights, strict=True)),
        "bookbuyer": {version: sides[version] for version in VERSIONS} | {"failed": failed},
        "bookthief": {
            "allowed": tally(thief, "sidecar", "store")["allowed"],
            "denied": tally(thief, "sidecar")["denied"],
            "denied_by_server": phase.refused,
        },
    }


def ledger(run: Measured) -> Json:
    entries = tally(run.warehouse, "ledger")
    forged = tally(run.thief, "local ledger", "ledger")
    return {
        "bookwarehouse": {"ok": entries["ok"], "failed": entries["failed"]},
        "bookthief": {
            "allowed": forged["allowed"],
            "denied": tally(run.thief, "local ledger")["denied"] + run.ledger_refused,
        },
    }


def removed(run: Measured) -> Json:
    edit, until = run.removal.edit, run.removal.until
    return {
        "failed": tally(begun(run.buyer, edit.renamed, until), "bookstore")["failed"],
        "requests_after": sum(call.started >= edit.applied for call in run.removal.seen),
    }


def result(run: Measured) -> Json:
    """The object of `meshfed demo -o json`."""
    return {
        "phases": [phase(run, each) for each in run.phases],
        "ledger": ledger(run),
        "host_removed": removed(run),
        "propagation_ms": {
            "split": [round(edit.propagation_ms, 1) for edit in run.splits],
            "host_removed": [round(run.removal.edit.propagation_ms, 1)],
        },
        "edit_to_ack_ms": {
            "split": [round(edit.edit_to_ack_ms, 1) for edit in run.splits],
            "host_removed": [round(run.removal.edit.edit_to_ack_ms, 1)],
        },
        "mtls": {"handshakes": run.handshakes, "plaintext_refused": run.plaintext_refused},
        "proxies": run.proxies,
    }


def findings(run: Measured) -> tuple[str, ...]:
    """What the demo promises and this run did not keep; nothing, when all is well."""
    return (
        *(found for each in run.phases for found in phase_findings(run, each)),
        *(found for found, wrong in other_findings(run) if wrong),
    )


def phase_findings(run: Measured, phase: Phase) -> Iterator[str]:
    name = "{}/{}".format(*phase.weights)
    spent = begun(run.buyer, phase.since, phase.until)
    thief = begun(run.thief, phase.since, phase.until)
    sides = tally(whole(run.buyer, phase.applied, phase.until), "bookstore")
    sold = sum(sides[version] for version in VERSIONS)
    share = 100 * sides["bookstore-v1"] / sold if sold else 0.0
    if failed := tally(spent, "bookstore")["failed"]:
        yield f"{name}: {failed} of the bookbuyer's requests failed"
    if not sold:
        yield f"{name}: the bookbuyer bought nothing"
    if 0 in phase.weights and sold and round(share, 3) != phase.weights[0]:
        yield f"{name}: {share:.2f} % of the requests went to bookstore-v1"
    if 0 not in phase.weights and (sold < ENOUGH or not 45 <= share <= 55):
        yield f"{name}: {share:.1f} % of {sold} requests went to bookstore-v1"
    if allowed := tally(thief, "sidecar", "store")["allowed"]:
        yield f"{name}: the bookthief was allowed {allowed} times"
    if not tally(thief, "sidecar")["denied"] or not phase.refused:
        yield f"{name}: nobody saw the bookthief being denied"


def other_findings(run: Measured) -> Iterator[tuple[str, bool]]:
    entries, forged = tally(run.warehouse, "ledger"), tally(run.thief, "local ledger", "ledger")
    gone = removed(run)
    yield f"{entries['failed']} entries in the ledger failed", entries["failed"] > 0
    yield "the bookwarehouse wrote nothing in the ledger", not entries["ok"]
    yield f"the bookthief wrote {forged['allowed']} times in the ledger", forged["allowed"] > 0
    yield "the ledger's sidecar refused the bookthief nothing", not run.ledger_refused
    yield f"{gone['failed']} requests failed as a host was removed", bool(gone["failed"])
    yield (
        f"{gone['requests_after']} requests reached the removed host",
        bool(gone["requests_after"]),
    )
    yield "an inbound port answered in plaintext", not run.plaintext_refused
    yield "no mutual TLS handshake was counted", not run.handshakes
