"""What policy files would change is said before, and nothing is changed."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.specification.files import Held, held, scan

Run = Callable[..., Any]

GROUP = """\
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all, namespace: shop}
spec: {matches: [{name: all, methods: ["*"], pathRegex: ".*"}]}
"""
SPLIT = """\
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: store, namespace: shop}
spec: {service: store, backends: [{service: store-a, weight: 90}, {service: store-b, weight: 10}]}
"""


def target(source: str, destination: str) -> str:
    return f"""\
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {source}-{destination}, namespace: shop}}
spec:
  destination: {{kind: ServiceAccount, name: {destination}, namespace: shop}}
  sources: [{{kind: ServiceAccount, name: {source}, namespace: shop}}]
  rules: [{{kind: HTTPRouteGroup, name: all}}]
"""


def known(*names: str) -> Known:
    """Hosts that are called as they are, serve a service of their name, and are that identity."""
    workloads, endpoints, services = [], [], [Service(ServiceName("store", "shop"), (Port(80),))]
    for number, name in enumerate(names):
        who, address = Identity(name, "shop"), f"10.0.0.{number}"
        one = Workload(name, "rack", "rack/hosts.yaml", identity=who, addresses=(address,))
        service = ServiceName(name, "shop")
        workloads.append(one)
        services.append(Service(service, (Port(80),)))
        endpoints.append(
            Endpoint(service, 80, address, 80, one.id, "rack", one.scope, identity=who)
        )
    return Known(
        "rack", "rack/hosts.yaml", frozenset(services), frozenset(workloads), frozenset(endpoints)
    )


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """A buyer that may call one of two stores; the policies stand in a folder."""
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "group.yaml").write_text(GROUP)
    (policy / "buyer.yaml").write_text(target("buyer", "store-a"))
    url = f"sqlite:///{tmp_path}/meshfed.db"
    migrate(url)

    async def fill() -> None:
        with closing(Catalog(url)) as catalog:
            await catalog.configure("shop.example", permissive=False)
            await catalog.believe(
                known("buyer", "thief", "store-a", "store-b"), kind="hosts", cause=""
            )
            await catalog.specify(held(Held(), scan(policy).texts).specified("files:policy"))

    asyncio.run(fill())
    return url


def planned(command: Run, shop: str, *arguments: object) -> tuple[list[str], str]:
    ended = command("plan", *arguments, "-o", "csv", "--catalog", shop)
    assert ended.code == 0, ended.err
    return ended.out.splitlines()[1:], ended.err


def test_access_that_is_gained(command: Run, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "thief.yaml"
    file.write_text(target("thief", "store-a"))
    rows, said = planned(command, shop, "-f", file)
    assert rows == [
        f"policy,TrafficTarget shop/thief-store-a,added,{file}:1",
        "access,thief.shop → store-a.shop:80,gained: any method .*,shop/thief-store-a",
        "proxies,store-a.shop (1: store-a),RDS ~1,",
        'proxies,thief.shop (1: thief),"CDS +1, EDS +1, SDS +1, RDS ~1",',
    ]
    assert said == "2 of 4 proxies would be told something new; nothing was changed\n"


def test_access_that_is_lost_with_what_a_file_no_longer_says(
    command: Run, shop: str, tmp_path: Path
) -> None:
    file = tmp_path / "policy" / "buyer.yaml"
    file.write_text(target("buyer", "store-b"))
    rows, _ = planned(command, shop, "-f", tmp_path / "policy")
    assert "access,buyer.shop → store-a.shop:80,lost: any method .*,shop/buyer-store-a" in rows
    assert "access,buyer.shop → store-b.shop:80,gained: any method .*,shop/buyer-store-b" in rows
    assert f"policy,TrafficTarget shop/buyer-store-a,removed,{file}" in rows


def test_only_what_is_in_other_files_stays(command: Run, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.yaml"
    file.write_text(GROUP)
    rows, _ = planned(command, shop, "-f", file)
    assert rows == []
    rows, _ = planned(command, shop, "-f", file, "--whole")
    assert "access,buyer.shop → store-a.shop:80,lost: any method .*,shop/buyer-store-a" in rows


def test_a_split_that_appears(command: Run, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "split.yaml"
    file.write_text(SPLIT)
    rows, _ = planned(command, shop, "-f", file)
    change = 'split,store.shop,"not split → 90 store-a.shop, 10 store-b.shop",shop/store'
    assert change in rows


def test_a_policy_without_effect_says_so(command: Run, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "split.yaml"
    file.write_text(SPLIT.replace("store-b", "store-c"))
    rows, _ = planned(command, shop, "-f", file)
    (said,) = (row for row in rows if row.startswith("without effect"))
    assert "backend store-c.shop does not exist" in said


def test_the_same_again_changes_nothing(command: Run, shop: str, tmp_path: Path) -> None:
    rows, said = planned(command, shop, "-f", tmp_path / "policy", "--whole")
    assert rows == []
    assert said.startswith("0 of 4 proxies")


def test_a_file_that_is_wrong_is_one_line(command: Run, shop: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(SPLIT.replace("weight: 90", "weight: much"))
    ended = command("plan", "-f", file, "--catalog", shop)
    assert ended.code == 1
    assert ended.err.startswith(f"{file}:")
    assert len(ended.err.splitlines()) == 1


def test_nothing_is_written(command: Run, shop: str, tmp_path: Path) -> None:
    def dump() -> list[str]:
        import sqlite3

        with closing(sqlite3.connect(shop.removeprefix("sqlite:///"))) as connection:
            return list(connection.iterdump())

    before = dump()
    (tmp_path / "split.yaml").write_text(SPLIT)
    planned(command, shop, "-f", tmp_path / "split.yaml")
    assert dump() == before
