"""What the provider `kubernetes` makes of a cluster's word about a token."""

import base64
import json

import pytest

from meshfed.catalog.model import Identity, workload_id
from meshfed.providers.kubernetes.review import REVIEW, Verdict, claimed, claims, holder
from meshfed.providers.provider import Claimed, Untaken

ACCOUNT = "system:serviceaccount:shop:web"
POD = {
    "authentication.kubernetes.io/pod-name": ["web-1"],
    "authentication.kubernetes.io/pod-uid": ["f00"],
}
ID = workload_id("aks", "f00", "web-1.shop")


def verdict(
    username: str = ACCOUNT, extra: object = None, audiences: object = ("meshfed",), **more: object
) -> Verdict:
    user = {"username": username, "extra": POD if extra is None else extra}
    said = {"authenticated": True, "user": user, "audiences": audiences, **more}
    return REVIEW.decode(json.dumps({"status": said})).status


def token(said: object) -> str:
    part = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    return f"e30.{part}.c2lnbmVk"


def test_a_token_is_of_the_pod_that_the_cluster_names() -> None:
    assert holder(verdict(), "aks", "meshfed") == (ID, Identity("web", "shop"))


def test_an_account_may_have_dots_in_its_name() -> None:
    _, identity = holder(verdict("system:serviceaccount:shop:web.v1"), "aks", "meshfed")
    assert identity == Identity("web.v1", "shop")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(verdict(audiences=[]), "not for the audience", id="knows no audiences"),
        pytest.param(verdict(audiences=["vault"]), "not for the audience", id="another audience"),
        pytest.param(verdict("system:node:n1"), "no service account", id="a node"),
        pytest.param(verdict("system:serviceaccount:shop"), "no service account", id="half a name"),
        pytest.param(verdict(extra={}), "of which pod", id="of no pod"),
        pytest.param(
            verdict(extra={**POD, "authentication.kubernetes.io/pod-uid": ["f00", "f01"]}),
            "of which pod",
            id="of two pods",
        ),
        pytest.param(verdict(authenticated=False, error="a\nb"), "a b", id="refused"),
        pytest.param(verdict(authenticated=False), "does not know it", id="refused without a word"),
    ],
)
def test_anything_less_is_not_taken(said: Verdict, why: str) -> None:
    with pytest.raises(Untaken, match=why):
        holder(said, "aks", "meshfed")


def test_what_a_token_says_of_itself_says_whom_to_ask() -> None:
    about = {"namespace": "shop", "pod": {"name": "web-1", "uid": "f00"}}
    said = claimed(claims(token({"exp": 1, "kubernetes.io": about})), "aks")
    assert said == Claimed(ID, "web-1.shop")


@pytest.mark.parametrize(
    "text",
    ["", "..", "a.b", "a.b.c.d", "e30.bm90IEpTT04.e30", token([]), token({"exp": 1}), "e30.ä.e30"],
)
def test_what_is_no_token_of_an_account_is_not_taken(text: str) -> None:
    with pytest.raises(Untaken, match="not a token of a service account"):
        claims(text)
