"""Broken files under a `meshfed serve` that runs: said in one line, and nothing else happens."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from live import DOMAIN, Mesh

from meshfed.catalog.model import Mesh as Known
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import replace

BROKEN = Path(__file__).parent / "broken"
HOSTS = """\
hosts:
  - {name: well, address: 10.0.0.9, service: well.shop, port: 80, identity: well.shop}
  - {name: a, address: 10.0.0.1, service: a.shop, port: 80, identity: a.shop}
"""
POLICIES = dict(
    zip(
        ("target", "group", "route", "split"),
        (BROKEN / "healthy.yaml").read_text().split("---\n"),
        strict=True,
    )
)
EXPECTED = dict(
    line.split(": ", 1)
    for line in (
        re.sub(r"^([^:]+):(\d+): ", r"\1: \2: ", line)
        for line in (BROKEN / "hosts" / "expected.txt").read_text().splitlines()
    )
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    policies = {f"{name}.yaml": text for name, text in POLICIES.items()}
    made = Mesh(tmp_path_factory.mktemp("mistakes"), HOSTS, policies)
    try:
        asyncio.run(made.serve())
        yield made
    finally:
        made.end()


def url(mesh: Mesh) -> str:
    return f"sqlite:///{mesh.folder / 'meshfed.db'}"


async def told(mesh: Mesh, sql: str) -> list[str]:
    """The first column of an answer."""
    answer = await asyncio.to_thread(query, url(mesh), sql)
    return [str(row[0]) for row in answer.rows]


async def known(mesh: Mesh) -> Known:
    with closing(Catalog(url(mesh))) as catalog:
        return await catalog.read()


async def degraded(mesh: Mesh) -> list[str]:
    status, text = await mesh.control.get("/readyz")
    assert status == 200
    return json.loads(text)["degraded"]


def says(mesh: Mesh, sql: str, words: str) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        mesh.process.running()
        return any(words in each for each in await told(mesh, sql))

    return said


def names(mesh: Mesh, *sources: str) -> Callable[[], Awaitable[bool]]:
    """Whether these are what /readyz calls degraded."""

    async def true() -> bool:
        return tuple(each.partition(": ")[0] for each in await degraded(mesh)) == sources

    return true


def well(mesh: Mesh) -> Callable[[], Awaitable[bool]]:
    async def true() -> bool:
        reasons = await told(mesh, "select reason from mesh_providers where state <> 'good'")
        return not await degraded(mesh) and not reasons

    return true


def test_it_says_where_it_serves_and_names_no_door_that_is_shut(mesh: Mesh) -> None:
    lines = map(json.loads, mesh.process.log.read_text().splitlines())
    [said] = [line for line in lines if line["event"] == "serving"]
    assert said.keys() == {"at", "level", "event", "replica", "xds", "admin"}


# Host lists


ENDPOINTS = "select service || ' ' || address || ' ' || port from mesh_endpoints order by 1"
REASONS = "select reason || ' ' || doubt from mesh_providers"

# All that these leave out is an entry that the healthy list has not either.
HARMLESS = {"one-name-with-two-addresses.yaml", "one-name-with-two-identities.yaml"}


@pytest.mark.parametrize("name", EXPECTED, ids=lambda name: Path(name).stem.replace("-", " "))
async def test_no_broken_host_list_takes_an_endpoint_away(mesh: Mesh, name: str) -> None:
    before = await told(mesh, ENDPOINTS)
    assert len(before) == 2
    line, why = EXPECTED[name].split(": ", 1)
    replace_bytes(mesh.hosts, (BROKEN / "hosts" / name).read_bytes())
    why = why.replace(name, "hosts.yaml")
    await until(f"hosts.yaml:{line}: {why}", says(mesh, REASONS, f"hosts.yaml:{line}: {why}"))
    assert await told(mesh, ENDPOINTS) == before
    await until("readiness to say so", names(mesh, *(() if name in HARMLESS else ("rack",))))
    replace(mesh.hosts, HOSTS)
    await until("the good list to be believed again", well(mesh))
    assert await told(mesh, ENDPOINTS) == before
    assert not await told(mesh, "select address from mesh_endpoints where stale or doubt <> ''")


def replace_bytes(path: Path, content: bytes) -> None:
    new = path.with_name(".broken.new")
    new.write_bytes(content)
    new.rename(path)


# Policies


ACCEPTED = "select kind || ' ' || name || ' ' || state from mesh_policies where state = 'accepted'"
REJECTED = "select reason from mesh_policies where state = 'rejected'"


# Of another kind or name, they take nobody's place: they are put beside the healthy ones.
BESIDE = {"another-kind", "a-gateway-route", "udp-route", "name-in-upper-case"}


def texts(folder: str, *without: str) -> list[object]:
    found = [path for path in sorted((BROKEN / folder).glob("*.yaml")) if path.stem not in without]
    return [pytest.param(path, path.read_text(), id=path.stem.replace("-", " ")) for path in found]


def expected(text: str) -> str:
    """The first of what is wrong, without where: the file has another name here."""
    line = next(each for each in text.splitlines() if each.startswith("# expect: "))
    return re.sub(r"^# expect: \S+ ([\w.\[\]]+: )?", "", line)


def replaced(stem: str, text: str) -> str:
    """The file of the healthy object whose place a broken one takes."""
    if stem in BESIDE:
        return "beside.yaml"
    found = re.search(r"name: (target|group|route|split),", text)
    return f"{found[1] if found else 'group'}.yaml"


@pytest.mark.parametrize(("path", "text"), texts("policy"))
async def test_no_broken_policy_changes_what_is_in_force(mesh: Mesh, path: Path, text: str) -> None:
    before, accepted = await known(mesh), await told(mesh, ACCEPTED)
    assert len(accepted) == 4
    file = mesh.folder / "policy" / replaced(path.stem, text)
    replace(file, text)
    try:
        await until(expected(text), says(mesh, REJECTED, expected(text)))
        assert (await known(mesh)).policies == before.policies
    finally:
        file.unlink() if file.stem not in POLICIES else replace(file, POLICIES[file.stem])

    async def settled() -> bool:
        return await told(mesh, ACCEPTED) == accepted and not await told(mesh, REJECTED)

    await until("the good policy to be believed again", settled)
    assert (await known(mesh)).policies == before.policies


async def test_a_folder_of_policies_that_is_gone_changes_nothing_and_is_named(mesh: Mesh) -> None:
    before, folder = await known(mesh), mesh.folder / "policy"
    away = folder.rename(mesh.folder / "away")
    await until("the folder to be missed", names(mesh, "files:policy"))
    assert (await known(mesh)).policies == before.policies
    away.rename(folder)
    await until("the folder to be found again", well(mesh))
    assert (await known(mesh)).policies == before.policies


# Configuration


@pytest.mark.parametrize(
    ("path", "text"),
    # What a provider says of its options is asked at the start, and by `validate`.
    texts(
        "config",
        "host-list-that-is-a-number",
        "kubeconfig-that-is-not-there",
        "namespaces-by-half-a-label",
        "provider-of-no-known-type",
        "provider-whose-file-is-not-there",
        "provider-with-a-misspelt-option",
        "specification-that-is-not-there",
    ),
)
async def test_a_broken_configuration_is_refused_in_one_line(
    mesh: Mesh, path: Path, text: str
) -> None:
    before, said = await known(mesh), len(mesh.process.log.read_text())
    replace(mesh.config, text)

    async def refused() -> bool:
        mesh.process.running()
        return "configuration refused" in mesh.process.log.read_text()[said:]

    await until("the configuration to be refused", refused)
    lines = [json.loads(line) for line in mesh.process.log.read_text()[said:].splitlines()]
    assert {line["event"] for line in lines} == {"configuration refused"}
    assert all(re.match(rf"\S*{mesh.config.name}:\d+: ", line["reason"]) for line in lines)
    assert await known(mesh) == before


@pytest.mark.parametrize("permissive", [True, False])
async def test_after_them_permissive_is_heeded_at_once(mesh: Mesh, permissive: bool) -> None:
    edit = await mesh.change(lambda: mesh.permit(everything=permissive))
    assert edit.acknowledged - edit.renamed < 1
    now = await known(mesh)
    assert (now.permissive, now.trust_domain) == (permissive, DOMAIN)
