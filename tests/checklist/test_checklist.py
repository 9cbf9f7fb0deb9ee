"""The rules of xDS over ADS for CDS, EDS, LDS, RDS and SDS, each with tests that are named for it.

`pytest tests/checklist/test_checklist.py -v` reads as the checklist. The rules are those of Envoy's
xds_protocol.rst, and what go-control-plane, Istio and Consul learned of them in production.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

TESTED = {
    # Stream and transport
    "T1": "a request without a type is malformed",
    "T2": "the node is read once, and never changes",
    "T3": "a first request without a node id is malformed",
    "T4": "a nonce that was not given on this stream acknowledges nothing",
    "T5": "types are independent of each other",
    "T6": "an acknowledgement is never answered",
    "T7": "the same content again is silence",
    "T8": "an unknown type is remembered, and the rest works",
    "T9": "all resources have the type of their response",
    "T10": "no name is in one response twice",
    "T11": "each response names the control plane",
    "T12": "messages are of a size that all clients take",
    "T13": "what a client may say is bounded",
    "T14": "a dead peer is noticed",
    "T16": "nothing is answered before there is something complete",
    "T17": "a client is known by its certificate",
    # State of the world
    "S1": "clusters and listeners are sent whole: absence is removal",
    "S2": "other types are sent as far as they changed",
    "S3": "no names mean everything, until some were given",
    "S4": "a star means everything, beside names too",
    "S5": "no names of endpoints, routes or secrets are none",
    "S6": "a rejection is known by its error alone",
    "S7": "a stale nonce acknowledges nothing, but its names count",
    "S8": "an acknowledgement that is repeated asks again",
    "S9": "a new name is sent, also one that was let go of",
    "S10": "the first request of a type is always answered",
    "S11": "a version is a function of the content",
    "S12": "a missing name is remembered and sent when it appears",
    "S13": "nothing is sent under another name than was asked for",
    # Delta
    "D1": "the difference is to what the client holds",
    "D2": "a stale nonce voids no subscription",
    "D3": "every name that is subscribed to is answered",
    "D4": "a missing name is answered as removed, and sent when it appears",
    "D5": "what a client has counts in its first request, and what it should not have is removed",
    "D6": "versions without names are a wildcard",
    "D7": "endpoints, routes and secrets are answered whatever the client has",
    "D8": "letting go needs no answer, except beside a wildcard",
    "D9": "what was let go of and is asked for again is sent again",
    "D10": "a first wildcard is answered, even with nothing",
    "D11": "removal is explicit",
    "D12": "a resource has the version of its content",
    "D14": "nothing has a time to live",
    "D15": "a glob is a name like any other",
    "D16": "locators with parameters are not looked at",
    # Order
    "O1": "clusters, endpoints, listeners, routes, and then removals",
    "O2": "in SotW the old clusters stay beside the new until routes have moved",
    "O3": "no route leads to a cluster that is not there",
    "O4": "routes wait for warm clusters, but not for ever",
    "O5": "an acknowledged listener need not be open, and known routes are not sent again",
    "O6": "endpoints follow a changed cluster at once",
    "O7": "secrets go before the endpoints that need them",
    "O8": "what was asked before a push counts in it",
    "O9": "what replaces another goes in one response with its removal",
    # Rejections
    "N1": "a rejection is known by type, words and names, without the dump",
    "N2": "rejected bytes are never sent again, and the last good cluster is at once",
    "N3": "the good ones of a rejected response count as taken",
    "N4": "silence does not mean that rejected bytes were accepted, on the next stream neither",
    "N5": "a rejection may come late",
    "N6": "a port that is taken is a rejection like any other",
    # Flow
    "F1": "one response of a type is under way, and the latest wins",
    "F2": "a gate is of one type, and endpoints never wait for clusters",
    "F3": "a gate has an end, and who reaches it is counted",
    "F4": "a client that does not read holds up nobody",
    "F5": "a client that does not read is cut off",
}

NOT_OURS = {
    "T15": "the age of connections is a matter of load balancing: no client can tell it from a cut",
    "D13": "aliases are of VHDS, which is not served",
    "F6": "sources are debounced where shapes are made (federation/publish.py), not on a stream",
}

FINDINGS = {
    "1": "clusters are acknowledged when they are warm, and so after their endpoints",
    "2": "delta does not ask again for the endpoints of a changed cluster, SotW repeats itself",
    "3": "a rejected cluster holds up all others until it is replaced",
    "4": "the good ones of a rejected response are applied",
    "5": "the node is 61 KB in each request, unless the bootstrap says once",
    "6": "a time to live deletes or crashes in SotW",
    "7": "more than 1,000 streams at once are dropped, unless the server is told otherwise",
}

LAST = {"T": 17, "S": 13, "D": 16, "O": 9, "N": 6, "F": 6}
NAMED = re.compile(r"^(?:async )?def test_((?:(?:[tsdonf]\d+|finding_\d|outline_\d\d)_)+)", re.M)


def named() -> dict[str, list[str]]:
    """The files whose tests are named for a rule, by rule."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        for prefix in NAMED.findall(file.read_text()):
            for rule in re.findall(r"finding_\d|outline_\d\d|[tsdonf]\d+", prefix):
                found[rule].append(file.name)
    return dict(found)


FOUND = named()


@pytest.mark.parametrize("rule", [pytest.param(r, id=f"{r} {why}") for r, why in TESTED.items()])
def test_the_rule_has_a_test(rule: str) -> None:
    assert FOUND.get(rule.lower())


@pytest.mark.parametrize("number", [pytest.param(n, id=f"{n} {w}") for n, w in FINDINGS.items()])
def test_the_finding_about_envoy_has_a_test(number: str) -> None:
    assert FOUND.get(f"finding_{number}")


def test_each_outline_of_the_harness_has_a_test() -> None:
    outlines = sorted(name for name in FOUND if name.startswith("outline"))
    assert outlines == [f"outline_{number:02}" for number in range(1, 19)]


def test_no_rule_is_forgotten_and_none_is_made_up() -> None:
    every = {f"{section}{n}" for section, last in LAST.items() for n in range(1, last + 1)}
    assert {*TESTED} | {*NOT_OURS} == every
    assert not {*TESTED} & {*NOT_OURS}
    assert {name.upper() for name in FOUND if "_" not in name} <= {*TESTED}
