"""Who may call whom, and where a call ends: policy as the view of one proxy."""

import pytest
from msgspec import structs
from viewed import (
    HTTP,
    TCP,
    called,
    endpoint,
    group,
    mesh,
    named,
    reasons,
    seen,
    service,
    split,
    target,
    workload,
)

from meshfed.catalog.model import (
    Backend,
    HttpMatch,
    Identity,
    Interception,
    Port,
    ServiceName,
    TcpRoute,
    TrafficSplit,
)
from meshfed.catalog.resolved import resolve
from meshfed.catalog.view import Anonymous, View, proxy_class

STORE = (service("store", HTTP, TCP), endpoint("store"), endpoint("store", port=3306))
GROUPS = (group("all"), group("books", HttpMatch("buy", "/buy"), HttpMatch("sell", "/sell")))
ROUTES = (TcpRoute(named("any")), TcpRoute(named("mysql"), frozenset({3306})),
          TcpRoute(named("web"), frozenset({80})))  # fmt: skip


@pytest.mark.parametrize(
    ("policies", "reached"),
    [
        pytest.param((), set(), id="nothing is allowed by default"),
        pytest.param((target("store", "buyer"),), {80}, id="an HTTPRouteGroup opens HTTP alone"),
        pytest.param((target("store", "other"),), set(), id="to others it opens nothing"),
        pytest.param((target("other", "buyer"),), set(), id="nor elsewhere"),
        pytest.param((target("store"),), set(), id="without sources it opens nothing"),
        pytest.param(
            (target("store", "buyer", rules=("tcp any",)),),
            {3306},
            id="a TCPRoute without ports opens every TCP port, and no HTTP",
        ),
        pytest.param(
            (target("store", "buyer", rules=("tcp web",)),), set(), id="a TCPRoute opens its ports"
        ),
        pytest.param(
            (target("store", "buyer", rules=("http all", "tcp mysql")),),
            {3306},
            id="beside a TCPRoute, an HTTPRouteGroup is narrowed to its ports",
        ),
        pytest.param(
            (target("store", "buyer", rules=("http all", "tcp web")),), {80}, id="which may be HTTP"
        ),
        pytest.param(
            (target("store", "buyer", rules=("http all", "tcp gone")),),
            set(),
            id="narrowed to a route that does not exist, nothing is open",
        ),
        pytest.param(
            (target("store", "buyer", rules=("http gone",)),), set(), id="a missing group is none"
        ),
        pytest.param(
            (target("store", "buyer", rules=("http books nothing",)),), set(), id="nor is a match"
        ),
        pytest.param(
            (target("store", "buyer", namespace="thieves"),),
            set(),
            id="nobody opens another namespace",
        ),
        pytest.param(
            (target("store", "buyer"), target("store", "buyer", "other", rules=("tcp any",))),
            {80, 3306},
            id="targets add up",
        ),
    ],
)
def test_what_a_caller_is_given_and_the_server_lets_in_agree(policies, reached):
    known = mesh(*STORE, *GROUPS, *ROUTES, *policies)
    assert called(seen("buyer", known)) == {f"store.shop:{port}" for port in reached}
    let_in = {
        inbound.port
        for inbound in seen("store", known).inbound
        if any(Identity("buyer", "shop") in grant.sources for grant in inbound.grants or ())
    }
    assert let_in == reached


def test_a_rule_without_matches_is_all_of_the_group():
    known = mesh(
        *STORE,
        *GROUPS,
        target("store", "a", rules=("http books",)),
        target("store", "b", rules=("http books buy",)),
    )
    grants = seen("store", known).inbound[0].grants
    assert [[match.name for match in grant.http] for grant in grants] == [["buy", "sell"], ["buy"]]


def test_permissive_lets_everybody_in():
    known = mesh(*STORE, permissive=True)
    assert called(seen("thief", known)) == {"store.shop:80", "store.shop:3306"}
    assert {inbound.grants for inbound in seen("store", known).inbound} == {None}


