"""Workloads registered over the admin API: what is said, what is refused, and that callers reach
them."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import live
import pytest
from answering import Running, answering
from applications import Web, listening
from prometheus_client import CollectorRegistry

from meshfed.catalog.model import Known, Protocol, Workload
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admin import workloads
from meshfed.federation.admin.app import app
from meshfed.federation.admin.aside import Home
from meshfed.federation.demo.control import until
from meshfed.providers import hostfile

PAGE = (Path(__file__).parent.parent / "docs" / "register.md").read_text()
DB = {
    "name": "db-1",
    "address": "10.0.0.9",
    "service": "ledger.shop:3306",
    "identity": "db.shop",
}
SHOWN = {
    "name": "db-1",
    "address": ["10.0.0.9"],
    "service": ["ledger.shop:3306"],
    "identity": "db.shop",
    "interception": "explicit",
    "platform": "host",
}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog as a first migration leaves it; migrating once is enough."""
    path = tmp_path_factory.mktemp("catalog") / "meshfed.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def url(new: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(new, tmp_path / 'meshfed.db')}"


@pytest.fixture
async def admin(url: str) -> AsyncIterator[httpx.AsyncClient]:
    with closing(Catalog(url)) as catalog:
        api = app(Running(), CollectorRegistry(), Home())
        workloads.offer(api, catalog, Home())
        async with answering(api) as client:
            yield client


async def test_what_is_posted_is_listed_as_it_was_said(admin: httpx.AsyncClient) -> None:
    made = await admin.post("/v1/workloads", json=DB)
    assert (made.status_code, made.json()) == (200, {"name": "db-1", "revision": 1})
    (listed,) = (await admin.get("/v1/workloads")).json()
    assert listed == SHOWN
    again = await admin.post("/v1/workloads", json=listed)
    assert again.json() == {"name": "db-1", "revision": None}


async def test_the_service_of_the_page_is_declared_as_no_http(
    admin: httpx.AsyncClient, url: str
) -> None:
    [declared] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    seen = hostfile.check(declared, "register.md", "rack", "")
    assert not seen.rejected
    assert not seen.fault
    with closing(Catalog(url)) as catalog:
        known = Known("rack", "rack/hosts.yaml", services=seen.services)
        await catalog.believe(known, kind="hosts", cause="test")
        assert (await admin.post("/v1/workloads", json=DB)).status_code == 200
        [service] = (await catalog.read()).services.values()
    [port] = service.ports
    assert (str(service.name), port.number, port.protocol) == ("ledger.shop", 3306, Protocol.TCP)


async def test_what_is_deleted_is_gone_and_once_only(admin: httpx.AsyncClient) -> None:
    await admin.post("/v1/workloads", json=DB)
    gone = await admin.delete("/v1/workloads/db-1")
    assert (gone.status_code, gone.json()) == (200, {"name": "db-1", "revision": 2})
    assert (await admin.get("/v1/workloads")).json() == []
    again = await admin.delete("/v1/workloads/db-1")
    assert again.status_code == 404
    assert again.json()["detail"] == "name: no workload db-1 is registered"


async def test_the_history_says_from_where(admin: httpx.AsyncClient, url: str) -> None:
    await admin.post("/v1/workloads", json=DB)
    told = query(url, "select distinct who, cause from mesh_changes")
    assert [tuple(row) for row in told.rows] == [("admin API, from 127.0.0.1", "registered")]


@pytest.mark.parametrize(
    ("said", "errors"),
    [
        pytest.param(
            {**DB, "address": ["10.0.0.9", "10.0.0.300"], "service": ["ledger.shop"]},
            {"address[1]": "neither an IP address", "service[0]": "<name>.<namespace>:<port>"},
            id="two mistakes",
        ),
        pytest.param({**DB, "adress": "x"}, {"adress": "did you mean address"}, id="misspelt"),
        pytest.param({**DB, "address": []}, {"address": "name at least one"}, id="no address"),
        pytest.param({"name": "db-1"}, {"address": "missing"}, id="hardly anything"),
        pytest.param({**DB, "identity": None}, {"identity": "missing"}, id="nobody"),
        pytest.param({**DB, "identity": 7}, {"identity": "not <account>"}, id="a number"),
        pytest.param({**DB, "service": "ledger.shop:x"}, {"service": "none"}, id="unknown port"),
        pytest.param({**DB, "platform": "pod"}, {"platform": "none of"}, id="no such platform"),
        pytest.param([], {"": ""}, id="a list"),
    ],
)
async def test_each_mistake_is_told_with_its_field(
    admin: httpx.AsyncClient, said: object, errors: dict[str, str]
) -> None:
    refused = await admin.post("/v1/workloads", json=said)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    told = refused.json()
    assert told["status"] == 422
    found = {each["field"]: each["reason"] for each in told["errors"]}
    assert found.keys() == errors.keys()
    assert all(why in found[field] for field, why in errors.items())
    assert all(field in told["detail"] for field in errors)
    assert (await admin.get("/v1/workloads")).json() == []


