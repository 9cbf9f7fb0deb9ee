"""Tokens of service accounts: what a cluster signs, and what it says of tokens that it is shown."""

import json
from collections.abc import Sequence

import pytest

from kube.cluster import Cluster, refused
from kube.given import pod, thing
from meshfed.demo.kube.accounts import decoded
from meshfed.demo.kube.objects import Object

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
WEB = pod("web-1", serviceAccountName="web")


@pytest.fixture
def home(cluster: Cluster) -> Cluster:
    """With the account `web` and a pod of it."""
    cluster.create(thing("v1", "ServiceAccount", "web", "default"))
    cluster.create(WEB)
    return cluster


def requested(cluster: Cluster, account: str = "web", **spec: object) -> Object:
    path = f"/api/v1/namespaces/default/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return cluster.request("POST", path, body)


def of_pod(cluster: Cluster, **more: object) -> str:
    uid = cluster.get(WEB)["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": uid}
    given = requested(cluster, audiences=["meshfed"], boundObjectRef=reference | more)
    return str(given["status"]["token"])


def reviewed(cluster: Cluster, token: str, audiences: Sequence[str] = ("meshfed",)) -> Object:
    spec = {"token": token, "audiences": list(audiences)}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    return cluster.request("POST", REVIEWS, body)["status"]


def test_a_token_says_whose_it_is_and_for_which_pod(home: Cluster) -> None:
    token, uid = of_pod(home), home.get(WEB)["metadata"]["uid"]
    claims = json.loads(decoded(token.split(".")[1]))
    assert claims["aud"] == ["meshfed"]
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["kubernetes.io"]["pod"] == {"name": "web-1", "uid": uid}
    said = reviewed(home, token)
    assert said["authenticated"]
    assert said["audiences"] == ["meshfed"]
    assert said["user"]["username"] == "system:serviceaccount:default:web"
    extra = said["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-name"] == ["web-1"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [uid]


def test_a_token_for_others_is_none_for_the_api_server(home: Cluster) -> None:
    token = of_pod(home)
    assert "is invalid for the target audiences" in reviewed(home, token, ["vault"])["error"]
    with refused(401):
        home.seen_by(token).request("GET", "/api/v1/pods")


def test_a_token_ends_with_its_pod(home: Cluster) -> None:
    token = of_pod(home)
    home.delete(WEB)
    assert "has been invalidated" in reviewed(home, token)["error"]
    home.create(WEB)  # its namesake
    assert "does not match service account pod ref claim" in reviewed(home, token)["error"]


def test_a_token_ends_with_its_account(home: Cluster) -> None:
    token, account = of_pod(home), thing("v1", "ServiceAccount", "web", "default")
    home.delete(account)
    assert 'serviceaccounts "web" not found' in reviewed(home, token)["error"]
    home.create(account)
    assert "does not match claim" in reviewed(home, token)["error"]


def test_a_token_ends_with_its_time(home: Cluster) -> None:
    token = of_pod(home)
    home.server.tokens.mint.ahead = 3601
    assert "has expired" in reviewed(home, token)["error"]


def test_a_token_that_anybody_changed_is_none(home: Cluster) -> None:
    header, claims, signature = of_pod(home).split(".")
    for forged in ("x", "a.b.c", f"{header}.{claims}.", f"{header}.{claims[:-4]}AAAA.{signature}"):
        said = reviewed(home, forged)
        assert "invalid bearer token" in said["error"]
        assert "authenticated" not in said


def test_no_token_is_bound_to_what_is_not_the_accounts(home: Cluster) -> None:
    with refused(409, "does not match"):
        of_pod(home, uid="another")
    with refused(404, "pods"):
        of_pod(home, name="web-2")
    home.create(thing("v1", "ServiceAccount", "other", "default"))
    with refused(400, "different serviceaccount name"):
        reference = {"apiVersion": "v1", "kind": "Pod", "name": "web-1"}
        requested(home, "other", boundObjectRef=reference)
    with refused(422, "10 minutes"):
        requested(home, expirationSeconds=60)
