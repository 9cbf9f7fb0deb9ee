"""What every source of policies promises: the same verdicts from files and from a cluster."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from clusters import SOON, namespace
from kube.cluster import Cluster

from meshfed.catalog.document import Document
from meshfed.catalog.model import Policy, Rejected, Specified
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.demo.folder import replace
from meshfed.federation.specification.cluster import ClusterSpecification
from meshfed.federation.specification.files import FilesSpecification
from meshfed.federation.specification.served import RESOURCES
from meshfed.federation.specification.smi import Stated, parse
from meshfed.federation.specification.specification import Specification
from meshfed.providers.kubernetes.options import OURS, Monitored, Where

PATIENCE = 10.0
BROKEN = Path(__file__).parent / "broken/policy"
Object = dict[str, Any]
Verdict = Policy | tuple[str, ...]  # or why it is refused, each `field: why`

# What is no object of a mesh never gets into a cluster, or never out of it to us.
IN_FILES_ALONE = {
    "not-yaml", "no-kind", "no-name", "another-kind", "a-gateway-route", "misspelt-kind",
    "name-in-upper-case",
}  # fmt: skip

ACCOUNT = {"kind": "ServiceAccount", "name": "books"}
RULE = {"kind": "HTTPRouteGroup", "name": "all"}
RIGHT = {
    "target": ("access.smi-spec.io/v1alpha3", "TrafficTarget",
               {"spec": {"destination": ACCOUNT, "sources": [ACCOUNT], "rules": [RULE]}}),
    "target-for-nobody": ("access.smi-spec.io/v1alpha3", "TrafficTarget",
                          {"spec": {"destination": ACCOUNT, "rules": [RULE]}}),
    "target-of-v1alpha2": ("access.smi-spec.io/v1alpha2", "TrafficTarget",
                           {"spec": {"destination": ACCOUNT, "sources": [], "rules": [RULE]}}),
    "target-of-v1alpha1": ("access.smi-spec.io/v1alpha1", "TrafficTarget",
                           {"destination": ACCOUNT, "sources": [ACCOUNT], "specs": [RULE]}),
    "headers-as-a-map": ("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup",
                         {"spec": {"matches": [{"name": "a", "headers": {"host": "shop"}}]}}),
    "headers-as-a-list": ("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup",
                          {"spec": {"matches": [{"name": "a", "headers": [{"host": "shop"}]}]}}),
    "any-path": ("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup",
                 {"spec": {"matches": [{"name": "a", "pathRegex": "", "methods": ["*"]}]}}),
    "group-of-v1alpha2": ("specs.smi-spec.io/v1alpha2", "HTTPRouteGroup",
                          {"matches": [{"name": "a", "methods": ["GET"]}]}),
    "ports": ("specs.smi-spec.io/v1alpha4", "TCPRoute", {"spec": {"matches": {"ports": [80]}}}),
    "all-ports": ("specs.smi-spec.io/v1alpha4", "TCPRoute", {"spec": {}}),
    "route-of-v1alpha3": ("specs.smi-spec.io/v1alpha3", "TCPRoute", {"spec": {}}),
    "split": ("split.smi-spec.io/v1alpha4", "TrafficSplit",
              {"spec": {"service": "web", "backends": [{"service": "a", "weight": 0},
                                                       {"service": "b", "weight": 3}]}}),
    "split-of-v1alpha2": ("split.smi-spec.io/v1alpha2", "TrafficSplit",
                          {"spec": {"service": "web.shop.svc.cluster.local",
                                    "backends": [{"service": "a", "weight": 1}]}}),
    "split-of-v1alpha1": ("split.smi-spec.io/v1alpha1", "TrafficSplit",
                          {"spec": {"service": "web", "backends": [{"service": "a", "weight": "1"},
                                                                   {"service": "b",
                                                                    "weight": "500m"}]}}),
}  # fmt: skip


def thing(version: str, kind: str, name: str, body: Object) -> Object:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def given() -> Iterator[tuple[str, Object, Verdict]]:
    """Every object, with what is to be said of it."""
    for name, (version, kind, body) in RIGHT.items():
        written = thing(version, kind, name, body)
        (said,) = parse(Document("right", written, {}))
        assert isinstance(said, Stated), said
        yield name, written, said.policy
    for file in sorted(BROKEN.glob("*.yaml")):
        if file.stem not in IN_FILES_ALONE:
            written = yaml.safe_load(file.read_text())
            written["metadata"]["name"] = file.stem
            expected = [line for line in file.read_text().splitlines() if "# expect: " in line]
            yield file.stem, written, tuple(why.split(": ", 2)[2] for why in expected)


OBJECTS = tuple(given())


class Platform(Protocol):
    """Where policies stand; the tests are who writes them."""

    def specification(self) -> Specification: ...

    def put(self, *things: Object) -> None: ...

    def delete(self, thing: Object) -> None: ...

    def fail(self) -> None:
        """Nothing can be read any more."""
        ...

    def mend(self) -> None: ...


class Folder:
    """A file for each object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def specification(self) -> Specification:
        return FilesSpecification(self.path, "files:policy")

    def put(self, *things: Object) -> None:
        for each in things:
            replace(self._file(each), json.dumps(each))

    def delete(self, thing: Object) -> None:
        self._file(thing).unlink()

    def fail(self) -> None:
        self.path.rename(self.path.with_name("away"))

    def mend(self) -> None:
        self.path.with_name("away").rename(self.path)

    def _file(self, thing: Object) -> Path:
        return self.path / f"{thing['kind']}-{thing['metadata']['name']}.json"