def test_a_caller_knows_exactly_the_identities_that_it_may_reach():
    known = mesh(
        service("store"),
        endpoint("store", "one"),
        endpoint("store", "two"),
        *GROUPS,
        target("one", "buyer", "auditor"),
        target("two", "auditor"),
    )
    [buyers] = [o.choices[0].shares[0].target for o in seen("buyer", known).outbound]
    [auditors] = [o.choices[0].shares[0].target for o in seen("auditor", known).outbound]
    assert buyers.identities == (Identity("one", "shop"),)
    assert auditors.identities == (Identity("one", "shop"), Identity("two", "shop"))
    assert auditors.assignment.name == "store.shop|80"
    assert buyers.assignment.name.startswith("store.shop|80|")


def test_a_service_that_nobody_answers_for_says_so_to_everyone():
    assert reasons(seen("buyer", mesh(service("store")))) == {
        "store.shop": "no endpoint of store.shop:80 is known"
    }


@pytest.mark.parametrize(
    ("given", "plaintext", "reached"),
    [
        pytest.param("store", False, False, id="not without the service's word"),
        pytest.param("store", True, True, id="with its word"),
        pytest.param("", True, False, id="never without an identity that a policy could name"),
    ],
)
def test_an_endpoint_without_a_sidecar_is_reached(given, plaintext, reached):
    who = Identity(given, "shop") if given else None
    bare = structs.replace(endpoint("store", interception=Interception.NONE), identity=who)
    known = mesh(service("store", plaintext=plaintext), bare, *GROUPS, target("store", "buyer"))
    assert called(seen("buyer", known)) == ({"store.shop:80"} if reached else set())


V1, V2 = endpoint("v1"), endpoint("v2x")
BOTH = (service("v1"), service("v2x"), V1, V2, *GROUPS)
OPEN = (target("v1", "buyer"), target("v2x", "buyer"))


def shares(found: View, root: str = "root") -> list[dict[str, int]]:
    [outbound] = [o for o in found.outbound if o.service.name == root]
    return [
        {share.target.assignment.service.name: share.weight for share in choice.shares}
        for choice in outbound.choices
    ]


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        pytest.param(
            (service("root"), split("root", v1=3, v2x=1), *OPEN),
            [{"v1": 3, "v2x": 1}],
            id="by weight, to a root without endpoints",
        ),
        pytest.param(
            (split("root", v1=1, v2x=0), *OPEN),
            [{"v1": 1, "v2x": 0}],
            id="to a root that nobody declares",
        ),
        pytest.param(
            (service("root"), split("root", v1=1, v2x=1, gone=8), *OPEN),
            [{"v1": 1, "v2x": 1}],
            id="without backends that do not exist",
        ),
        pytest.param(
            (service("root"), split("root", v1=1, v2x=1), target("v1", "buyer")),
            [{"v1": 1}],
            id="without backends that this caller may not call",
        ),
        pytest.param(
            (service("root"), split("root", "books", v1=1), *OPEN, endpoint("root"),
             target("root", "buyer")),
            [{"v1": 1}, {"root": 1}],
            id="what matches to the backends, the rest to the root",
        ),
        pytest.param(
            (service("root"), split("root", v1=1, root=9), *OPEN, endpoint("root"),
             target("root", "buyer")),
            [{"v1": 1}],
            id="never to itself",
        ),
        pytest.param(
            (service("root"), split("root", v1=1), split("v1", v2x=1), *OPEN),
            [{"v1": 1}],
            id="and no further: splits are not hierarchical",
        ),
    ],
)  # fmt: skip
def test_a_split_divides_calls(things, expected):
    assert shares(seen("buyer", mesh(*BOTH, *things))) == expected


