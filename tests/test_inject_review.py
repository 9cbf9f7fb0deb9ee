"""The mutating webhook: reviews as an API server sends them, over HTTP."""

import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from meshfed.demo.kube.patches import operated
from meshfed.federation.inject import review
from meshfed.federation.inject.app import INJECT, LARGEST, app
from meshfed.federation.inject.decide import PROXY, Namespace
from meshfed.federation.inject.injection import Injection
from meshfed.federation.inject.review import NoReview

SHOP = Namespace("shop", {"meshfed.io/inject": "enabled"})
POD = {"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "web"}]}}


def asked(pod: object = POD, **request: object) -> dict[str, object]:
    said = {
        "uid": "705ab4f5",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop",
        "operation": "CREATE",
        "dryRun": False,
        "object": pod,
        **request,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": said}


class Known:
    """A cluster with one namespace."""

    def __init__(self, *, new: bool = True) -> None:
        self.new = new

    async def told(self, name: str) -> Namespace | None:
        return SHOP if name == "shop" else None

    async def native(self) -> bool:
        return self.new


@pytest.fixture
async def webhook() -> AsyncIterator[httpx.AsyncClient]:
    served = app(Injection, lambda: "", {"aks": Known(), "old": Known(new=False)})
    transport = httpx.ASGITransport(app=served)
    async with httpx.AsyncClient(transport=transport, base_url="https://inject") as client:
        yield client


async def answer(webhook: httpx.AsyncClient, said: object) -> dict[str, object]:
    got = await webhook.post(f"{INJECT}?timeout=10s", json=said)
    assert (got.status_code, got.headers["content-type"]) == (200, "application/json")
    told = got.json()
    assert (told["apiVersion"], told["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = told["response"]
    assert response.pop("uid") == "705ab4f5"
    return response


async def test_a_pod_that_is_made_is_patched(webhook):
    response = await answer(webhook, asked())
    assert response.keys() == {"allowed", "patchType", "patch"}
    assert (response["allowed"], response["patchType"]) == (True, "JSONPatch")
    made = operated(POD, json.loads(base64.b64decode(response["patch"])))
    assert [each["name"] for each in made["spec"]["initContainers"]] == ["meshfed-init", PROXY]


async def test_where_kubelets_may_be_old_the_sidecar_is_a_container(webhook):
    got = await webhook.post(f"{INJECT}/old", json=asked())
    patch = json.loads(base64.b64decode(got.json()["response"]["patch"]))
    made = operated(POD, patch)
    assert [each["name"] for each in made["spec"]["containers"]] == [PROXY, "web"]
    assert (await webhook.post(f"{INJECT}/unheard-of", json=asked())).status_code == 404


async def test_a_dry_run_has_the_same_answer(webhook):
    assert await answer(webhook, asked(dryRun=True)) == await answer(webhook, asked())


async def test_of_an_unknown_namespace_the_api_server_knows_best(webhook):
    assert "patch" in await answer(webhook, asked(namespace="new"))


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"operation": "UPDATE"}, id="an update"),
        pytest.param({"operation": "DELETE", "object": None}, id="a deletion"),
        pytest.param({"subResource": "ephemeralcontainers"}, id="an ephemeral container"),
        pytest.param({"kind": {"group": "apps", "kind": "Deployment"}}, id="another kind"),
        pytest.param({"namespace": "kube-system"}, id="the cluster's own namespace"),
        pytest.param({"namespace": "meshfed"}, id="the control plane's own namespace"),
        pytest.param({"object": {"spec": {"hostNetwork": True}}}, id="host network"),
    ],
)
async def test_what_is_none_of_its_business_passes(webhook, request_):
    assert await answer(webhook, asked(**request_)) == {"allowed": True}


async def test_a_mistake_is_one_line(webhook):
    wrong = {**POD, "metadata": {"annotations": {"meshfed.io/inject": "maybe"}}}
    assert await answer(webhook, asked(wrong)) == {
        "allowed": False,
        "status": {
            "code": 422,
            "reason": "Invalid",
            "message": "meshfed: metadata.annotations[meshfed.io/inject]: 'maybe' is neither"
            " enabled nor disabled",
        },
    }


async def test_what_may_surprise_is_a_warning(webhook):
    pod = {"spec": {**POD["spec"], "securityContext": {"runAsUser": 1500}}}
    [warning] = (await answer(webhook, asked(pod)))["warnings"]
    assert warning.startswith("meshfed: securityContext: runAsUser: ")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        pytest.param(b"", "not JSON: Expecting value", id="nothing"),
        pytest.param(b"[]", "must be a mapping, not a list", id="a list"),
        pytest.param(b"{}", "not an AdmissionReview of admission.k8s.io/v1", id="no review"),
        pytest.param(json.dumps(asked(uid="")).encode(), "request.uid: missing", id="no uid"),
        pytest.param(b"[" * 100_000, "not JSON: ", id="too deep"),
        pytest.param(b"\xff", "not JSON: ", id="no text"),
    ],
)
async def test_what_is_no_review_is_refused(webhook, body, line):
    got = await webhook.post(INJECT, content=body)
    assert got.status_code == 400
    assert got.text.startswith(line)
    assert got.text.count("\n") == 1


async def test_what_is_too_large_is_not_read(webhook):
    assert (await webhook.post(INJECT, content=b" " * (LARGEST + 1))).status_code == 413


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers(-1, 70_000) | some.text(max_size=3),
    lambda inner: (
        some.lists(inner, max_size=2)
        | some.dictionaries(
            some.sampled_from(
                ["containers", "initContainers", "name", "livenessProbe", "httpGet", "port"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(some.fixed_dictionaries({"spec": ANYTHING, "metadata": ANYTHING}))
def test_whatever_a_pod_is_there_is_an_answer(pod):
    request = review.asked(json.dumps(asked(pod)).encode())
    told = review.answered(request, SHOP, Injection(), "", "meshfed")
    response = json.loads(told)["response"]
    assert response["allowed"] or response["status"]["code"] == 422


@settings(max_examples=50)
@given(some.binary(max_size=20))
def test_whatever_is_sent_is_answered_or_refused(body):
    with pytest.raises(NoReview):
        review.asked(body)
