"""What the configuration may say of Azure, and why something else may not stand there."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from meshfed.demo.arm.resources import SUBSCRIPTION
from meshfed.federation.check import check
from meshfed.providers.azure.options import CLOUDS, options

OTHER = "00000000-0000-0000-0000-0000000000AB"


def read(base: Path = Path(), **said: Any) -> Any:
    return options("weu", {"subscriptions": [SUBSCRIPTION], **said}, base)


def test_only_the_subscriptions_are_needed() -> None:
    found = read()
    assert found.subscriptions == (SUBSCRIPTION,)
    assert (found.cloud, found.auth, found.refresh) == (CLOUDS["public"], "", 30.0)
    choice = found.choice
    assert (choice.tag, choice.public, choice.aks) == ("meshfed.service", False, False)


def test_everything_else_may_be_said() -> None:
    found = read(
        subscriptions=[SUBSCRIPTION, OTHER, SUBSCRIPTION],
        resource_groups=["Shop"],
        cloud="usgov",
        auth="workload_identity",
        refresh="2m",
        select={"tag": "Mesh-Service"},
        address="public",
        network="hub",
        include_aks_nodes=True,
    )
    assert found.subscriptions == (SUBSCRIPTION, OTHER.lower())
    assert found.cloud.scope == "https://management.core.usgovcloudapi.net/.default"
    assert (found.auth, found.refresh) == ("workload_identity", 120.0)
    choice = found.choice
    assert (choice.groups, choice.tag, choice.network) == ({"shop"}, "mesh-service", "hub")
    assert (choice.public, choice.aks) == (True, True)


def test_a_cloud_of_ones_own_has_an_endpoint_an_authority_and_whom_to_trust(
    tmp_path: Path,
) -> None:
    (tmp_path / "ca.pem").write_text("")
    stack = {"endpoint": "https://arm.test/", "authority": "https://login.test", "ca": "ca.pem"}
    found = read(tmp_path, cloud=stack).cloud
    assert (found.endpoint, found.scope) == ("https://arm.test", "https://arm.test/.default")
    assert (found.ca, found.custom) == (tmp_path / "ca.pem", True)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"subscription": []}, "subscription: unknown key; did you mean subscriptions?"),
        ({"subscriptions": None}, "subscriptions: missing: list the ids of the subscriptions"),
        ({"subscriptions": []}, "subscriptions: [] is not a list of names: name at least one"),
        ({"subscriptions": [7]}, "subscriptions: 7 is not text: put it in quotes"),
        ({"subscriptions": ["x"]}, "subscriptions: 'x' is no id of a subscription"),
        ({"resource_groups": ["a/b"]}, "resource_groups: 'a/b' is no name of a resource group"),
        ({"cloud": "moon"}, "cloud: 'moon' is none of public, usgov, china, and no mapping"),
        ({"cloud": {"url": "x"}}, "cloud.url: unknown key; known are audience, authority, ca"),
        ({"cloud": {"endpoint": "http://arm.test"}},
         "cloud.endpoint: 'http://arm.test' is no https:// address"),
        ({"cloud": {"endpoint": "https://a.test"}}, "cloud.authority: None is no https://"),
        ({"cloud": {"endpoint": "https://a.test", "authority": "https://b.test", "ca": "no"}},
         "cloud.ca: 'no' is no file with certificates"),
        ({"auth": "magic"}, "auth: 'magic' is none of workload_identity, managed_identity"),
        ({"refresh": "0s"}, "refresh: '0s' is no time from 1s to 1h: write 30s"),
        ({"refresh": 30}, "refresh: 30 is no time from 1s to 1h: write 30s"),
        ({"select": "x"}, """select: 'x' is not {tag: "meshfed.service"}, the name of a tag"""),
        ({"select": {"tag": "a/b"}}, "select: {'tag': 'a/b'} is not {tag:"),
        ({"address": "both"}, "address: 'both' is none of private, public"),
        ({"network": "a b"}, "network: 'a b' is no name: letters, digits"),
        ({"include_aks_nodes": "yes"}, "include_aks_nodes: 'yes' is neither true nor false"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_key(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=": ") as caught:
        read(**said)
    assert str(caught.value).startswith(why)


def test_it_is_refused_where_it_stands_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "meshfed.yaml"
    file.write_text(
        "catalog: sqlite:///m.db\nproviders:\n"
        f"  - {{name: weu, type: azure, subscriptions: [{SUBSCRIPTION}],\n     auth: magic}}\n"
    )
    (found,) = check([file], StringIO(), {}).rejected
    assert str(found).startswith(f"{file}:4: providers[0].auth: 'magic' is none of")
