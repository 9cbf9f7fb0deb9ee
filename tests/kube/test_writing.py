"""Objects are written as an API server writes them, and refused as it refuses them."""

import pytest

from kube.cluster import Cluster, refused
from kube.given import configmap, labelled, namespace, pod, service, slice_, thing
from meshfed.demo.kube.objects import Object

MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def version(given: Object) -> str:
    return given["metadata"]["resourceVersion"]


# Creating


def test_a_new_object_is_given_an_identity_a_time_and_a_version(cluster: Cluster) -> None:
    made = cluster.create(configmap("a", x="1"))["metadata"]
    assert made["uid"]
    assert made["creationTimestamp"]
    assert int(made["resourceVersion"]) > 0


def test_a_name_is_had_once(cluster: Cluster) -> None:
    cluster.create(configmap("a"))
    with refused(409, "already exists"):
        cluster.create(configmap("a"))


EXEC, TCP = {"exec": {"command": ["true"]}}, {"tcpSocket": {"port": 80}}
MOUNT = {"name": "data", "mountPath": "/data"}


def test_a_name_can_be_made_up(cluster: Cluster) -> None:
    one = configmap("a")
    one["metadata"] = {"generateName": "a-", "namespace": "default"}
    names = {cluster.create(one)["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("a-") for name in names)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(configmap("A"), "metadata.name", id="a name in capitals"),
        pytest.param(service("a.b", 80), "metadata.name", id="a service of two names"),
        pytest.param(labelled(configmap("a"), x="?"), "metadata.labels", id="a label of any text"),
        pytest.param(service("a"), "spec.ports", id="a service without ports"),
        pytest.param(service("a", 70000), "spec.ports", id="a port that is none"),
        pytest.param(pod("a", containers=[]), "spec.containers", id="a pod without containers"),
        pytest.param(
            pod("a", initContainers=[{"name": "app", "image": "i"}]),
            "spec.initContainers[0].name",
            id="a name of two containers",
        ),
        pytest.param(
            pod("a", initContainers=[{"name": "i", "image": "i", "readinessProbe": EXEC}]),
            "spec.initContainers[0].readinessProbe",
            id="a probe of an init container that ends",
        ),
        pytest.param(
            pod("a", containers=[{"name": "i", "image": "i", "livenessProbe": {**EXEC, **TCP}}]),
            "spec.containers[0].livenessProbe.tcpSocket",
            id="a probe of two kinds",
        ),
        pytest.param(
            pod("a", containers=[{"name": "i", "image": "i", "volumeMounts": [MOUNT]}]),
            "spec.containers[0].volumeMounts[0].name",
            id="a volume that is none",
        ),
        pytest.param(slice_("a", addressType="X"), "addressType", id="an unknown address type"),
        pytest.param(slice_("a", "x"), "addresses", id="an address that is none"),
        pytest.param(slice_("a", "::1"), "addresses", id="an address of the other family"),
        pytest.param(slice_("a", "127.0.0.1"), "addresses", id="an address of the node's own"),
        pytest.param(
            slice_("a", endpoints=[{"addresses": []}]), "addresses", id="an endpoint nowhere"
        ),
        pytest.param(
            slice_("a", *["10.0.0.1"] * 1001), "endpoints", id="more than a slice may hold"
        ),
    ],
)
def test_what_is_not_valid_is_refused_with_its_field(
    cluster: Cluster, given: Object, said: str
) -> None:
    with refused(422, said):
        cluster.create(given)


def test_a_service_gets_an_address_and_keeps_it(cluster: Cluster) -> None:
    made = cluster.create(service("a", 80))
    address = made["spec"]["clusterIP"]
    assert address.startswith("10.0.0.")
    assert cluster.put(service("a", 81))["spec"]["clusterIP"] == address
    with refused(422, "spec.clusterIP"):
        cluster.patch(made, {"spec": {"clusterIP": "10.0.0.250", "clusterIPs": ["10.0.0.250"]}})
    headless = cluster.create(service("b", clusterIP="None"))
    assert headless["spec"]["clusterIP"] == "None"


def test_what_a_slice_leaves_out_is_null_and_not_empty(cluster: Cluster) -> None:
    given = slice_("a")
    del given["endpoints"], given["ports"]
    made = cluster.create(given)
    assert (made["endpoints"], made["ports"]) == (None, None)


def test_a_namespace_that_is_not_there_holds_nothing(cluster: Cluster) -> None:
    with refused(404, 'namespaces "nowhere" not found'):
        cluster.create(configmap("a", "nowhere"))
    path = "/api/v1/namespaces/default/configmaps"
    cluster.create(namespace("shop"))
    with refused(400, "namespace"):
        cluster.request("POST", path, configmap("a", "shop"))