class Api:
    """A cluster whose CRDs let everything pass, in the version that is written."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.put(namespace())
        for kind in RESOURCES:
            self._serve(kind, "v1alpha4")

    def specification(self) -> Specification:
        where = Where(self.cluster.name, self.cluster.kubeconfig)
        monitored = Monitored(labels=(OURS,))
        return ClusterSpecification("kubernetes:tests", where, monitored, SOON)

    def put(self, *things: Object) -> None:
        for each in things:
            self._serve(each["kind"], each["apiVersion"].partition("/")[2])
            self.cluster.put(each)

    def delete(self, thing: Object) -> None:
        self.cluster.delete(thing)

    def fail(self) -> None:
        self.cluster.server.stop()

    def mend(self) -> None:
        self.cluster.server.start()

    def _serve(self, kind: str, version: str) -> None:
        group, plural = RESOURCES[kind]
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        served: Object = {"name": version, "served": True, "storage": True}
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": kind},
                "versions": [{**served, "schema": {"openAPIV3Schema": anything}}],
            },
        }
        if version not in (listed := self._versions(crd)):
            if listed:  # a version in which anything was stored cannot be taken away
                self.cluster.delete(crd)
                self.cluster.gone(crd)
            self.cluster.create(crd)
            self.cluster.established(crd)

    def _versions(self, crd: Object) -> list[str]:
        has = self.cluster.has(crd)
        listed = self.cluster.get(crd)["spec"]["versions"] if has else []
        return [each["name"] for each in listed]


class Watched:
    """What a source tells, one after the other."""

    def __init__(self, told: AsyncIterator[Specified]) -> None:
        self._told = told
        self.newest = Specified("")

    async def until(self, so: Callable[[Specified], object]) -> Specified:
        async with asyncio.timeout(PATIENCE):
            while not so(self.newest):
                self.newest = await anext(self._told)
        return self.newest


@asynccontextmanager
async def watched(platform: Platform) -> AsyncIterator[Watched]:
    told = platform.specification().watch()
    async with aclosing(told):  # type: ignore[type-var]  # an async generator, as all are
        yield Watched(told)


def verdicts(said: Specified) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {policy.name.name: policy for policy, _ in said.policies}
    for name, _, why in said.rejected:
        assert name
        assert name.name not in found, "both right and wrong"
        found[name.name] = (reason(why),)
    return found


def reason(why: Rejected) -> str:
    return str(Rejected("", why.field, why.why))


VERSIONS = sorted({thing["apiVersion"] for _, thing, _ in OBJECTS})


ROUTE = thing("specs.smi-spec.io/v1alpha4", "TCPRoute", "it", {"spec": {"matches": {"ports": [1]}}})
OTHER = thing("specs.smi-spec.io/v1alpha4", "TCPRoute", "other", {"spec": {}})
CHANGED = {**ROUTE, "spec": {"matches": {"ports": [2]}}}
WRONG = {**ROUTE, "spec": {"matches": {"ports": [0]}}}


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path / 'mesh.db'}"
    migrate(made)
    return made


def rows(url: str) -> list[tuple[str, ...]]:
    """Without where they stand."""
    sql = "select name, state, field, reason from mesh_policies order by name, state"
    return [
        (*map(str, row[:3]), str(row[3]).partition(": ")[2] if row[1] == "rejected" else "")
        for row in query(url, sql).rows
    ]


class Contract:
    """The promises, one test each."""

    @pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.replace("/", " "))
    async def test_each_object_gets_the_verdict_that_it_deserves(
        self, platform: Platform, version: str
    ) -> None:
        mine = [
            (name, thing, said) for name, thing, said in OBJECTS if thing["apiVersion"] == version
        ]
        await asyncio.to_thread(platform.put, *(thing for _, thing, _ in mine))
        async with watched(platform) as told:
            seen = await told.until(lambda s: len(s.policies) + len(s.rejected) == len(mine))
        assert verdicts(seen) == {name: said for name, _, said in mine}
        assert not seen.fault

    async def test_what_is_written_changed_and_deleted_is_in_force_so_and_no_more(
        self, platform: Platform, url: str
    ) -> None:
        platform.put(ROUTE)
        with closing(Catalog(url)) as catalog:
            async with watched(platform) as told:
                first = await told.until(lambda s: s.policies)
                await catalog.specify(first)
                platform.put(CHANGED)
                await catalog.specify(await told.until(lambda s: s.policies != first.policies))
                (changed,) = (await catalog.read()).policies
                assert changed != first.policies[0][0]
                platform.put(OTHER)
                await catalog.specify(await told.until(lambda s: len(s.policies) == 2))
                platform.delete(ROUTE)
                await catalog.specify(await told.until(lambda s: len(s.policies) == 1))
        assert rows(url) == [("other", "accepted", "", "")]

    async def test_what_becomes_wrong_stays_as_it_was_with_the_reason_until_it_is_right(
        self, platform: Platform, url: str
    ) -> None:
        platform.put(ROUTE, OTHER)
        right = [("it", "accepted", "", ""), ("other", "accepted", "", "")]
        why = "must be 1 or more; the previous version stays in force"
        with closing(Catalog(url)) as catalog:
            async with watched(platform) as told:
                await catalog.specify(await told.until(lambda s: len(s.policies) == 2))
                before = (await catalog.read()).policies
                platform.put(WRONG)
                await catalog.specify(await told.until(lambda s: s.rejected))
                assert (await catalog.read()).policies == before
                assert rows(url) == [
                    right[0],
                    ("it", "rejected", "spec.matches.ports[0]", why),
                    right[1],
                ]
                platform.put(CHANGED)
                await catalog.specify(await told.until(lambda s: not s.rejected))
                assert rows(url) == right
                assert (await catalog.read()).policies != before

    async def test_what_was_wrong_when_it_was_first_seen_was_never_in_force(
        self, platform: Platform, url: str
    ) -> None:
        platform.put(WRONG)
        with closing(Catalog(url)) as catalog:
            async with watched(platform) as told:
                await catalog.specify(await told.until(lambda s: s.rejected))
                assert rows(url) == [
                    ("it", "rejected", "spec.matches.ports[0]", "must be 1 or more")
                ]
                platform.delete(WRONG)
                await catalog.specify(await told.until(lambda s: not s.rejected))
        assert rows(url) == []

    async def test_a_source_that_cannot_be_read_says_so_and_changes_nothing(
        self, platform: Platform, url: str
    ) -> None:
        platform.put(ROUTE)
        state = "select state from mesh_providers"
        with closing(Catalog(url)) as catalog:
            async with watched(platform) as told:
                await catalog.specify(await told.until(lambda s: s.policies))
                before = (await catalog.read()).policies
                await asyncio.to_thread(platform.fail)
                await catalog.specify(await told.until(lambda s: s.fault or s.doubt))
                assert query(url, state).rows == (("doubted",),)
                assert (await catalog.read()).policies == before
            async with watched(platform) as told:  # nor after a restart of ours
                await catalog.specify(await told.until(lambda s: s.fault))
                assert (await catalog.read()).policies == before
                await asyncio.to_thread(platform.mend)
                platform.put(OTHER)
                await catalog.specify(await told.until(lambda s: len(s.policies) == 2))
                assert query(url, state).rows == (("good",),)
                assert len((await catalog.read()).policies) == 2


class TestFiles(Contract):
    @pytest.fixture
    def platform(self, tmp_path: Path) -> Platform:
        return Folder(tmp_path / "policy")


class TestCluster(Contract):
    @pytest.fixture
    def platform(self, cluster: Cluster) -> Platform:
        return Api(cluster)
