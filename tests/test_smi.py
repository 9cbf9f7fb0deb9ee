"""What SMI documents mean, version by version."""

import pytest

from meshfed.catalog.document import documents
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
from meshfed.federation.specification.smi import Refused, Stated, parse


def parsed(text: str) -> list[Stated | Refused]:
    return [each for document in documents(text, "policy.yaml") for each in parse(document)]


def policy(text: str) -> Policy:
    [said] = parsed(text)
    assert isinstance(said, Stated), said
    return said.policy


def refusal(text: str) -> str:
    [said] = parsed(text)
    assert isinstance(said, Refused), said
    return "\n".join(map(str, said.rejected))


def written(kind: str, version: str, body: str, metadata: str = "name: it, namespace: shop") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\n{body}"


def target(
    sources: str = "[{kind: ServiceAccount, name: bookbuyer, namespace: shop}]",
    rules: str = "[{kind: HTTPRouteGroup, name: all}]",
    version: str = "v1alpha3",
) -> TrafficTarget:
    body = (
        "spec:\n  destination: {kind: ServiceAccount, name: bookstore, namespace: shop}\n"
        f"  sources: {sources}\n  rules: {rules}\n"
    )
    said = policy(written("TrafficTarget", f"access.smi-spec.io/{version}", body))
    assert isinstance(said, TrafficTarget)
    return said


def match(fields: str) -> HttpMatch:
    body = f"spec: {{matches: [{{name: it, {fields}}}]}}"
    said = policy(written("HTTPRouteGroup", "specs.smi-spec.io/v1alpha4", body))
    assert isinstance(said, RouteGroup)
    return said.matches[0]


def split(backends: str, service: str = "bookstore", version: str = "v1alpha4") -> TrafficSplit:
    body = f"spec: {{service: {service}, backends: {backends}}}"
    said = policy(written("TrafficSplit", f"split.smi-spec.io/{version}", body))
    assert isinstance(said, TrafficSplit)
    return said


STORE, BUYER = Identity("bookstore", "shop"), Identity("bookbuyer", "shop")
IT = ObjectName("shop", "it")


def test_a_traffic_target_names_who_may_call_whom_and_how():
    assert target(
        rules="[{kind: HTTPRouteGroup, name: shop, matches: [buy]}, {kind: TCPRoute, name: db}]"
    ) == TrafficTarget(
        IT,
        STORE,
        frozenset({BUYER}),
        (Rule("HTTPRouteGroup", "shop", ("buy",)), Rule("TCPRoute", "db")),
    )


@pytest.mark.parametrize("matches", ["", ", matches: []"])
def test_a_rule_without_matches_means_all_of_them(matches: str):
    assert target(rules=f"[{{kind: HTTPRouteGroup, name: shop{matches}}}]").rules == (
        Rule("HTTPRouteGroup", "shop", ()),
    )


def test_no_sources_means_nobody():
    assert target(sources="[]").sources == frozenset()


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param("[{kind: ServiceAccount, name: bookbuyer}]", id="the object's own namespace"),
        pytest.param(
            "[{kind: ServiceAccount, name: bookbuyer}, {kind: ServiceAccount, name: bookbuyer}]",
            id="the same source twice",
        ),
    ],
)
def test_a_source_is_one_identity(sources: str):
    assert target(sources=sources).sources == {BUYER}


def test_an_object_without_a_namespace_is_in_default():
    route = written("TCPRoute", "specs.smi-spec.io/v1alpha4", "spec: {}", metadata="name: it")
    assert policy(route) == TcpRoute(ObjectName("default", "it"))


def test_v1alpha2_of_a_traffic_target_means_the_same():
    assert target(version="v1alpha2") == target()


def test_v1alpha1_of_a_traffic_target_has_its_fields_at_the_top():
    body = (
        "destination: {kind: ServiceAccount, name: bookstore}\n"
        "sources: [{kind: ServiceAccount, name: bookbuyer}]\n"
        "specs: [{kind: HTTPRouteGroup, name: all}]\n"
    )
    assert policy(written("TrafficTarget", "access.smi-spec.io/v1alpha1", body)) == target()


def test_a_match_that_says_nothing_matches_everything():
    assert match("") == HttpMatch("it", ".*", frozenset(), ())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param("pathRegex: ''", HttpMatch("it"), id="an empty path was left out"),
        pytest.param("methods: ['*', GET]", HttpMatch("it"), id="a star is any method"),
        pytest.param(
            "methods: [GET, GET, POST]",
            HttpMatch("it", methods=frozenset({"GET", "POST"})),
            id="the same method twice",
        ),
        pytest.param(
            "headers: [{User-Agent: curl.*}, {host: shop}]",
            HttpMatch("it", headers=(("user-agent", "curl.*"), ("host", "shop"))),
            id="headers as the CRD has them",
        ),
        pytest.param(
            "headers: {User-Agent: curl.*, host: shop}",
            HttpMatch("it", headers=(("user-agent", "curl.*"), ("host", "shop"))),
            id="headers as the specification's text has them",
        ),
    ],
)
def test_a_match(fields: str, expected: HttpMatch):
    assert match(fields) == expected


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("v1alpha4", "spec: {matches: [{name: it}]}"),
        ("v1alpha3", "spec: {matches: [{name: it}]}"),
        ("v1alpha2", "matches: [{name: it}]"),
        ("v1alpha1", "matches: [{name: it}]"),
    ],
)
def test_every_version_of_a_route_group(version: str, body: str):
    group = written("HTTPRouteGroup", f"specs.smi-spec.io/{version}", body)
    assert policy(group) == RouteGroup(IT, (HttpMatch("it"),))


