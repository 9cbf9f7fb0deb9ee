"""Who may do what: tokens, certificates and RBAC."""

import httpx
import pytest

from kube.cluster import Cluster, refused
from kube.given import configmap, namespace, pod, thing
from meshfed.demo.kube.objects import Object

RBAC = "rbac.authorization.k8s.io"


def role(*rules: Object, name: str = "reader") -> Object:
    return thing(f"{RBAC}/v1", "ClusterRole", name, rules=list(rules))


def rule(verbs: str, resources: str, group: str = "", **rest: object) -> Object:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split(), **rest}


def bound(home: str = "", to: str = "reader") -> Object:
    """A binding of the account `default/robot`: to everything, or in one namespace."""
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": to}
    subjects = [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]
    kind = "RoleBinding" if home else "ClusterRoleBinding"
    return thing(f"{RBAC}/v1", kind, "robot", home, roleRef=reference, subjects=subjects)


@pytest.fixture
def robot(cluster: Cluster) -> Cluster:
    """The same cluster as a service account sees it, which may do nothing yet."""
    account = thing("v1", "ServiceAccount", "robot", "default")
    cluster.create(account)
    path = f"{cluster.path(account)}/token"
    return cluster.seen_by(cluster.request("POST", path, {"spec": {}})["status"]["token"])


def test_without_a_token_there_is_health_and_nothing_else(cluster: Cluster) -> None:
    with refused(403, "system:anonymous"):
        cluster.seen_by("").request("GET", "/api/v1/pods")
    assert httpx.get(f"{cluster.host}/readyz", verify=cluster.tls).text == "ok"
    with refused(401):
        cluster.seen_by("guessed").request("GET", "/api/v1/pods")


def test_a_token_is_a_bearers_however_that_is_spelled(cluster: Cluster) -> None:
    """Who runs in a pod says `bearer`."""
    for scheme, code in (("Bearer", 200), ("bearer", 200), ("Basic", 403)):
        shown = {"Authorization": f"{scheme} {cluster.token}"}
        assert cluster.client.get("/api/v1/pods", headers=shown).status_code == code


def test_an_account_may_do_what_its_roles_say(cluster: Cluster, robot: Cluster) -> None:
    cluster.create(pod("a"))
    with refused(403, 'cannot list resource "pods" in API group "" at the cluster scope'):
        robot.request("GET", "/api/v1/pods")
    cluster.create(role(rule("get list watch", "pods namespaces")))
    cluster.create(bound())
    assert robot.until_allowed("/api/v1/pods")["items"]
    with robot.watch("/api/v1/pods", resourceVersion="0") as events:
        assert next(events)["type"] == "ADDED"
    with refused(403, "cannot delete"):
        robot.delete(pod("a"))
    with refused(403, "services"):
        robot.request("GET", "/api/v1/services")
    with refused(403, "pods/status"):
        robot.request("GET", f"{robot.path(pod('a'))}/status")


def test_a_role_can_be_for_one_namespace_and_for_some_names(
    cluster: Cluster, robot: Cluster
) -> None:
    cluster.create(namespace("shop"))
    for name in ("a", "b"):
        cluster.create(configmap(name, "shop"))
    cluster.create(role(rule("get", "configmaps", resourceNames=["a"])))
    cluster.create(bound("shop"))
    robot.until_allowed(robot.path(configmap("a", "shop")))
    for path in ("/api/v1/configmaps", robot.path(configmap("b", "shop"))):
        with refused(403):
            robot.request("GET", path)


def test_who_lists_by_a_name_needs_no_right_to_the_others(cluster: Cluster, robot: Cluster) -> None:
    for name in ("a", "b"):
        cluster.create(configmap(name))
    cluster.create(role(rule("list", "configmaps", resourceNames=["a"])))
    cluster.create(bound())
    path = "/api/v1/configmaps"
    found = robot.until_allowed(f"{path}?fieldSelector=metadata.name%3Da")
    assert [each["metadata"]["name"] for each in found["items"]] == ["a"]
    for query in ("", "?fieldSelector=metadata.name%3Db", "?fieldSelector=metadata.name!%3Da"):
        with refused(403):
            robot.request("GET", f"{path}{query}")


def test_a_certificate_says_who_and_in_which_groups(cluster: Cluster) -> None:
    tls = cluster.tls_with(cluster.certificate)
    assert httpx.get(f"{cluster.host}/api/v1/pods", verify=tls).status_code == 200


def test_a_token_that_was_rotated_is_refused_from_then_on(cluster: Cluster) -> None:
    old = cluster.seen_by(cluster.token)
    cluster.rotate()
    with refused(401):
        old.request("GET", "/api/v1/pods")
    assert cluster.request("GET", "/api/v1/pods")["items"] == []
    assert cluster.token in cluster.kubeconfig.read_text()


def test_it_is_known_who_asked_for_what(cluster: Cluster, robot: Cluster) -> None:
    cluster.create(role(rule("list", "pods")))
    cluster.create(bound())
    cluster.server.forget_calls()
    robot.request("GET", "/api/v1/namespaces/default/pods")
    (call,) = cluster.server.calls
    assert (call.user, call.verb, call.resource, call.namespace, call.name) == (
        "system:serviceaccount:default:robot", "list", "pods", "default", "",
    )  # fmt: skip
    assert cluster.server.counted() == {("list", "pods"): 1}
