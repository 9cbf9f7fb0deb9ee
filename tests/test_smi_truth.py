"""SMI means the same on the wire from files, on the wire from a cluster, and to `path`."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import live
import pytest
import pytest_asyncio
import yaml
from applications import Handler, Web, listening
from clusters import namespace
from kube.cluster import Answered, Cluster, running
from truth import (
    CALLERS,
    HOSTS,
    HTTP_APPLICATION,
    SERVED,
    SERVERS,
    SHUT,
    TCP_APPLICATION,
    Case,
    Request,
    full,
    objects,
)
from truth_table import CASES, PERMISSIVE

from meshfed.catalog.document import Document
from meshfed.catalog.model import ServiceName
from meshfed.catalog.reader import query
from meshfed.catalog.resolved import resolve
from meshfed.federation.explain import matching
from meshfed.federation.explain.callers import callers
from meshfed.federation.explain.facts import Facts, gathered
from meshfed.federation.explain.judge import Asked, Known, Verdict
from meshfed.federation.explain.path import path
from meshfed.federation.specification.smi import Stated, parse

CRDS = Path(__file__).parent.parent / "deploy/crds"
OFTEN = {1: 15, 2: 40}  # requests to something that is divided: one answer of two is 2 ** -39
ACCEPTED = "select kind, namespace, name from mesh_policies where state = 'accepted' and source = "


def stated(policies: Iterable[str]) -> list[Stated]:
    """Those that are not refused."""
    read = (parse(Document("truth.yaml", yaml.safe_load(text), {})) for text in policies)
    return [each for found in read for each in found if isinstance(each, Stated)]


def told(facts: Facts, case: Case) -> frozenset[str]:
    """Who answers, by what `path` says."""
    request = case.request
    headers = {":authority": request.authority, **dict(request.headers)}
    asked = matching.Request(request.method, request.path, headers) if request.method else None
    (who,) = callers(facts.mesh, request.source, facts.resolved)
    service = Asked(ServiceName.parse(request.service), request.port, asked)
    said = path(facts.mesh, who, service, Known(), facts.resolved)
    if not request.method and said.verdict is not Verdict.ALLOWED:
        return frozenset({SHUT})
    answering = {hop for hop in said.hops if hop.used and hop.status in (None, 200)}
    names = {facts.mesh.workloads[hop.endpoint.workload].name for hop in answering}
    return frozenset(names | {str(status) for status in said.statuses - {200}})


def alone(facts: Facts, case: Case) -> Facts:
    """The same mesh with no other policies than these."""
    mesh = replace(facts.mesh, policies=tuple(each.policy for each in stated(case.policies)))
    return replace(facts, mesh=mesh, resolved=resolve(mesh))


@dataclass
class World:
    """A mesh that hears of policies by a file and from a cluster; so far it has none."""

    mesh: live.Mesh
    cluster: Cluster
    source: str = ""  # where the policies in force are
    facts: Facts | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.mesh.folder}/meshfed.db"

    async def settled(self, source: str, policies: Iterable[str]) -> None:
        """Once these and no others are in force, at every proxy."""
        expected = {(s.kind, s.name.namespace, s.name.name) for s in stated(policies)}

        async def so() -> bool:
            rows = await asyncio.to_thread(query, self.url, ACCEPTED + f"'{source}'")
            return {tuple(map(str, row)) for row in rows.rows} == expected

        await live.until(f"the policies of {source}", so)
        await self.acknowledged()

    async def acknowledged(self) -> None:
        control = self.mesh.control
        await control.acknowledged(await control.revision(), time.time())
        self.facts = await asyncio.to_thread(gathered, self.url)

    def told(self, case: Case) -> frozenset[str]:
        assert self.facts is not None
        return told(self.facts, case)

    async def asked(self, case: Case) -> frozenset[str]:
        """Who answers, as often as it takes to see all who may."""
        divided = case.divided or len(case.answers) > 1
        times = OFTEN[len(case.answers)] if divided else 1
        return frozenset([await self.answer(case.request) for _ in range(times)])

    async def answer(self, request: Request) -> str:
        if not request.method:
            return await self.dialled(request)
        sidecar = self.mesh.sidecars[request.source]
        return who(await live.answer(spoken(request), sidecar.address, live.OUTBOUND))

    async def dialled(self, request: Request) -> str:
        sidecar = self.mesh.sidecars[request.source]
        async with live.dial(sidecar.address, live.OUTBOUND) as (reader, writer):
            asked = f"CONNECT {request.authority} HTTP/1.1\r\nhost: {request.authority}\r\n\r\n"
            writer.write(asked.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.partition(b"\r\n")[0]:
                return SHUT
            writer.write(b"who")
            return (await reader.read(100)).decode() or SHUT

    async def knocked(self, case: Case) -> str:
        """The server's own word, past the caller's sidecar."""
        request = case.request
        (server,) = serving(request.service)
        _, address = SERVERS[server]
        at = (self.mesh.sidecars[request.source], address, request.service, request.port)
        if not request.method:
            return (await live.knock(*at, b"who")).decode() or SHUT
        return who(await live.knock(*at, spoken(request), alpn="http/1.1"))


def spoken(request: Request) -> bytes:
    """As it stands: HTTP clients would take the dots out of a path."""
    headers = {"host": request.authority, **dict(request.headers)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{request.method} {request.path} HTTP/1.1\r\n{lines}\r\n".encode()


def who(head: bytes) -> str:
    first, *rest = head.decode().split("\r\n")
    if " 200 " not in first:
        return first.split(" ")[1] if first else SHUT
    (name,) = (line for line in rest if line.startswith("x-name: "))
    return name.removeprefix("x-name: ")


def direct(case: Case) -> bool:
    """Whether one server alone decides."""
    return not case.divided and len(serving(case.request.service)) == 1


def serving(service: str) -> list[str]:
    return [name for name, served in SERVED.items() if service in map(full, served)]


def named(name: str) -> Handler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(name.encode())
        await writer.drain()

    return answer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("truth")
    async with AsyncExitStack() as stack:
        cluster = stack.enter_context(running(folder / "cluster"))
        await asyncio.to_thread(furnish, cluster)
        mesh = live.Mesh(folder, HOSTS, {})
        kubeconfig = {
            "type": "kubernetes",
            "context": "tests",
            "kubeconfig": "cluster/kubeconfig.yaml",
        }
        mesh.written["specification"] = [kubeconfig, {"type": "files", "path": "policy/"}]
        live.replace(mesh.config, yaml.safe_dump(mesh.written))
        stack.callback(mesh.end)
        for name, (_, at) in SERVERS.items():
            await stack.enter_async_context(listening(Web(name), at, HTTP_APPLICATION))
            await stack.enter_async_context(listening(named(name), at, TCP_APPLICATION))
        await mesh.serve()
        await mesh.start(*CALLERS, *SERVERS)
        made = World(mesh, cluster)
        await made.acknowledged()
        yield made


def furnish(cluster: Cluster) -> None:
    for file in sorted(CRDS.glob("*.yaml")):
        crd = cluster.create(yaml.load(file.read_text(), yaml.CSafeLoader))
        cluster.established(crd)
    for name in ("truth", "foreign"):
        cluster.put(namespace(name))


FILES, CLUSTER = "files:policy", "kubernetes:cluster/kubeconfig.yaml:tests"
ALL = objects((*CASES, *PERMISSIVE))


@dataclass(frozen=True)
class Said:
    """What became of every row while its policies stood in one place."""

    world: World
    before: dict[str, frozenset[str]]  # on the wire, while there were none
    path: dict[str, frozenset[str]]
    wire: dict[str, frozenset[str]]
    server: dict[str, str]  # past the caller's own sidecar


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=[FILES, CLUSTER], ids=["files", "cluster"]
)
async def said(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Said]:
    """All policies in one place, and none in the other."""
    file = world.mesh.folder / "policy" / "truth.yaml"
    before = {case.name: frozenset([await world.answer(case.request)]) for case in CASES}
    if request.param == FILES:
        live.replace(file, "---\n".join(ALL))
    else:
        await asyncio.to_thread(applied, world.cluster)
    await world.settled(request.param, ALL)
    yield Said(
        world,
        before,
        {case.name: world.told(case) for case in CASES},
        {case.name: await world.asked(case) for case in CASES},
        {case.name: await world.knocked(case) for case in CASES if direct(case)},
    )
    if request.param == FILES:
        file.unlink()
    else:
        await asyncio.to_thread(withdrawn, world.cluster)
    await world.settled(request.param, [])


def applied(cluster: Cluster) -> None:
    """What OpenAPI refuses is not there; the mesh would refuse it too."""
    for text in ALL:
        if stated([text]):
            cluster.create(yaml.safe_load(text))
        else:
            with suppress(Answered):
                cluster.create(yaml.safe_load(text))


def withdrawn(cluster: Cluster) -> None:
    for text in ALL:
        thing = yaml.safe_load(text)
        if cluster.has(thing):
            cluster.delete(thing)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_wire_and_path_say_what_smi_says(said: Said, case: Case) -> None:
    assert (said.path[case.name], said.wire[case.name]) == (case.answers, case.answers)
    assert said.wire[case.name] == case.answers
    assert not said.before[case.name] & SERVERS.keys()
    if case.allowed and case.name in said.server:
        assert {said.server[case.name]} == case.answers
    elif case.name in said.server:
        assert said.server[case.name] in ("400", "403", SHUT)


@pytest.mark.asyncio(loop_scope="module")
async def test_permissive_opens_everything_while_it_is_on(said: Said) -> None:
    world = said.world
    await world.mesh.change(lambda: world.mesh.permit(everything=True))
    try:
        await world.acknowledged()
        for case in PERMISSIVE:
            assert (case.name, world.told(case)) == (case.name, case.answers)
            assert (case.name, await world.asked(case)) == (case.name, case.answers)
    finally:
        await world.mesh.change(lambda: world.mesh.permit(everything=False))
    await world.acknowledged()
    for case in PERMISSIVE:
        assert world.told(case) == await world.asked(case)
        assert not world.told(case) & SERVERS.keys()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_row_stands_by_its_own_policies(world: World, case: Case) -> None:
    assert world.facts is not None
    assert told(alone(world.facts, case), case) == case.answers


def test_a_row_has_a_name_and_an_object_is_one_thing() -> None:
    names = [case.name for case in CASES]
    keys = [(s["kind"], *s["metadata"].values()) for s in map(yaml.safe_load, ALL)]
    assert len(names) == len(set(names)) >= 40
    assert len(keys) == len(set(keys))