@pytest.mark.parametrize(
    ("version", "body", "ports"),
    [
        pytest.param("v1alpha4", "spec: {matches: {ports: [80, 81, 80]}}", {80, 81}, id="ports"),
        pytest.param("v1alpha4", "spec: {matches: {ports: []}}", set(), id="no ports are all"),
        pytest.param("v1alpha4", "spec: {matches: {name: x}}", set(), id="none named are all"),
        pytest.param("v1alpha4", "spec: {}", set(), id="no matches are all"),
        pytest.param("v1alpha3", "spec: {}", set(), id="v1alpha3 is all ports"),
        pytest.param("v1alpha1", "", set(), id="v1alpha1 is all ports"),
    ],
)
def test_a_tcp_route(version: str, body: str, ports: set[int]):
    route = written("TCPRoute", f"specs.smi-spec.io/{version}", body)
    assert policy(route) == TcpRoute(IT, frozenset(ports))


@pytest.mark.parametrize("version", ["v1alpha2", "v1alpha3", "v1alpha4"])
def test_weights_are_ratios_and_may_be_zero(version: str):
    backends = "[{service: bookstore-v1, weight: 7}, {service: bookstore-v2, weight: 0}]"
    assert split(backends, version=version) == TrafficSplit(
        IT,
        ServiceName("bookstore", "shop"),
        (
            Backend(ServiceName("bookstore-v1", "shop"), 7),
            Backend(ServiceName("bookstore-v2", "shop"), 0),
        ),
    )


@pytest.mark.parametrize(
    ("weights", "ratios"),
    [(("1", "500m"), (2, 1)), (("'90'", "10"), (90, 10)), (("900m", "100m"), (9, 1))],
)
def test_weights_of_v1alpha1_are_quantities(weights: tuple[str, str], ratios: tuple[int, int]):
    a, b = weights
    said = split(f"[{{service: a, weight: {a}}}, {{service: b, weight: {b}}}]", version="v1alpha1")
    one, other = (backend.weight for backend in said.backends)
    assert one * ratios[1] == other * ratios[0]


@pytest.mark.parametrize(
    "rest", ["", ".shop", ".shop.svc", ".shop.svc.cluster.local"], ids=lambda rest: rest or "short"
)
def test_a_service_may_be_named_in_full(rest: str):
    assert split(f"[{{service: v1{rest}, weight: 1}}]", service=f"bookstore{rest}") == TrafficSplit(
        IT, ServiceName("bookstore", "shop"), (Backend(ServiceName("v1", "shop"), 1),)
    )


@pytest.mark.parametrize("group", ["", ", apiGroup: specs.smi-spec.io"])
def test_a_split_may_be_for_some_requests_only(group: str):
    body = (
        "spec: {service: bookstore, backends: [{service: v1, weight: 1}],"
        f" matches: [{{kind: HTTPRouteGroup, name: firefox{group}}}]}}"
    )
    said = policy(written("TrafficSplit", "split.smi-spec.io/v1alpha4", body))
    assert isinstance(said, TrafficSplit)
    assert said.matches == ("firefox",)


def test_more_than_128_backends_are_refused():
    backends = ", ".join(f"{{service: v{n}, weight: 1}}" for n in range(129))
    body = f"spec: {{service: bookstore, backends: [{backends}]}}"
    why = refusal(written("TrafficSplit", "split.smi-spec.io/v1alpha4", body))
    assert why == "policy.yaml:4: spec.backends: 129 backends, 128 at most"


def test_weights_that_envoy_cannot_add_up_are_refused():
    backends = f"[{{service: a, weight: {2**32 - 1}}}, {{service: b, weight: 1}}]"
    body = f"spec: {{service: bookstore, backends: {backends}}}"
    why = refusal(written("TrafficSplit", "split.smi-spec.io/v1alpha4", body))
    assert why.endswith("the weights add up to 4294967296, 4294967295 at most")


def test_what_kubectl_prints_is_read():
    text = """
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: specs.smi-spec.io/v1alpha4
  kind: TCPRoute
  metadata:
    annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
    creationTimestamp: "2026-01-01T00:00:00Z"
    generation: 1
    name: it
    namespace: shop
    resourceVersion: "7"
    uid: 00000000-0000-0000-0000-000000000000
  spec: {matches: {ports: [80]}}
- apiVersion: v1
  kind: Secret
"""
    route, secret = parsed(text)
    assert route == Stated(TcpRoute(IT, frozenset({80})), "policy.yaml:6")
    assert isinstance(secret, Refused)
    [why] = secret.rejected
    assert str(why).startswith("policy.yaml:18: items[1].kind: Secret of v1 is not a mesh policy")


def test_each_document_stands_for_itself():
    good = written("TCPRoute", "specs.smi-spec.io/v1alpha4", "spec: {}")
    bad = good.replace("spec: {}", "spec: {matches: {port: [80]}}")
    last = good.replace("it", "other")
    assert [type(each) for each in parsed(f"{good}\n---\n{bad}\n---\n{last}")] == [
        Stated,
        Refused,
        Stated,
    ]


def test_a_refused_object_is_known_by_the_name_and_kind_that_it_meant():
    text = written("TrafficSplt", "split.smi-spec.io/v1alpha4", "spec: {}")
    [said] = parsed(text)
    assert isinstance(said, Refused)
    assert (said.kind, said.name) == ("TrafficSplit", IT)


@pytest.mark.parametrize("text", ["text", "[1, 2]", "7", "{1: 2}", "{kind: {}}", "{kind: List}"])
def test_nothing_that_yaml_can_say_breaks_the_reader(text: str):
    assert refusal(text)