def test_an_event_is_where_what_it_is_about_is(cluster: Cluster) -> None:
    made = cluster.create(pod("a"))
    about = {"kind": "Pod", "apiVersion": "v1", "name": "a", "namespace": "default"}
    said = {"reason": "Refused", "message": "why", "type": "Warning", "involvedObject": about}
    cluster.create(thing("v1", "Event", "a.1", "default", **said))
    path = f"/api/v1/events?fieldSelector=involvedObject.name%3D{made['metadata']['name']}"
    (event,) = cluster.request("GET", path)["items"]
    assert event["message"] == "why"
    cluster.create(namespace("shop"))
    with refused(422, "involvedObject.namespace"):
        cluster.create(thing("v1", "Event", "a.1", "shop", **said))


def test_what_is_only_tried_is_not_written(cluster: Cluster) -> None:
    path = cluster.path(configmap("a"), named=False)
    cluster.request("POST", f"{path}?dryRun=All", configmap("a"))
    with refused(404):
        cluster.get(configmap("a"))
    made = cluster.create(configmap("a", x="1"))
    at = f"{cluster.path(made)}?dryRun=All"
    tried = cluster.request("PATCH", at, {"data": {"x": "2"}}, MERGE)
    assert tried["data"] == {"x": "2"}
    cluster.request("DELETE", at)
    assert cluster.get(made) == made


# Changing


def test_whoever_read_an_older_version_is_refused(cluster: Cluster) -> None:
    old = cluster.create(configmap("a", x="1"))
    cluster.patch(old, {"data": {"x": "2"}})
    with refused(409, "the object has been modified"):
        cluster.request("PUT", cluster.path(old), old)
    with refused(409, "the object has been modified"):
        cluster.patch(old, {"metadata": {"resourceVersion": version(old)}, "data": {"x": "3"}})


def test_a_write_that_changes_nothing_makes_no_version(cluster: Cluster) -> None:
    made = cluster.create(configmap("a", x="1"))
    assert version(cluster.patch(made, {"data": {"x": "1"}})) == version(made)
    assert version(cluster.request("PUT", cluster.path(made), made)) == version(made)


def test_an_object_of_another_uid_is_another_object(cluster: Cluster) -> None:
    made = cluster.create(configmap("a"))
    other = {"metadata": {"uid": "another"}}
    with refused(422, 'metadata.uid: Invalid value: "another": field is immutable'):
        cluster.patch(made, other)
    with refused(409, "Precondition failed: UID in precondition: another"):
        cluster.request(
            "PUT", cluster.path(made), {**made, "metadata": made["metadata"] | other["metadata"]}
        )


def test_a_pod_stays_what_it_was_made_as(cluster: Cluster) -> None:
    made = cluster.create(pod("a", serviceAccountName="one"))
    with refused(422, "pod updates may not change fields"):
        cluster.patch(made, {"spec": {"serviceAccountName": "two"}})