async def test_what_is_no_json_says_from_where_on(admin: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    refused = await admin.post("/v1/workloads", content=b"{name: x}", headers=headers)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("body: not JSON, from its character 1 on: ")


async def test_half_a_character_is_a_mistake_like_any_other(admin: httpx.AsyncClient) -> None:
    said = b'{"name": "db-1", "address": ["10.0.0.1"], "identity": "a.b\\ud800"}'
    headers = {"content-type": "application/json"}
    refused = await admin.post("/v1/workloads", content=said, headers=headers)
    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == ["identity"]


async def test_a_name_of_another_provider_is_a_conflict(admin: httpx.AsyncClient, url: str) -> None:
    theirs = Workload("db-1", "rack", "rack/hosts.yaml")
    with closing(Catalog(url)) as catalog:
        known = Known("rack", "rack/hosts.yaml", workloads=frozenset({theirs}))
        await catalog.believe(known, kind="hosts", cause="test")
    refused = await admin.post("/v1/workloads", json=DB)
    why = "name: db-1 is a workload of rack/hosts.yaml already: register it by another name"
    assert (refused.status_code, refused.json()["detail"]) == (409, why)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_what_a_web_page_could_post_without_asking_is_refused(
    admin: httpx.AsyncClient, kind: str
) -> None:
    body = b'{"name": "db-1", "address": "10.0.0.9", "identity": "db.shop"}'
    refused = await admin.post("/v1/workloads", content=body, headers={"content-type": kind})
    assert refused.status_code == 415
    assert (await admin.get("/v1/workloads")).json() == []


async def test_a_web_page_from_elsewhere_gets_no_leave_to_post_json(
    admin: httpx.AsyncClient,
) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    leave = await admin.options("/v1/workloads", headers=asked)
    assert leave.status_code == 405
    assert not [name for name in leave.headers if name.startswith("access-control")]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_web_page_that_points_its_name_at_this_machine_does_nothing(
    admin: httpx.AsyncClient, method: str
) -> None:
    await admin.post("/v1/workloads", json=DB)
    path = "/v1/workloads/db-1" if method == "DELETE" else "/v1/workloads"
    body = {**DB, "name": "db-2"} if method == "POST" else None
    rebound = await admin.request(method, path, json=body, headers={"host": "evil.example:15080"})
    assert rebound.status_code == 421
    assert [each["name"] for each in (await admin.get("/v1/workloads")).json()] == ["db-1"]


async def test_a_catalog_that_is_away_is_said_so(tmp_path: Path) -> None:
    with closing(Catalog(f"sqlite:///{tmp_path}/no/meshfed.db")) as catalog:
        api = app(Running(), CollectorRegistry(), Home())
        workloads.offer(api, catalog, Home())
        async with answering(api) as admin:
            away = await admin.post("/v1/workloads", json=DB)
    assert away.status_code == 503
    assert "the catalog is away" in away.json()["detail"]


async def test_the_api_describes_what_it_takes_and_answers(admin: httpx.AsyncClient) -> None:
    described = (await admin.get("/openapi.json")).json()
    post = described["paths"]["/v1/workloads"]["post"]
    assert set(post["responses"]) == {"200", "409", "415", "422", "503"}
    takes = described["components"]["schemas"]["Registration"]
    assert set(takes["required"]) == {"name", "address"}
    assert set(takes["properties"]) == {*SHOWN, "locality"}
    assert (await admin.get("/docs")).status_code == 200


HOSTS = """\
services:
  archive.live: {ports: {http: {number: 80, target: 14001}}, plaintext: allow}
hosts:
  - {name: caller, identity: caller.live,
     address: 127.0.31.1, bind: 127.0.31.1, application: 127.0.31.1}
"""
POLICY = """\
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: everyone, namespace: live}
spec:
  destination: {kind: ServiceAccount, name: archive, namespace: live}
  sources: [{kind: ServiceAccount, name: caller, namespace: live}]
  rules: [{kind: HTTPRouteGroup, name: all}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all, namespace: live}
spec: {matches: [{name: all, pathRegex: ".*", methods: ["*"]}]}
"""


async def test_callers_reach_what_is_registered_while_it_is(tmp_path: Path) -> None:
    bare = {
        "name": "archive-1",
        "address": "127.0.31.2",
        "service": "archive.live:14001",
        "identity": "archive.live",
        "interception": "none",
    }
    async with (
        live.mesh(tmp_path, HOSTS, {"access.yaml": POLICY}, "caller") as mesh,
        listening(Web("archive-1"), "127.0.31.2", 14001),
        httpx.AsyncClient(base_url=f"http://{mesh.written['admin']['listen']}") as admin,
        mesh.sidecars["caller"].http() as caller,
    ):

        async def answered() -> int:
            return (await caller.get("/", headers={"host": "archive.live"})).status_code

        async def reached() -> bool:
            return await answered() == 200

        async def lost() -> bool:
            return await answered() != 200

        assert await lost()
        assert (await admin.post("/v1/workloads", json=bare)).status_code == 200
        await until("an answer of archive-1", reached)
        assert (await admin.delete("/v1/workloads/archive-1")).status_code == 200
        await until("the end of archive-1", lost)