@pytest.mark.parametrize(
    ("things", "why"),
    [
        pytest.param(
            (service("root"), split("root", v1=0, v2x=0), *OPEN),
            "TrafficSplit shop/split-root gives no weight to a backend that can be called",
            id="no weight at all",
        ),
        pytest.param(
            (service("root", Port(81)), split("root", v1=1), *OPEN),
            "no backend of TrafficSplit shop/split-root answers on port 81",
            id="no backend with the port",
        ),
        pytest.param(
            (service("root"), service("idle"), split("root", idle=1)),
            "no backend of TrafficSplit shop/split-root answers on port 80",
            id="no endpoints",
        ),
    ],
)
def test_a_split_that_leads_nowhere_says_why(things, why):
    assert reasons(seen("buyer", mesh(*BOTH, *things)))["root.shop"] == why


def test_a_split_is_no_way_around_a_policy():
    known = mesh(*BOTH, service("root"), split("root", v1=1, v2x=1))
    assert called(seen("thief", known)) == set()
    assert "root.shop" not in reasons(seen("thief", known))


@pytest.mark.parametrize(
    ("things", "reported"),
    [
        pytest.param(
            (target("store", "buyer", rules=("http gone",)),),
            "TrafficTarget shop/buyer-to-store: HTTPRouteGroup shop/gone does not exist:"
            " this rule grants nothing",
            id="a missing route",
        ),
        pytest.param(
            (group("books"), target("store", "buyer", rules=("http books by",))),
            "TrafficTarget shop/buyer-to-store: HTTPRouteGroup shop/books has no match named by",
            id="a missing match",
        ),
        pytest.param(
            (group("all"), target("store")),
            "TrafficTarget shop/nobody-to-store: it has no sources: it lets nobody in",
            id="no sources",
        ),
        pytest.param(
            (service("root"), service("v1", Port(81)), split("root", v1=1)),
            "TrafficSplit shop/split-root: backend v1.shop has no port 80: it is left out there",
            id="a backend without the port",
        ),
        pytest.param(
            (service("root", TCP), service("v1", Port(3306)), split("root", v1=1)),
            "TrafficSplit shop/split-root: backend v1.shop speaks http on port 3306, the root tcp:"
            " it is left out there",
            id="a backend of another protocol",
        ),
        pytest.param(
            (service("root"), split("root", gone=1)),
            "TrafficSplit shop/split-root: backend gone.shop does not exist: it is left out",
            id="a missing backend",
        ),
        pytest.param(
            (service("root"), service("v1"), split("root", "gone", v1=1)),
            "TrafficSplit shop/split-root: HTTPRouteGroup shop/gone does not exist:"
            " it matches nothing",
            id="a missing match of a split",
        ),
        pytest.param(
            (service("root"), service("v1"), split("root", v1=0)),
            "TrafficSplit shop/split-root: every weight is 0: calls are answered with 503",
            id="no weight",
        ),
    ],
)
def test_what_has_no_effect_is_reported(things, reported):
    assert reported in map(str, resolve(mesh(*things)).unresolved)


def test_the_first_split_of_a_service_stands_and_the_other_is_reported():
    second = TrafficSplit(
        named("split-z"), ServiceName("root", "shop"), (Backend(ServiceName("v2x", "shop"), 1),)
    )
    known = mesh(*BOTH, *OPEN, service("root"), second, split("root", v1=1))
    assert shares(seen("buyer", known)) == [{"v1": 1}]
    [reported] = resolve(known).unresolved
    assert reported.name == "shop/split-z"
    assert reported.why == "root.shop is split by shop/split-root already: this one has no effect"


def test_one_workload_may_answer_on_several_of_its_own_ports():
    both = (endpoint("store"), structs.replace(endpoint("store"), target=8080))
    known = mesh(service("store"), *both)
    assert [inbound.targets for inbound in seen("store", known).inbound] == [(80, 8080)]


@pytest.mark.parametrize(
    "nobody",
    [
        pytest.param(workload(""), id="no identity"),
        pytest.param(workload("bare", interception=Interception.NONE), id="no sidecar"),
    ],
)
def test_a_workload_without_one_has_no_proxy(nobody):
    with pytest.raises(Anonymous):
        proxy_class(mesh(), nobody)