def test_the_status_is_written_by_its_own_name(cluster: Cluster) -> None:
    made = cluster.create(pod("a") | {"status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    assert cluster.patch(made, {"status": {"phase": "Running"}})["status"]["phase"] == "Pending"
    path = f"{cluster.path(made)}/status"
    cluster.request("PATCH", path, {"status": {"phase": "Running"}}, MERGE)
    assert cluster.get(made)["status"]["phase"] == "Running"


# Patching


def test_a_json_patch_does_what_its_operations_say_or_nothing(cluster: Cluster) -> None:
    made = cluster.create(configmap("a", x="1", y="2"))
    path = cluster.path(made)
    operations = [
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "move", "from": "/data/x", "path": "/data/z"},
        {"op": "copy", "from": "/data/z", "path": "/data/a~1b"},
        {"op": "replace", "path": "/data/y", "value": "3"},
        {"op": "remove", "path": "/data/z"},
    ]
    with refused(422):
        cluster.request("PATCH", path, [{"op": "add", "path": "/data/no/where", "value": 1}], JSON)
    operations[2]["path"] = "/data/b"
    assert cluster.request("PATCH", path, operations, JSON)["data"] == {"b": "1", "y": "3"}
    with refused(422):
        cluster.request("PATCH", path, operations[:1], JSON)


def test_a_strategic_patch_merges_lists_by_what_names_their_items(cluster: Cluster) -> None:
    made = cluster.create(service("a", 80, 81))
    ports = [{"port": 80, "targetPort": 8080}, {"port": 81, "$patch": "delete"}]
    patched = cluster.request("PATCH", cluster.path(made), {"spec": {"ports": ports}}, STRATEGIC)
    assert [(p["name"], p["targetPort"]) for p in patched["spec"]["ports"]] == [("p80", 8080)]
    found = cluster.create(slice_("a", "10.1.1.1", "10.1.1.2"))
    patch = {"endpoints": [{"addresses": ["10.1.1.3"]}]}
    patched = cluster.request("PATCH", cluster.path(found), patch, STRATEGIC)
    assert [each["addresses"] for each in patched["endpoints"]] == [["10.1.1.3"]]


def test_an_apply_owns_what_it_says_and_takes_back_what_it_no_longer_says(
    cluster: Cluster,
) -> None:
    path = cluster.path(configmap("a"))

    def apply(manager: str, how: str = "", **data: str) -> Object:
        at = f"{path}?fieldManager={manager}{how}"
        return cluster.request("PATCH", at, configmap("a", **data), APPLY)

    apply("one", x="1", y="1")
    apply("two", z="1")
    assert apply("one", x="1")["data"] == {"x": "1", "z": "1"}
    with refused(409, 'conflict with "two"'):
        apply("one", x="1", z="2")
    assert apply("one", "&force=true", x="1", z="2")["data"] == {"x": "1", "z": "2"}
    shared = apply("two", "&force=true", x="1")
    assert shared["data"] == {"x": "1", "z": "2"}
    assert apply("one")["data"] == {"x": "1"}
    owners = {each["manager"] for each in shared["metadata"]["managedFields"]}
    assert owners == {"one", "two"}
    with refused(422):
        cluster.request("PATCH", path, configmap("a"), APPLY)


def test_who_changes_a_field_owns_it_from_then_on(cluster: Cluster) -> None:
    path = cluster.path(service("a"))
    apply = f"{path}?fieldManager=one"
    cluster.request("PATCH", apply, service("a", 80), APPLY)
    made = cluster.patch(service("a"), {"spec": {"sessionAffinity": "ClientIP"}})
    taken = service("a", 80, sessionAffinity="None")
    with refused(409, ".spec.sessionAffinity"):
        cluster.request("PATCH", apply, taken, APPLY)
    assert version(cluster.request("PATCH", apply, service("a", 80), APPLY)) == version(made)


def test_a_body_of_another_kind_is_refused(cluster: Cluster) -> None:
    made = cluster.create(configmap("a"))
    with refused(415):
        cluster.request("PATCH", cluster.path(made), {}, "text/plain")
    with refused(400):
        cluster.request("PUT", cluster.path(made), service("a", 80))


# Deleting


def test_a_finalizer_keeps_an_object_until_it_is_taken_off(cluster: Cluster) -> None:
    kept = configmap("a")
    kept["metadata"]["finalizers"] = ["tests.example/kept"]
    cluster.create(kept)
    left = cluster.delete(kept)
    assert left["metadata"]["deletionTimestamp"]
    with refused(422, "finalizers"):
        cluster.patch(kept, {"metadata": {"finalizers": ["tests.example/kept", "a.b/c"]}})
    cluster.patch(kept, {"metadata": {"finalizers": None}})
    with refused(404):
        cluster.get(kept)


def test_a_pod_on_a_node_ends_in_its_own_time(cluster: Cluster) -> None:
    made = cluster.create(pod("a", nodeName="node"))
    cluster.request("DELETE", cluster.path(made))
    assert cluster.get(made)["metadata"]["deletionGracePeriodSeconds"] == 30
    cluster.delete(made)
    with refused(404):
        cluster.get(made)


def test_who_deletes_can_say_which_one_was_meant(cluster: Cluster) -> None:
    made = cluster.create(configmap("a"))
    path = cluster.path(made)
    for condition in ({"uid": "another"}, {"resourceVersion": "1"}):
        with refused(409):
            cluster.request("DELETE", path, {"preconditions": condition})
    cluster.request("DELETE", path, {"preconditions": {"uid": made["metadata"]["uid"]}})


def test_a_selection_is_deleted_at_once(cluster: Cluster) -> None:
    for name, tier in (("a", "x"), ("b", "x"), ("c", "y")):
        cluster.create(labelled(configmap(name), tier=tier))
    path = cluster.path(configmap("a"), named=False)
    cluster.request("DELETE", f"{path}?labelSelector=tier%3Dx")
    left = cluster.request("GET", f"{path}?labelSelector=tier")["items"]
    assert [each["metadata"]["name"] for each in left] == ["c"]


def test_a_namespace_goes_when_its_finalizer_does(cluster: Cluster) -> None:
    """Nobody empties it here, as nobody does behind a lone kube-apiserver."""
    shop = namespace("shop")
    cluster.create(shop)
    cluster.request("DELETE", cluster.path(shop))
    assert cluster.get(shop)["status"]["phase"] == "Terminating"
    with refused(403, "is being terminated"):
        cluster.create(configmap("a", "shop"))
    cluster.delete(shop)
    with refused(404):
        cluster.get(shop)
